"""How near a run's samples are to the image, and how varied: figures that need no trained weights.

They compare runs on one image. They are not the FID: a distance of 0 is a copy of the image, and its diversity 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

PATCH = 7  # pixels on a side
SCALES = 3  # full size, a half, a quarter
PROJECTIONS = 128
SEED = 0
QUANTILES = 4096
COUNT = 20


@dataclass(frozen=True)
class Quality:
    """distance: see ``patch_distance``. diversity: see ``diversity``. count: samples."""

    distance: float
    diversity: float
    count: int

    def __str__(self) -> str:
        return (
            f"patch-wise sliced Wasserstein distance {self.distance:.4f}, "
            f"diversity {self.diversity:.3f} ({self.count} samples)"
        )


def assess(image: Tensor, samples: Sequence[Tensor]) -> Quality:
    """uint8 images [H, W, 3]; the samples are as large as the image."""
    return Quality(patch_distance(image, samples), diversity(image, samples), len(samples))


def patch_distance(image: Tensor, samples: Sequence[Tensor]) -> float:
    """Sliced Wasserstein distance between the 7 x 7 patches of the image and of each sample, averaged.

    Patches are projected on 128 fixed random directions of unit length; along each, the distance is the mean
    difference of the sorted values (their quantiles), with colours from 0 to 1. Averaged over the image at full, half
    and quarter size. 0: the same patches, in whatever order.
    Source: Rabin et al., SSVM 2011; on patches of a pyramid, Karras et al., ICLR 2018.
    """
    target = _quantiles(image)
    distances = [
        torch.stack([(a - b).abs().mean() for a, b in zip(target, _quantiles(sample), strict=True)]).mean()
        for sample in samples
    ]
    return float(torch.stack(distances).mean())


def diversity(image: Tensor, samples: Sequence[Tensor]) -> float:
    """Standard deviation of a pixel over the samples, averaged over all, divided by that of the image's pixels.

    Source: Shaham et al., "SinGAN", ICCV 2019, section 4.
    """
    grey = torch.stack([sample.float().mean(dim=2) for sample in samples])
    return float(grey.std(dim=0, correction=0).mean() / image.float().mean(dim=2).std(correction=0).clamp(min=1e-6))


def _quantiles(image: Tensor) -> list[Tensor]:
    """For each scale, quantiles of the projected patches: [PROJECTIONS, QUANTILES]."""
    generator = torch.Generator().manual_seed(SEED)
    directions = torch.randn(PROJECTIONS, 3 * PATCH**2, generator=generator)
    directions = (directions / directions.norm(dim=1, keepdim=True)).view(PROJECTIONS, 3, PATCH, PATCH)
    x = image.permute(2, 0, 1)[None].float() / 255
    found = []
    for scale in range(SCALES):
        if scale > 0:
            x = F.avg_pool2d(x, 2)
        if min(x.shape[2:]) < PATCH:
            break
        values = F.conv2d(x, directions)[0].flatten(1).sort(dim=1).values
        places = torch.linspace(0, values.shape[1] - 1, QUANTILES).round().long()
        found.append(values[:, places])
    return found
