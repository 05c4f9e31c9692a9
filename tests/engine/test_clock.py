"""Laps add up to the time that passed."""

import time

import pytest
import torch

from fastgan_engine.clock import Clock


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be moved by hand."""
    moment = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: moment[0])
    return moment


def test_laps_split_the_time_and_add_up_over_steps(now: list[float]) -> None:
    clock = Clock(torch.device("cpu"))
    for d, g in ((3, 2), (5, 1)):
        now[0] += 7  # waiting for data, before the step
        clock.start()
        now[0] += d
        clock.lap("d")
        now[0] += g
        clock.lap("g")
    assert clock.read() == {"d": 8, "g": 3}


def test_first_lap_begins_with_the_clock(now: list[float]) -> None:
    clock = Clock(torch.device("cpu"))
    now[0] += 4
    clock.lap("d")
    assert clock.read() == {"d": 4}


def test_added_seconds_join_the_laps(now: list[float]) -> None:
    clock = Clock(torch.device("cpu"))
    clock.add("data", 0.5)
    clock.add("data", 0.25)
    now[0] += 2
    clock.lap("d")
    assert clock.read() == {"data": 0.75, "d": 2}


def test_no_laps_while_stopped(now: list[float]) -> None:
    clock = Clock(torch.device("cpu"))
    with clock.stopped():
        now[0] += 3
        clock.lap("d")
    assert clock.read() == {}
    clock.start()
    now[0] += 2
    clock.lap("d")
    assert clock.read() == {"d": 2}


def test_reading_begins_anew(now: list[float]) -> None:
    clock = Clock(torch.device("cpu"))
    now[0] += 2
    clock.lap("d")
    first = clock.read()
    now[0] += 1
    clock.lap("d")
    assert (first, clock.read(), clock.read()) == ({"d": 2}, {"d": 1}, {})


class FakeEvent:
    """A CUDA event on a device whose time is ``FakeEvent.device_ms``."""

    device_ms = 0.0

    def __init__(self, *, enable_timing: bool) -> None:
        assert enable_timing  # else elapsed_time raises

    def record(self) -> None:
        self.at = self.device_ms

    def elapsed_time(self, end: "FakeEvent") -> float:
        return end.at - self.at


def test_cuda_laps_are_device_time_in_seconds(monkeypatch: pytest.MonkeyPatch, now: list[float]) -> None:
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    clock = Clock(torch.device("cuda"))
    for d, g in ((30, 20), (10, 5)):
        FakeEvent.device_ms += 1000
        clock.start()
        FakeEvent.device_ms += d
        clock.lap("d")
        FakeEvent.device_ms += g
        clock.lap("g")
    now[0] += 60  # the host's time does not count
    clock.add("data", 0.125)
    assert clock.read() == pytest.approx({"d": 0.04, "g": 0.025, "data": 0.125})
    assert clock.read() == {}
