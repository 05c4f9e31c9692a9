"""What a trained run is used for: samples of any size, animation, harmonizing and editing.

Images come out as uint8 [H, W, 3] on the CPU.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fastgan_engine.config.single import Single
from fastgan_engine.errors import UserError
from fastgan_engine.images import to_uint8
from fastgan_engine.single.inputs import CHANGES, EDIT_NOISE, noise_shapes
from fastgan_engine.single.masks import soft_mask
from fastgan_engine.single.networks import Generator
from fastgan_engine.single.pyramid import at_size, to_pixels, to_tensor
from fastgan_engine.single.resize import Size

SMALLEST_STAGE = 4  # pixels on a side of the coarsest stage, of an image of another size
PULL = 0.1  # of a frame towards the image's own noise


@dataclass(frozen=True)
class SingleModel:
    """A generator up to a stage, and what it was trained on and with.

    Attributes:
        image: the training image. sizes, fixed, amplitudes: of the stages up to this one.
    """

    single: Single
    generator: Generator
    image: Image.Image
    sizes: list[Size]
    fixed: list[Tensor]
    amplitudes: list[float]

    @property
    def device(self) -> torch.device:
        return self.fixed[0].device

    @torch.no_grad()
    def make(self, noise: Sequence[Tensor], sizes: list[Size] | None = None) -> Tensor:
        """uint8 [H, W, 3] from the inputs of all stages; ``sizes``: of these, where they are not those of training."""
        if sizes is None or sizes == self.sizes:
            image = self.generator(noise, self.sizes, self.amplitudes)
        else:
            image = self.generator(noise, sizes, self.amplitudes, trained=self.sizes)
        return to_uint8(image)[0].cpu()


def sample(model: SingleModel, count: int, *, size: Size | None = None, seed: int = 0) -> Iterator[Tensor]:
    """Images from random noise; where the run changes images, from changed copies of the training image.

    Image i of a seed is the same whatever the count and the device, up to the rounding of convolutions.

    Raises:
        UserError: ``size`` is too small.
    """
    sizes = model.sizes if size is None else sizes_for(model, size)
    for index in range(count):
        rng = np.random.default_rng((seed, index))
        noise = _noise(model, sizes, rng)
        if model.single.mode in CHANGES:
            noise[0] = changed_copy(model, rng)
        yield model.make(noise, sizes)


def changed_copy(model: SingleModel, rng: np.random.Generator) -> Tensor:
    """What a run for ``harmonize`` or ``edit`` is trained to undo: [1, 3, H, W] at the coarsest stage."""
    coarsest = np.asarray(at_size(model.image, model.sizes[0]), dtype=np.float32) / np.float32(255)
    changed = CHANGES[model.single.mode](coarsest, rng)
    return torch.from_numpy(changed * 2 - 1).permute(2, 0, 1)[None].to(model.device)


def sizes_for(model: SingleModel, size: Size) -> list[Size]:
    """Sizes of the stages of an image of another size, each in the proportion it has in training.

    Raises:
        UserError: the coarsest would be too small.
    """
    full = model.sizes[-1]
    sizes = [(round(h * size[0] / full[0]), round(w * size[1] / full[1])) for h, w in model.sizes[:-1]] + [size]
    if min(sizes[0]) < SMALLEST_STAGE:
        raise UserError(
            f"{size[1]} x {size[0]} is too small: the coarsest stage would be {sizes[0][1]} x {sizes[0][0]} pixels, "
            f"at least {SMALLEST_STAGE} on a side are needed; the training image is {full[1]} x {full[0]}"
        )
    return sizes


def animate(model: SingleModel, frames: int, *, first: int, beta: float, seed: int = 0) -> Iterator[Tensor]:
    """A random walk in the noise around that of the image itself.

    first: the lowest stage whose noise moves; more of the picture moves the lower it is. beta: how much a frame keeps
    of the last change, from 0 (restless) to 1 (smooth).
    Source: Shaham et al., "SinGAN", ICCV 2019, supplementary material, with the released values of ConSinGAN.

    Raises:
        UserError: there is no stage ``first``.
    """
    if first >= len(model.sizes):
        raise UserError(f"--first: got {first}, but the run's stages are 0 to {len(model.sizes) - 1}")
    rng = np.random.default_rng(seed)
    start = model.fixed
    before = start
    now = [0.99 * z + 0.01 * n for z, n in zip(start, _noise(model, model.sizes, rng), strict=True)]
    for _ in range(frames):
        steps = [
            beta * (a - b) + (1 - beta) * n
            for a, b, n in zip(now, before, _noise(model, model.sizes, rng), strict=True)
        ]
        moved = [PULL * z + (1 - PULL) * (a + step) for z, a, step in zip(start, now, steps, strict=True)]
        before, now = now, [*start[:first], *moved[first:]]
        yield model.make(now)


def blend(model: SingleModel, naive: Image.Image, mask: Image.Image, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """The harmonized or edited image, and the generator's whole picture that it was taken from.

    naive: the training image with something pasted on it, or moved in it. mask: white where. Both are brought to the
    size of the training image. Around the mask (dilated and blurred) one fades into the other.
    """
    rng = np.random.default_rng(seed)
    noise = _noise(model, model.sizes, rng)
    noise[0] = to_tensor(at_size(naive, model.sizes[0]), model.device)
    if model.single.mode == "edit":
        noise[0] = noise[0] + EDIT_NOISE * _normal((1, 3, *model.sizes[0]), rng, model.device)
    whole = model.make(noise)
    weight = soft_mask(at_size(mask.convert("L"), model.sizes[-1]), model.single.mode)[:, :, None]
    pasted = to_pixels(at_size(naive, model.sizes[-1]))
    return torch.lerp(pasted.float(), whole.float(), weight).round().to(torch.uint8), whole


def _noise(model: SingleModel, sizes: Sequence[Size], rng: np.random.Generator) -> list[Tensor]:
    return [_normal(shape, rng, model.device) for shape in noise_shapes(model.single, sizes)]


def _normal(shape: tuple[int, ...], rng: np.random.Generator, device: torch.device) -> Tensor:
    values = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32)).to(device)
    return values.contiguous(memory_format=torch.channels_last)
