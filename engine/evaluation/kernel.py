"""KID: the squared maximum mean discrepancy of two sets of features under a cubic kernel."""

from torch import Tensor

from fastgan_engine.extras import require

SUBSET = 1_000


def kernel_distance(x: Tensor, y: Tensor) -> float:
    """The unbiased estimate of MMD^2 under k(a, b) = (a b / d + 1)^3: its mean over 100 random subsets.

    x: [n, d], y: [m, d], n and m at least 2; computed in fp64 by torch-fidelity. The subsets hold 1,000 images, or as
    many as the smaller set has. Near 0 for equal distributions, where the estimate may be negative.

    Source: Binkowski et al., "Demystifying MMD GANs", 2018.
    """
    kid = require("torch_fidelity.metric_kid", extra="metrics")
    size = min(SUBSET, len(x), len(y))
    values = kid.kid_features_to_metric(x.double(), y.double(), kid_subset_size=size, verbose=False)
    return values[kid.KEY_METRIC_KID_MEAN]
