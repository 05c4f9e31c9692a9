"""Training on one image: ConSinGAN (Hinz, Fisher, Wang, Wermter, WACV 2021), on the engine's parts.

In the order in which data flows: ``pyramid`` (the image at the size of each stage), ``inputs`` (what enters the
generator), ``networks`` with ``resize``, ``penalty``, ``step`` (one iteration), ``state`` and ``trainer`` (the stages),
``applications`` (what a trained run is used for), ``quality`` (figures of its samples).
"""
