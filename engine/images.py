"""From the networks' tensors to picture files."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from fastgan_engine.atomic import atomic_write

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
GRID_GAP = 2
GRID_BACKGROUND = 255


def to_uint8(images: Tensor) -> Tensor:
    """Images [B, C, H, W] in [-1, 1], any float type -> uint8 [B, H, W, C]; values beyond are clamped.

    The inverse of ``x / 127.5 - 1``, rounded. The released generator does not bound its outputs at 256 and 512.
    """
    pixels = images.detach().float().add(1).mul(127.5).round_().clamp_(0, 255)
    return pixels.to(torch.uint8).permute(0, 2, 3, 1)


def save_image(path: Path, image: Tensor) -> None:
    """Writes one image, uint8 [H, W, C] with C 1 (grey), 3 (RGB) or 4 (RGBA), as PNG; whole or not at all."""
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[2] not in MODES:
        raise ValueError(f"an image must be uint8 [H, W, 1 | 3 | 4]; got {image.dtype} {list(image.shape)}")
    pixels = image.cpu().numpy()
    mode = MODES[image.shape[2]]
    with atomic_write(path) as temporary:
        Image.fromarray(pixels[:, :, 0] if mode == "L" else pixels, mode).save(temporary, format="PNG")


@contextmanager
def numbered_images(folder: Path) -> Iterator[Callable[[Tensor], None]]:
    """Yields a function that saves the next image, uint8 [H, W, C], as 000000.png and so on.

    Once all are there, what an earlier and longer series left in the folder is removed: the numbers that follow on.
    """
    count = 0

    def write(image: Tensor) -> None:
        nonlocal count
        save_image(folder / f"{count:06d}.png", image)
        count += 1

    yield write
    while (left_over := folder / f"{count:06d}.png").is_file():
        left_over.unlink()
        count += 1


def save_grid(path: Path, images: Tensor, columns: int | None = None) -> None:
    """Writes images, uint8 [B, H, W, C], as one PNG, row by row with white gaps.

    columns: None: as many as rows, or one more.
    """
    save_image(path, grid(images, columns))


def grid(images: Tensor, columns: int | None = None) -> Tensor:
    """Images [B, H, W, C] -> one image [rows (H + gap) - gap, columns (W + gap) - gap, C]; unused cells are white."""
    count, height, width, channels = images.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    down, across = height + GRID_GAP, width + GRID_GAP
    canvas = images.new_full((rows * down - GRID_GAP, columns * across - GRID_GAP, channels), GRID_BACKGROUND)
    for index, image in enumerate(images):
        top, left = index // columns * down, index % columns * across
        canvas[top : top + height, left : left + width] = image
    return canvas
