"""A run's pictures over time, small enough to be carried inside the page."""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from PIL import Image

MAX_FRAMES = 32
BYTES_A_PIXEL = 0.25  # of WebP at this quality, for the grainy pictures of early training; usually less
QUALITY = 85

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One picture as a data URI. width, height: pixels. key: shown in print (the first, the middle, the last)."""

    step: int
    uri: str
    width: int
    height: int
    key: bool = False


def make_frames(files: Sequence[Path], *, budget: int) -> list[Frame]:
    """Pictures named step-N, oldest first, as frames of at most ``budget`` bytes in all.

    Of many, every second (fourth, ...) is taken, and always the last. Larger ones are made smaller.
    """
    pixels = budget / MAX_FRAMES * 3 / 4 / BYTES_A_PIXEL
    stride = 1
    while len(_thin(files, stride)) > MAX_FRAMES:
        stride *= 2
    encoded = [_encode(file, file.stat().st_mtime_ns, round(pixels)) for file in _thin(files, stride)]
    readable = frames = [frame for frame in encoded if frame is not None]
    stride = 1
    while len(frames) > 2 and sum(len(frame.uri) for frame in frames) > budget:
        stride *= 2
        frames = _thin(readable, stride)
    shown = {0, (len(frames) - 1) // 2, len(frames) - 1}
    return [replace(frame, key=index in shown) for index, frame in enumerate(frames)]


def _thin(items: Sequence[Item], stride: int) -> list[Item]:
    """Every ``stride``-th and the last: as a run grows, those taken before stay."""
    return [*items[:-1:stride], *items[-1:]]


@lru_cache(maxsize=4 * MAX_FRAMES)
def _encode(file: Path, _changed: int, pixels: int) -> Frame | None:
    """None where the file is no picture. Cached: during training only the newest has to be encoded."""
    try:
        with Image.open(file) as picture:
            picture.load()
            image = picture if picture.mode in ("RGB", "RGBA") else picture.convert("RGB")
    except OSError:
        return None
    shrink = min(1.0, math.sqrt(pixels / (image.width * image.height)))
    size = max(1, round(image.width * shrink)), max(1, round(image.height * shrink))
    image = image.resize(size, Image.Resampling.LANCZOS) if shrink < 1 else image
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=QUALITY, method=2)
    uri = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    return Frame(step=int(file.stem.removeprefix("step-")), uri=uri, width=size[0], height=size[1])
