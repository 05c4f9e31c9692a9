"""Every random number of one training iteration, drawn in one place from one generator.

A step takes its draws as an argument, so that two implementations of it can be compared given the same draws, and a
resumed run draws what the uninterrupted one would have.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from fastgan_engine.kernels.diffaug import DiffAugParams, draw_diffaug
from fastgan_engine.kernels.hinge import draw_margins
from fastgan_engine.networks import small_size
from fastgan_engine.networks.generator import COMP_SIZES

LOGITS_PER_IMAGE = 50


class Draws(NamedTuple):
    """Draws of one iteration at batch B.

    Attributes:
        z: latents [B, nz].
        noise: for each resolution with noise injection, two maps [B, 1, size, size].
        margins_real, margins_fake: hinge margins [50 B], U[0.8, 1).
        augment_real, augment_big, augment_small: DiffAugment parameters of the reals and of the two fakes.
        part: the quadrant that the part decoder sees, int64 scalar tensor in 0..3.
    """

    z: Tensor
    noise: dict[int, tuple[Tensor, Tensor]]
    margins_real: Tensor
    margins_fake: Tensor
    augment_real: DiffAugParams
    augment_big: DiffAugParams
    augment_small: DiffAugParams
    part: Tensor


def draw_latents(batch: int, nz: int, generator: torch.Generator) -> Tensor:
    """z ~ N(0, 1) of shape [B, nz]."""
    return torch.randn(batch, nz, generator=generator, device=generator.device)


def draw_noise(batch: int, im_size: int, generator: torch.Generator) -> dict[int, tuple[Tensor, Tensor]]:
    """The maps that G's noise injections take, N(0, 1)."""

    def one(size: int) -> Tensor:
        return torch.randn(batch, 1, size, size, generator=generator, device=generator.device)

    return {size: (one(size), one(size)) for size in COMP_SIZES if size <= im_size}


def draw(batch: int, *, im_size: int, nz: int, policy: str, generator: torch.Generator) -> Draws:
    """All draws of one iteration, on the generator's device."""
    device = generator.device

    def augment(size: int) -> DiffAugParams:
        return draw_diffaug(batch, size, size, policy, generator=generator, device=device)

    logits = torch.empty(LOGITS_PER_IMAGE * batch, device=device)
    return Draws(
        z=draw_latents(batch, nz, generator),
        noise=draw_noise(batch, im_size, generator),
        margins_real=draw_margins(logits, generator),
        margins_fake=draw_margins(logits, generator),
        augment_real=augment(im_size),
        augment_big=augment(im_size),
        augment_small=augment(small_size(im_size)),
        part=torch.randint(0, 4, (), generator=generator, device=device),
    )
