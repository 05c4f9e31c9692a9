"""The record of a tick, and the memory it tells."""

import json
import sys
from pathlib import Path

import pytest
import torch

from fastgan_engine.report import GIB, Memory, read_memory

from .reports import CPU, report


def test_record_is_flat_and_survives_json() -> None:
    record = report(scale=65536.0, skipped=2).record()
    assert json.loads(json.dumps(record, allow_nan=False)) == record == {
        "step": 1_234,
        "steps": 50_000,
        "images_per_second": 123.45,
        "ms_step": 64.8,
        "ms_data": 1.2,
        "ms_d": 30.4,
        "ms_g": 33.2,
        "memory_used_gib": 3.14,
        "memory_reserved_gib": 3.87,
        "memory_budget_gib": 7.79,
        "loss_d_real": 0.9123,
        "loss_d_fake": 0.8456,
        "loss_reconstruction": 12.3456,
        "loss_g": -0.1234,
        "seconds_left": 7_512.3,
        "scale": 65536.0,
        "skipped": 2,
    }  # fmt: skip


def test_unknown_memory_is_left_out() -> None:
    names = report(memory=CPU).record().keys()
    assert [name for name in names if name.startswith("memory")] == ["memory_used_gib"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_cpu_memory_is_the_peak_resident_set() -> None:
    def kib(file: str, name: str) -> int:
        lines = Path(file).read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))

    memory = read_memory(torch.device("cpu"))
    # The kernel counts the peak of the process that started this one, too.
    assert 0.98 * kib("/proc/self/status", "VmHWM") <= memory.used * GIB / 1024 <= kib("/proc/meminfo", "MemTotal")
    assert (memory.reserved, memory.budget) == (None, None)


def test_cuda_memory_is_the_allocators_and_the_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1 * GIB, 8 * GIB))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3 * GIB)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 4 * GIB)
    assert read_memory(torch.device("cuda")) == Memory(used=3, reserved=4, budget=8)
