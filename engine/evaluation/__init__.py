"""How good a generator's images are: against the training images, and among themselves.

In the order in which data flows: ``weights`` (where the networks' files are), ``extractors`` (images -> what a metric
looks at), ``cache`` (that of the training images), ``frechet``, ``kernel``, ``manifold``, ``wasserstein``, ``spread``
(the formulas), ``metrics`` (which there are), ``evaluator`` (all of it for one generator), ``runs`` (several runs),
``watch``, ``standing`` and ``collapse`` (during training).
"""
