"""Every default of evaluations, once. Standard library only: the command line's help and the schema read them."""

METRICS = ("fid", "kid", "precision", "recall", "density", "coverage", "lpips", "swd")
COUNT = 5_000  # samples, as in the paper
SEED = 0
ALARM = 0.6  # docs/evaluate.md says what was tried
