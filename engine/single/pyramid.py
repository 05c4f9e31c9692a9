"""The training image at the size of each stage."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fastgan_engine.config.single import Single
from fastgan_engine.errors import UserError
from fastgan_engine.pipelines import DataError
from fastgan_engine.pipelines.decode import Decoded, decode, quiet_pillow, to_srgb
from fastgan_engine.pipelines.fit import parse_colour
from fastgan_engine.single.resize import Size


def load_image(path: Path, *, largest: int, background: str = "white") -> Image.Image:
    """Any image that the engine reads, upright, RGB in sRGB on ``background``, its longest side at most ``largest``.

    Raises:
        UserError: it cannot be read.
    """
    decoded = read_image(path, largest)
    width, height = fit_size((decoded.height, decoded.width), largest)[::-1]
    image = to_srgb(decoded.image, decoded.icc)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    if image.mode == "RGBA":
        backdrop = Image.new("RGBA", image.size, (*parse_colour(background), 255))
        backdrop.alpha_composite(image)
        image = backdrop
    return image.convert("RGB")


def read_image(path: Path, target: int) -> Decoded:
    """The decoded file.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with quiet_pillow():
            return decode(path.read_bytes(), target=target)
    except OSError as error:
        raise UserError(f"cannot read the image {path}: {error.strerror or error}") from None
    except DataError as error:
        raise UserError(f"cannot use {path}: {error}") from None


def fit_size(size: Size, largest: int) -> Size:
    """``size`` with its longest side shrunk to ``largest``, the other one in proportion and rounded up."""
    longest = max(size)
    if longest <= largest:
        return size
    height, width = (largest if side == longest else math.ceil(side * largest / longest) for side in size)
    return height, width


def stage_sizes(size: Size, single: Single) -> list[Size]:
    """Sizes of all stages, coarsest first, of an image of ``size`` (at most ``max_size``).

    With r = (coarsest / shortest)^(1 / (N - 1)), stage i < N - 1 has scale r^((N-2) / ln(N-1) ln(N-1-i) + 1), or
    r^(N-1-i) for ``harmonize``, and sides rounded up; the last stage is the image itself. Rounding up turns the
    coarsest side of exactly 25 into 26 where the power comes out just above it, as in the released code.
    Source: Hinz et al., WACV 2021, section 3 and the released code.

    Raises:
        UserError: the image is not larger than the coarsest stage.
    """
    shortest, last = min(size), single.stage_count - 1
    if shortest <= single.coarsest:
        raise UserError(
            f"the image is {size[1]} x {size[0]} pixels (with --max-size {single.max_size}), but its shorter side must "
            f"be more than the {single.coarsest} pixels of the coarsest stage: take a larger image or --max-size, or "
            f"a smaller stage with --set single.min_size=N"
        )
    r = math.pow(single.coarsest / shortest, 1 / last)
    if single.mode == "harmonize":
        scales = [math.pow(r, last - i) for i in range(last)]
    else:
        scales = [math.pow(r, (last - 1) / math.log(last) * math.log(last - i) + 1) for i in range(last)]
    return [(math.ceil(size[0] * scale), math.ceil(size[1] * scale)) for scale in scales] + [size]


def build_pyramid(image: Image.Image, sizes: Sequence[Size], device: torch.device) -> list[Tensor]:
    """The image at each size: [1, 3, H, W] in [-1, 1], channels-last. Resampling is bicubic with antialiasing."""
    return [to_tensor(at_size(image, size), device) for size in sizes]


def at_size(image: Image.Image, size: Size) -> Image.Image:
    return image if image.size == size[::-1] else image.resize(size[::-1], Image.Resampling.BICUBIC)


def to_tensor(image: Image.Image, device: torch.device) -> Tensor:
    """[1, 3, H, W] in [-1, 1], channels-last."""
    pixels = to_pixels(image).to(device)
    return (pixels.float() / 127.5 - 1).permute(2, 0, 1)[None].contiguous(memory_format=torch.channels_last)


def to_pixels(image: Image.Image) -> Tensor:
    """uint8 [H, W, 3] on the CPU."""
    return torch.from_numpy(np.array(image))
