"""Pictures of what was found: rows of images, each with a line of text under it."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from fastgan_engine.images import GRID_BACKGROUND, grid
from fastgan_engine.latent.images import Images, pixels_of
from fastgan_engine.latent.inversion import Attempts
from fastgan_engine.latent.neighbors import Neighbors
from fastgan_engine.latent.video import as_rgb

LEAST_CELL = 128  # smaller images are enlarged to this, so that the text has room
TEXT_SIZE, TEXT_HEIGHT = 13, 20


def captioned(images: Sequence[Tensor], captions: Sequence[str], columns: int) -> Tensor:
    """Images, uint8 [H, W, C] each, as one picture, uint8 [h, w, 3], row by row."""
    cells = [_caption(image, text) for image, text in zip(images, captions, strict=True)]
    return grid(torch.stack(cells), columns)


def _caption(image: Tensor, text: str) -> Tensor:
    scale = -(-LEAST_CELL // image.shape[1])
    large = as_rgb(image).repeat_interleave(scale, 0).repeat_interleave(scale, 1)
    canvas = Image.new("RGB", (large.shape[1], large.shape[0] + TEXT_HEIGHT), (GRID_BACKGROUND,) * 3)
    canvas.paste(Image.fromarray(large.numpy()))
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(TEXT_SIZE)
    draw.text((large.shape[1] / 2, large.shape[0] + TEXT_HEIGHT / 2), text, fill="black", font=font, anchor="mm")
    return torch.from_numpy(np.array(canvas))


def neighbors_picture(samples: Tensor, images: Images, found: Neighbors) -> Tensor:
    """A row for each sample: it, and its nearest training images, turned as they match, with their distances."""
    cells, captions = [], []
    for index, (sample, row) in enumerate(zip(samples, found.nearest, strict=True)):
        cells.append(sample)
        captions.append(f"sample {index}")
        for neighbor in row:
            (pixels,) = pixels_of(images, [neighbor.index])
            cells.append(pixels.flip(1) if neighbor.mirrored else pixels)
            captions.append(f"{neighbor.distance:.3f}" + (" mirrored" if neighbor.mirrored else ""))
    return captioned(cells, captions, columns=len(found.nearest[0]) + 1)


def inversion_picture(images: Images, found: Attempts, rows: int) -> Tensor:
    """A row for each of the first images: the target, where the search began, and what it found; with distances."""
    cells, captions = [], []
    for index in range(min(rows, len(images.names))):
        cells += [*pixels_of(images, [index]), found.start[index], found.result[index]]
        captions += ["target", f"start {found.before[index]:.3f}", f"found {found.after[index]:.3f}"]
    return captioned(cells, captions, columns=3)
