"""A cheap alarm for samples that look alike: no network, 32 samples, small versions of the images."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from fastgan_engine.evaluation.spread import mean_pairwise_distance, rgb_pixels, thumbnails
from fastgan_engine.evaluation.wasserstein import sliced_wasserstein
from fastgan_engine.networks import Generator
from fastgan_engine.pipelines import PreparedSet
from fastgan_engine.sampling import sample

SAMPLES = 32
REALS = 256
SETTLED = 5  # time constants after which nothing of the untrained weights is left in the average: e^-5 < 1 %


@dataclass(frozen=True, kw_only=True)
class Diversity:
    """What samples look like as a set.

    ratio: their mean pairwise distance over that of the training images; 1: as diverse. swd: sliced Wasserstein
    distance between the two.
    """

    ratio: float
    swd: float


class CollapseAlarm:
    """Compares samples with the training images at 32 x 32 pixels.

    threshold: the ratio below which samples count as alike. ema_decay: of the averaged generator, whose samples are
    alike in any run until the average has forgotten its untrained weights.
    """

    def __init__(self, images: PreparedSet, *, threshold: float, ema_decay: float) -> None:
        self.images, self.threshold = images, threshold
        self.settled_at = round(SETTLED / (1 - ema_decay))

    def measure(self, generator: Generator, *, seed: int) -> Diversity:
        """Of 32 samples of a seed; the global random state is left alone."""
        batches = [thumbnails(rgb_pixels(batch)) for batch in sample(generator, SAMPLES, seed=seed)]
        samples = torch.cat(batches)
        return Diversity(
            ratio=mean_pairwise_distance(samples) / self._spread_of_reals,
            swd=sliced_wasserstein(samples, self._reals),
        )

    def rings(self, diversity: Diversity, *, step: int) -> bool:
        """Whether samples that are so alike at this step are a reason to worry."""
        return diversity.ratio < self.threshold and step >= self.settled_at

    @property
    def applies(self) -> bool:
        """Whether there are training images that differ at all."""
        return self.images.count > 1 and self._spread_of_reals > 0

    @cached_property
    def _reals(self) -> Tensor:
        """At most 256 of the set, evenly spaced."""
        step = -(-self.images.count // REALS)
        chosen = range(0, self.images.count, step)
        return torch.cat([thumbnails(rgb_pixels(torch.from_numpy(self.images.array(i))[None])) for i in chosen])

    @cached_property
    def _spread_of_reals(self) -> float:
        return mean_pairwise_distance(self._reals)
