"""FID: the Fréchet distance between two sets of features, each taken for a Gaussian."""

import torch
from torch import Tensor


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """|mean(x) - mean(y)|^2 + tr(X + Y - 2 (X Y)^(1/2)), where X and Y are the (unbiased) covariances.

    x: [n, d], y: [m, d], n and m at least 2; computed in fp64. With X = A^T A and Y = B^T B the trace of (X Y)^(1/2) is
    the sum of the singular values of A B^T: no square root of a d x d matrix, which is singular for fewer than d + 1
    images, and little work where the images are few.

    Source: Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", 2017.
    """
    x, y = x.double(), y.double()
    shift = (x.mean(0) - y.mean(0)).square().sum()
    a, b = _covariance_factor(x), _covariance_factor(y)
    overlap = torch.linalg.svdvals(a @ b.T).sum()
    return max((shift + a.square().sum() + b.square().sum() - 2 * overlap).item(), 0.0)


def _covariance_factor(x: Tensor) -> Tensor:
    """A [min(n, d), d] with A^T A = the covariance of x [n, d]."""
    centred = (x - x.mean(0)) / (len(x) - 1) ** 0.5
    return torch.linalg.qr(centred, mode="r").R if len(x) > x.shape[1] else centred
