"""What a run records of where it ran."""

import json
import platform
from pathlib import Path
from types import SimpleNamespace

import torch

from fastgan_engine.environment import record_start
from fastgan_engine.run_folder import RunFolder


def test_one_record_for_each_start(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    images = SimpleNamespace(count=60, hash="0123456789abcdef")
    for step in (0, 500):
        record_start(folder, images, step=step, device=torch.device("cpu"), dtype=torch.bfloat16)
    first, second = (json.loads(line) for line in folder.environment.read_text().splitlines())
    assert (first["step"], second["step"]) == (0, 500)
    assert second["time"] >= first["time"]
    assert {key: first[key] for key in ("images", "data", "precision", "device", "python", "torch")} == {
        "images": 60, "data": "0123456789ab", "precision": "bfloat16", "device": "CPU",
        "python": platform.python_version(), "torch": torch.__version__,
    }  # fmt: skip
