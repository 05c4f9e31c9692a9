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
        augment_view: DiffAugment parameters of the reals' second view, where D's task needs one.
    """

    z: Tensor
    noise: dict[int, tuple[Tensor, Tensor]]
    margins_real: Tensor
    margins_fake: Tensor
    augment_real: DiffAugParams
    augment_big: DiffAugParams
    augment_small: DiffAugParams
    part: Tensor
    augment_view: DiffAugParams | None = None


def draw(
    batch: int, *, im_size: int, nz: int, policy: str, generator: torch.Generator, second_view: bool = False
) -> Draws:
    """All draws of one iteration, on the generator's device: parts of a few tensors, each drawn at once."""
    device = generator.device
    z, noise = _draw_normal(batch, im_size, nz, generator)
    margins = draw_margins(torch.empty(2, LOGITS_PER_IMAGE * batch, device=device), generator)
    large = draw_diffaug(2 * batch, im_size, im_size, policy, generator=generator, device=device)
    side = small_size(im_size)
    return Draws(
        z=z,
        noise=noise,
        margins_real=margins[0],
        margins_fake=margins[1],
        augment_real=large.of(slice(batch)),
        augment_big=large.of(slice(batch, None)),
        augment_small=draw_diffaug(batch, side, side, policy, generator=generator, device=device),
        part=torch.randint(0, 4, (), generator=generator, device=device),
        augment_view=draw_diffaug(batch, im_size, im_size, policy, generator=generator, device=device)
        if second_view
        else None,
    )


def _draw_normal(
    batch: int, im_size: int, nz: int, generator: torch.Generator
) -> tuple[Tensor, dict[int, tuple[Tensor, Tensor]]]:
    """Latents [B, nz], and for each noise injection of G its two maps."""
    sizes = [size for size in COMP_SIZES if size <= im_size]
    counts = [batch * size * size for size in sizes for _ in range(2)]
    drawn = torch.randn(sum(counts) + batch * nz, generator=generator, device=generator.device)
    *maps, z = drawn.split([*counts, batch * nz])
    noise = {
        size: (first.view(batch, 1, size, size), second.view(batch, 1, size, size))
        for size, first, second in zip(sizes, maps[::2], maps[1::2], strict=True)
    }
    return z.view(batch, nz), noise
