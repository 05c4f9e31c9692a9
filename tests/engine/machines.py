"""Machines that are not here: a fake NVML and a fake `torch.cuda` with the cards of a test."""

import sys
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

GIB = 2**30
DEFAULT_WHEEL = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"]


@dataclass
class FakeCard:
    """A card; processes are (pid, name, bytes or None). `lost`: NVML fails on it."""

    name: str
    capability: tuple[int, int]
    gib: float
    uuid: str = "GPU-0"
    free_gib: float = 1.0
    processes: list[tuple[int, str | None, int | None]] = field(default_factory=list)
    lost: bool = False


RTX_2070 = FakeCard("NVIDIA GeForce RTX 2070", (7, 5), 8, uuid="GPU-aaaa", free_gib=6.5)
RTX_3090 = FakeCard("NVIDIA GeForce RTX 3090", (8, 6), 24, uuid="GPU-bbbb", free_gib=20)
GTX_1050_TI = FakeCard("NVIDIA GeForce GTX 1050 Ti", (6, 1), 4, uuid="GPU-cccc", free_gib=3)


def install_nvml(monkeypatch: pytest.MonkeyPatch, cards: list[FakeCard], *, init_error: str | None = None) -> None:
    """Put a `pynvml` with these cards into place; `init_error` makes nvmlInit fail with it."""
    nvml: Any = ModuleType("pynvml")

    class NVMLError(Exception):
        pass

    def init() -> None:
        if init_error:
            raise NVMLError(init_error)

    def name_of(pid: int) -> str:
        names = {pid: name for card in cards for pid, name, _ in card.processes}
        name = names[pid]
        if name is None:
            raise NVMLError("Insufficient Permissions")
        return name

    def name(card: FakeCard) -> str:
        if card.lost:
            raise NVMLError("GPU is lost")
        return card.name

    def memory(card: FakeCard, version: int | None = None) -> SimpleNamespace:
        if version is not None:  # an old driver knows only the first version of the call
            raise NVMLError("Function Not Found")
        total, free = int(card.gib * GIB), int(card.free_gib * GIB)
        return SimpleNamespace(total=total, free=free, used=total - free)

    def graphics_processes(card: FakeCard) -> list[Any]:
        raise NVMLError("Not Supported")

    nvml.NVMLError, nvml.nvmlMemory_v2 = NVMLError, 2
    nvml.nvmlInit, nvml.nvmlShutdown = init, lambda: None
    nvml.nvmlSystemGetDriverVersion = lambda: b"580.95.05"
    nvml.nvmlDeviceGetCount = lambda: len(cards)
    nvml.nvmlDeviceGetHandleByIndex = lambda index: cards[index]
    nvml.nvmlDeviceGetName, nvml.nvmlDeviceGetMemoryInfo = name, memory
    nvml.nvmlDeviceGetUUID = lambda card: card.uuid
    nvml.nvmlDeviceGetCudaComputeCapability = lambda card: card.capability
    nvml.nvmlDeviceGetComputeRunningProcesses = lambda card: [
        SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, _, used in card.processes
    ]
    nvml.nvmlDeviceGetGraphicsRunningProcesses = graphics_processes
    nvml.nvmlSystemGetProcessName = name_of
    monkeypatch.setitem(sys.modules, "pynvml", nvml)


def install_cuda(
    monkeypatch: pytest.MonkeyPatch, cards: list[FakeCard], *, arch_list: list[str] = DEFAULT_WHEEL
) -> None:
    """Make `torch.cuda` report these cards, in this order."""
    properties = [
        SimpleNamespace(
            name=card.name,
            major=card.capability[0],
            minor=card.capability[1],
            total_memory=int(card.gib * GIB),
            uuid=card.uuid.removeprefix("GPU-"),
        )
        for card in cards
    ]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(cards))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(cards))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties[index])
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: arch_list)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: properties[device.index or 0].name)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: cards[device.index or 0].capability)


def hide(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    """Make `import module` fail as if it were not installed."""
    monkeypatch.setitem(sys.modules, module, None)
