"""What enters the generator: noise for every stage, and an image in place of the coarsest noise to change one.

Stage 0 gets [1, 3, H, W]: noise, or for ``harmonize`` and ``edit`` a changed copy of the training image. The other
stages get noise of the width of the maps, larger than the stage where borders are varied.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastgan_engine.config.single import Single
from fastgan_engine.single.augment import Pixels, disguise, shuffle_tiles
from fastgan_engine.single.networks import MARGIN
from fastgan_engine.single.resize import Size

D_STEPS = 3
EDIT_NOISE = 0.1
CHANGES: dict[str, Callable[[Pixels, np.random.Generator], Pixels]] = {"harmonize": disguise, "edit": shuffle_tiles}


class Draws(NamedTuple):
    """The random numbers of one iteration.

    noise: one tensor a stage, coarsest first. mixes: U(0, 1) [D_STEPS], where between image and fake the gradient is
    penalised.
    """

    noise: list[Tensor]
    mixes: Tensor


class Inputs:
    """The inputs of one run's stages.

    Args:
        coarsest: [1, 3, H, W], the training image at stage 0, or with ``composite`` what is to be changed.
        composite: ``coarsest`` enters as it is, not a changed copy of it.
    """

    def __init__(
        self, single: Single, coarsest: Tensor, generator: torch.Generator, *, composite: bool = False
    ) -> None:
        self.single, self.generator = single, generator
        self._change = None if composite else CHANGES.get(single.mode)
        self._pixels: Pixels = ((coarsest[0].float() + 1) / 2).permute(1, 2, 0).cpu().numpy()
        self._image = coarsest.clone() if single.mode in CHANGES else None

    def fetch(self, step: int) -> None:
        """Puts the changed copy of iteration ``step`` into a fixed buffer; nothing where stage 0 gets noise."""
        if self._change is None or self._image is None:
            return
        changed = self._change(self._pixels, np.random.default_rng((self.single.seed, step)))
        self._image.copy_(torch.from_numpy(changed * 2 - 1).permute(2, 0, 1))

    def draw(self, sizes: Sequence[Size]) -> Draws:
        """The draws of one iteration on the stages of ``sizes``, on the device alone."""
        if self._image is None:
            noise = draw_noise(self.single, sizes, self.generator)
        else:
            noise = [self._entering(), *draw_noise(self.single, sizes, self.generator, first=1)]
        return Draws(noise, torch.rand(D_STEPS, generator=self.generator, device=self.generator.device))

    def _entering(self) -> Tensor:
        assert self._image is not None
        if self.single.mode != "edit":
            return self._image
        return self._image + EDIT_NOISE * _normal(tuple(self._image.shape), self.generator)


def noise_shapes(single: Single, sizes: Sequence[Size]) -> list[tuple[int, int, int, int]]:
    """Of the noise of the stages of ``sizes``, coarsest first."""
    margin = 2 * MARGIN if single.varies_borders else 0
    rest = [(1, single.filters, height + margin, width + margin) for height, width in sizes[1:]]
    return [(1, 3, *sizes[0]), *rest]


def draw_noise(single: Single, sizes: Sequence[Size], generator: torch.Generator, *, first: int = 0) -> list[Tensor]:
    """Noise N(0, 1) of the stages of ``sizes`` from ``first`` on, on the generator's device."""
    return [_normal(shape, generator) for shape in noise_shapes(single, sizes)[first:]]


def fixed_input(single: Single, coarsest: Tensor, generator: torch.Generator) -> Tensor:
    """What stage 0 is given to reconstruct the image from: the image itself, or noise for ``animate``."""
    if single.mode == "animate":
        return _normal(tuple(coarsest.shape), generator)
    if single.mode == "edit":
        return coarsest + EDIT_NOISE * _normal(tuple(coarsest.shape), generator)
    return coarsest


def _normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    empty = torch.empty(shape, device=generator.device, memory_format=torch.channels_last)
    return empty.normal_(generator=generator)
