"""What can be said of images without a network: small versions of them, and how much they differ."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fastgan_engine.images import to_uint8
from fastgan_engine.perceptual import as_rgb

SIDE = 32


def rgb_pixels(images: Tensor) -> Tensor:
    """Images uint8 [n, H, W, 1 | 3 | 4] -> uint8 [n, 3, H, W], grey repeated and transparent ones over mid-grey."""
    if images.shape[3] == 4:
        images = to_uint8(as_rgb(images.permute(0, 3, 1, 2).float() / 127.5 - 1))
    return images.permute(0, 3, 1, 2).expand(-1, 3, -1, -1)


def thumbnails(pixels: Tensor) -> Tensor:
    """Pixels uint8 [n, 3, H, W] -> float32 [n, 3 * 32 * 32] in [-1, 1], averaged over areas."""
    return F.adaptive_avg_pool2d(pixels.float() / 127.5 - 1, SIDE).flatten(1)


def mean_pairwise_distance(x: Tensor) -> float:
    """The mean Euclidean distance of two different points of x [n, d], n at least 2; computed in fp64."""
    return torch.pdist(x.double()).mean().item()
