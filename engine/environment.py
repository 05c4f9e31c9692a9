"""What a run was trained on: versions, device and data, one JSON object for each start of its training."""

import json
import os
import platform
import time
from importlib import metadata
from typing import Protocol

import torch

from fastgan_engine.hardware import detect
from fastgan_engine.run_folder import RunFolder

GIB = 2**30
HASH_DIGITS = 12  # enough to see that two runs had the same images
PACKAGES = ("fastgan-engine", "torchvision", "triton", "nvidia-dali-cuda130", "lpips", "numpy", "pillow")


class Images(Protocol):
    """What a run trains on: how many images, and a hash of them."""

    @property
    def count(self) -> int: ...

    @property
    def hash(self) -> str: ...


def record_start(folder: RunFolder, images: Images, *, step: int, device: torch.device, dtype: torch.dtype) -> None:
    """Appends to ``folder.environment``; a run that is resumed on another machine has several lines."""
    record = {
        "time": round(time.time(), 3),
        "step": step,
        "images": images.count,
        "data": images.hash[:HASH_DIGITS],
        "precision": str(dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        **_machine(device),
        **_versions(),
    }
    with folder.environment.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def _machine(device: torch.device) -> dict[str, str]:
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    machine = {"system": system, "cores": str(os.cpu_count()), "device": "CPU"}
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        machine["device"] = f"{card.name}, sm_{card.major}{card.minor}, {card.total_memory / GIB:.1f} GiB"
        machine["driver"] = detect().driver or "unknown"
    return machine


def _versions() -> dict[str, str]:
    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "CUDA": torch.version.cuda or "none (CPU build)",
    }
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions
