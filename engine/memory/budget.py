"""How much memory of a card a run may take."""

from dataclasses import dataclass

from fastgan_engine.config import Config
from fastgan_engine.hardware import GIB, Gpu, detect
from fastgan_engine.profiles import Card

# Assumed where NVML does not tell what is free: what a desktop and its programs take.
DESKTOP_GIB = 0.4


@dataclass(frozen=True)
class Budget:
    """Bytes, CUDA context included, and where the figure comes from."""

    bytes: int
    reason: str

    def __str__(self) -> str:
        return f"{self.bytes / GIB:.2f} GiB ({self.reason})"


def budget_of(config: Config, card: Card | None, gpu: Gpu | None = None) -> Budget | None:
    """``engine.budget_gib``; else what is free on the card that is here; else a card's memory less a reserve."""
    if config.engine.budget_gib is not None:
        return Budget(round(config.engine.budget_gib * GIB), "engine.budget_gib")
    if gpu is not None and gpu.free_bytes is not None:
        return Budget(gpu.free_bytes, f"free of {gpu.total_bytes / GIB:.1f} GiB on {gpu.name}, by NVML")
    if gpu is not None:
        return _less_desktop(gpu.total_bytes / GIB, gpu.name)
    return None if card is None else _less_desktop(card.memory_gib, card.name)


def _less_desktop(gib: float, name: str) -> Budget:
    return Budget(round((gib - DESKTOP_GIB) * GIB), f"{name}: {gib:g} GiB less {DESKTOP_GIB:g} assumed for the desktop")


def gpu_of(device_index: int | None) -> Gpu | None:
    """What NVML and PyTorch know of ``cuda:N``."""
    return next((gpu for gpu in detect().gpus if gpu.cuda_index == (device_index or 0)), None)
