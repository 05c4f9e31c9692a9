"""Where the time of a step goes, measured without making the device wait."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Clock:
    """Splits wall time into named laps: ``lap("d")`` ends the one that began at the previous call.

    On CUDA a lap is a pair of events, read when ``read`` is called; on the CPU it is the host's clock. Laps that belong
    to the host (waiting for data) are given with ``add``.
    """

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self._host: dict[str, float] = defaultdict(float)
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []
        self._start: torch.cuda.Event | float = self._now()
        self._stopped = False

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Inside, laps are not taken: an event recorded in a graph capture tells no time."""
        self._stopped = True
        try:
            yield
        finally:
            self._stopped = False

    def start(self) -> None:
        self._start = self._now()

    def lap(self, name: str) -> None:
        if self._stopped:
            return
        now = self._now()
        if isinstance(now, float):
            assert isinstance(self._start, float)
            self._host[name] += now - self._start
        else:
            assert not isinstance(self._start, float)
            self._events.append((name, self._start, now))
        self._start = now

    def add(self, name: str, seconds: float) -> None:
        self._host[name] += seconds

    def read(self) -> dict[str, float]:
        """Seconds by name since the last ``read``; on CUDA the events must have passed (synchronise before)."""
        for name, start, end in self._events:
            self._host[name] += start.elapsed_time(end) / 1e3
        totals = dict(self._host)
        self._host.clear()
        self._events.clear()
        return totals

    def _now(self) -> "torch.cuda.Event | float":
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event
