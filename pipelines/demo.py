"""The built-in set: a folder of painted flowers to try the engine on."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from .defaults import DEMO_COUNT, DEMO_SEED, DEMO_SIZE
from .errors import DataError
from .flower import draw_flower

MIN_SIZE = 16
SETTINGS = "demo.json"


def draw_demo(
    out: Path,
    *,
    count: int = DEMO_COUNT,
    size: int = DEMO_SIZE,
    seed: int = DEMO_SEED,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Draw ``count`` flowers of ``size`` x ``size`` pixels as PNG into ``out``; return their paths.

    The same arguments give the same pixels, and ``flower-0007.png`` does not depend on ``count``. Called again for a
    folder that it drew with the same settings, it draws only what is missing. It never overwrites a file.

    Raises:
        DataError: a number is out of range, or ``out`` holds anything else, or cannot be written.
    """
    for name, value, least in (("count", count, 1), ("size", size, MIN_SIZE), ("seed", seed, 0)):
        if value < least:
            raise DataError(f"demo {name} {value}: expected {least} or more")
    out = Path(out)
    settings = {"drawn by": "fastgan-engine data demo", "count": count, "size": size, "seed": seed}
    try:
        _claim(out, settings)
        paths = [out / f"flower-{index:04d}.png" for index in range(count)]
        for index, path in enumerate(paths):
            if not path.exists():
                temporary = path.with_suffix(".part")
                Image.fromarray(draw_flower(size, np.random.default_rng([seed, index]))).save(temporary, format="PNG")
                os.replace(temporary, path)
            if progress:
                progress(index + 1, count)
    except OSError as error:
        raise DataError(f"{out}: cannot write the demo images ({error})") from error
    return paths


def _claim(out: Path, settings: dict[str, object]) -> None:
    """Make ``out`` ours: an empty folder, or one that holds this very set, whole or in part."""
    out.mkdir(parents=True, exist_ok=True)
    marker = out / SETTINGS
    if not any(out.iterdir()):
        marker.write_text(json.dumps(settings, indent=1), encoding="utf-8")
        return
    try:
        same = json.loads(marker.read_bytes()) == settings
    except (OSError, ValueError):
        same = False
    if not same:
        raise DataError(f"{out}: not empty, and not this demo set; choose a new folder (nothing in it was touched)")
