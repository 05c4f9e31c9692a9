"""Frames along a way through the latents, made in chunks as they are asked for."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fastgan_engine.chunks import in_chunks
from fastgan_engine.errors import UserError
from fastgan_engine.images import grid
from fastgan_engine.latent.defaults import EASING, FRAMES, Easing
from fastgan_engine.latent.latents import Latents
from fastgan_engine.latent.slerp import path
from fastgan_engine.networks import Generator
from fastgan_engine.sampling import CHUNK, device_of, image_in_words, images_of


@dataclass(frozen=True)
class Interpolation:
    """Frames that are not made yet: iterate over it once.

    Attributes:
        count: frames.
        height, width: of a frame, pixels.
    """

    count: int
    height: int
    width: int
    frames: Iterator[Tensor]

    def __iter__(self) -> Iterator[Tensor]:
        return self.frames


def interpolate(
    generator: Generator,
    keyframes: Latents,
    *,
    frames: int = FRAMES,
    loop: bool = False,
    easing: Easing = EASING,
    truncation: float = 1.0,
    rows: int = 1,
    columns: int = 1,
    chunk: int = CHUNK,
    warn: Callable[[str], None] | None = None,
) -> Interpolation:
    """Frames, uint8 [H, W, C] each, along great circles between the keyframes' z.

    The noise is that of a cell's first keyframe throughout: noise that changed would flicker.

    Args:
        frames: steps from one keyframe to the next.
        loop: go on from the last keyframe to the first; the first frame follows the last.
        easing: "linear" turns at one speed, "smooth" comes to rest at each keyframe.
        rows, columns: cells of a frame, each with a way of its own: the keyframes are dealt out, the first ones to the
            first cell.
        chunk: images at once.

    Raises:
        UserError: an argument out of range, or keyframes that the cells cannot share equally.
    """
    cells = rows * columns
    _check(len(keyframes), frames, cells, chunk)
    each = len(keyframes) // cells
    z = keyframes.scaled(truncation).z.view(cells, each, -1)
    ways = torch.stack([path(way, frames, loop=loop, easing=easing) for way in z], 1).flatten(0, 1)
    still = keyframes.pick(range(0, len(keyframes), each))

    def batch(indices: range) -> Tensor:
        return images_of(generator, ways[indices.start : indices.stop], still.pick([i % cells for i in indices]).noise)

    count, size = len(ways) // cells, grid(torch.empty(cells, generator.im_size, generator.im_size, 1), columns).shape
    images = in_chunks(
        batch, len(ways), chunk=chunk, device=device_of(generator), what=image_in_words(generator), warn=warn
    )
    return Interpolation(count, size[0], size[1], _frames(images, cells, columns))


def _check(keyframes: int, frames: int, cells: int, chunk: int) -> None:
    for name, value in (("frames", frames), ("grid: cells", cells), ("chunk", chunk)):
        if value < 1:
            raise UserError(f"{name}: got {value}, expected 1 or more")
    if keyframes % cells or keyframes < 2 * cells:
        each = "2 or more" if cells == 1 else f"a multiple of the grid's {cells} cells, 2 or more for each"
        raise UserError(f"interpolating: got {keyframes} latent(s), expected {each}")


def _frames(batches: Iterator[Tensor], cells: int, columns: int) -> Iterator[Tensor]:
    """One picture of every ``cells`` images, wherever a batch ends."""
    waiting: list[Tensor] = []
    for batch in batches:
        for image in batch:
            waiting.append(image)
            if len(waiting) == cells:
                yield grid(torch.stack(waiting), columns)
                waiting = []
