"""Folders of runs as training leaves them, for the tests of their report."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fastgan_engine.config import resolve
from fastgan_engine.run_folder import RunFolder


def write_run(
    path: Path,
    *,
    records: int = 30,
    tick: int = 10,
    pictures: Sequence[int] = (0, 100, 200, 300),
    side: int = 24,
    settings: Sequence[str] = (),
    more: dict[str, Any] | None = None,
) -> RunFolder:
    """A run with a record every ``tick`` steps, and pictures of ``side`` x ``side`` pixels at some of them.

    more: further entries of each record.
    """
    folder = RunFolder(path)
    path.mkdir(parents=True)
    folder.config.write_text(resolve(sets=settings).to_toml(), encoding="utf-8")
    lines = [record(step, records * tick) | (more or {}) for step in range(tick, (records + 1) * tick, tick)]
    folder.log.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    start = {"time": 1.7e9, "step": 0, "images": 60, "device": "CPU", "torch": "2.9"}
    folder.environment.write_text(json.dumps(start) + "\n", encoding="utf-8")
    for step in pictures:
        for file in (folder.sample(step), folder.reconstruction(step)):
            write_picture(file, side, seed=step)
    return folder


def record(step: int, steps: int) -> dict[str, Any]:
    """Of one tick, each quantity with a course of its own."""
    wave = math.sin(step / 40)
    return {
        "time": 1.7e9 + step, "step": step, "steps": steps, "seconds_left": float(steps - step),
        "images_per_second": 40.0, "ms_step": 200.0, "ms_data": 1.0, "ms_d": 120.0, "ms_g": 79.0,
        "scale": None, "skipped": 0, "memory_used_gib": 3.5, "memory_reserved_gib": 4.0, "memory_budget_gib": 8.0,
        "loss_d_real": 0.8 + 0.1 * wave, "loss_d_fake": 0.7 - 0.1 * wave, "loss_g": 0.2 * wave,
        "loss_reconstruction": 8 / (1 + step / 50),
    }  # fmt: skip


def write_picture(file: Path, side: int, *, seed: int) -> None:
    """Noise, which no format makes small."""
    file.parent.mkdir(exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file)
