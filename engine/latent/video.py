"""Frames into an mp4, a GIF or a folder, one at a time: none is kept after it is written."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from PIL import GifImagePlugin, Image
from torch import Tensor

from fastgan_engine.atomic import atomic_write
from fastgan_engine.errors import UserError
from fastgan_engine.extras import require
from fastgan_engine.images import numbered_images
from fastgan_engine.latent.defaults import FPS

SUFFIXES = (".mp4", ".gif")
QUALITY = 8  # of imageio, 0 to 10
# yuv420p halves the colours' resolution, so sides must be even; it is what every player can show.
EVEN = 2
# The matrix that players assume of a video without a mark is not the one that the encoder takes: mark it.
BT709 = [
    "-vf", "scale=out_color_matrix=bt709:out_range=tv", "-colorspace", "bt709", "-color_range", "tv",
]  # fmt: skip
STREAMABLE = ["-movflags", "+faststart"]  # a browser plays it before it has all of it

Write = Callable[[Tensor], None]


def check_target(path: Path) -> None:
    """Raises UserError where ``path`` is neither a video nor a folder's name, or the video's library is missing."""
    if path.suffix.lower() not in ("", *SUFFIXES) and not path.is_dir():
        raise UserError(f"--out: expected a name ending in .mp4 or .gif, or a folder for a PNG each, got {path}")
    if path.suffix.lower() == ".mp4":
        require("imageio", extra="video")
        require("imageio_ffmpeg", extra="video")


@contextmanager
def open_video(path: Path, fps: float = FPS) -> Iterator[Write]:
    """Yields a function that takes the next frame, uint8 [H, W, C]; an mp4 or GIF is there whole or not at all.

    An mp4 is H.264 in yuv420p. A GIF repeats for ever, each frame with 256 colours of its own. Anything else is a
    folder, which gets 000000.png and so on.
    """
    check_target(path)
    kind = "" if path.is_dir() else path.suffix.lower()
    if kind == "":
        with numbered_images(path) as write:
            yield write
        return
    with atomic_write(path) as temporary, (_mp4 if kind == ".mp4" else _gif)(temporary, fps) as write:
        yield write


@contextmanager
def _mp4(path: Path, fps: float) -> Iterator[Write]:
    writer = require("imageio.v2", extra="video").get_writer(
        path, format="FFMPEG", fps=fps, codec="libx264", pixelformat="yuv420p", quality=QUALITY,
        macro_block_size=EVEN, ffmpeg_log_level="error", output_params=[*BT709, *STREAMABLE],
    )  # fmt: skip
    try:
        yield lambda frame: writer.append_data(as_rgb(frame).numpy())
    finally:
        writer.close()  # its own context leaves the encoder running where something was raised


@contextmanager
def _gif(path: Path, fps: float) -> Iterator[Write]:
    """Pillow's ``save`` would collect all frames first; its functions for single ones do not."""
    first = True
    with path.open("wb") as file:

        def write(frame: Tensor) -> None:
            nonlocal first
            image = Image.fromarray(as_rgb(frame).numpy()).quantize(256)
            if first:
                file.writelines(GifImagePlugin.getheader(image, info={"loop": 0})[0])
            first = False
            duration = 10 * gif_duration(fps)
            file.writelines(GifImagePlugin.getdata(image, duration=duration, include_color_table=True))

        yield write
        file.write(b";")


def gif_duration(fps: float) -> int:
    """Of a frame, in hundredths of a second, the unit of the format; browsers slow down what is shorter than two."""
    return max(2, round(100 / fps))


def as_rgb(frame: Tensor) -> Tensor:
    """uint8 [H, W, 1 | 3 | 4] -> [H, W, 3]: grey repeated, transparent laid on white."""
    if frame.shape[2] == 4:
        alpha = frame[:, :, 3:].float() / 255
        return (frame[:, :, :3] * alpha + 255 * (1 - alpha)).round().to(torch.uint8)
    return frame.expand(-1, -1, 3).contiguous()
