"""Sliced Wasserstein distance: how far two sets of points are apart, seen along random directions."""

import torch
from torch import Tensor

DIRECTIONS = 512


def sliced_wasserstein(x: Tensor, y: Tensor, *, directions: int = DIRECTIONS, seed: int = 0) -> float:
    """The mean 1-Wasserstein distance of the projections on ``directions`` random lines.

    x: [n, d], y: [m, d], of any sizes; computed in fp64. The lines are those of ``seed``.

    Source: Rabin et al., "Wasserstein Barycenter and Its Application to Texture Mixing", 2011.
    """
    generator = torch.Generator().manual_seed(seed)
    lines = torch.randn(x.shape[1], directions, generator=generator, dtype=torch.float64)
    lines /= lines.norm(dim=0)
    return wasserstein_1d(x.double() @ lines, y.double() @ lines).mean().item()


def wasserstein_1d(x: Tensor, y: Tensor) -> Tensor:
    """The exact 1-Wasserstein distance of each pair of columns, x: [n, L] and y: [m, L] -> [L].

    The integral over u in [0, 1] of the distance of the u-quantiles, which are constant between multiples of 1/n and
    1/m; in units of 1/(n m) these are whole numbers.
    """
    n, m = len(x), len(y)
    ends = torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]).unique()
    widths = ends.diff(prepend=ends.new_zeros(1)).to(x.dtype) / (n * m)
    gaps = (x.sort(0).values[(ends - 1) // m] - y.sort(0).values[(ends - 1) // n]).abs()
    return widths @ gaps
