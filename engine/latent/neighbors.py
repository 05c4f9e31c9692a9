"""The nearest training images of samples: whether the generator makes new images or knows the old ones by heart."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fastgan_engine.chunks import in_chunks
from fastgan_engine.latent.defaults import NEIGHBORS
from fastgan_engine.latent.images import Images, as_input, pixels_of
from fastgan_engine.latent.metrics import Metric
from fastgan_engine.sampling import CHUNK

YARDSTICK = 32  # training images whose nearest other one is looked for


@dataclass(frozen=True)
class Neighbor:
    """A training image: its position in the set, its distance, and whether it is nearest when mirrored."""

    index: int
    distance: float
    mirrored: bool


@dataclass(frozen=True)
class Neighbors:
    """What ``neighbors`` found.

    Attributes:
        nearest: of each sample the k nearest training images, the nearest first.
        yardstick: of some training images, spread over the set, the distance to the nearest other one; empty where
            there is but one image.
    """

    nearest: list[list[Neighbor]]
    yardstick: list[float]

    @property
    def distances(self) -> list[float]:
        """Of each sample to its nearest training image."""
        return [row[0].distance for row in self.nearest]

    @property
    def suspects(self) -> list[int]:
        """Samples that are nearer to a training image than any image of the yardstick is to another."""
        least = min(self.yardstick, default=0.0)
        return [index for index, distance in enumerate(self.distances) if distance < least]


@torch.no_grad()
def neighbors(
    samples: Tensor,
    images: Images,
    metric: Metric,
    *,
    k: int = NEIGHBORS,
    chunk: int = CHUNK,
    device: torch.device | str = "cpu",
    warn: Callable[[str], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Neighbors:
    """The training images nearest to each of the samples, as they are or mirrored (training shows them both ways).

    Only the points of the samples and of the yardstick are kept; the set is gone through once, ``chunk`` images at a
    time.

    Args:
        samples: uint8 [B, H, W, C].
        metric: on ``device``; see ``defaults.NEIGHBOR_SIZES``.
        k: neighbours of each, as many as there are images at most.
    """
    device = torch.device(device)
    count = len(images.names)
    compared = np.linspace(0, count - 1, min(count, YARDSTICK)).round().astype(int).tolist()

    def points(pixels: Tensor) -> Tensor:
        return torch.cat([metric.points(as_input(part, device)) for part in pixels.split(chunk)])

    wanted = torch.cat([points(samples), points(pixels_of(images, compared))])

    def batch(indices: range) -> Tensor:
        """[wanted, images, 2]: the squared distances, as the images are and mirrored."""
        reals = as_input(pixels_of(images, indices), device)
        both = [_squared(wanted, metric.points(x)) for x in (reals, reals.flip(3))]
        if progress:
            progress(indices.stop, count)
        return torch.stack(both, 2).cpu()

    squared = torch.cat(list(in_chunks(batch, count, chunk=chunk, device=device, what="image", warn=warn)), 1)
    distances, mirrored = metric.distance(squared).min(2)
    between = distances[len(samples) :]
    between[range(len(compared)), compared] = torch.inf  # not to itself
    yardstick = between.min(1).values.tolist() if count > 1 else []
    return Neighbors([_nearest(*row, k) for row in zip(distances[: len(samples)], mirrored, strict=False)], yardstick)


def _squared(a: Tensor, b: Tensor) -> Tensor:
    """By differences: with products, the distance of two that are alike would be rounding."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").square()


def _nearest(distances: Tensor, mirrored: Tensor, k: int) -> list[Neighbor]:
    order = distances.argsort(stable=True)[:k].tolist()
    return [Neighbor(index, distances[index].item(), bool(mirrored[index])) for index in order]
