"""How fast each way to the images delivers batches, and whether a training step has to wait for them."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fastgan_engine.bench.throughput import wait_for
from fastgan_engine.config import Config
from fastgan_engine.hardware import pick_device
from fastgan_engine.pipelines import DataError, PreparedSet
from fastgan_engine.sources import Source, open_source

MODES = ("resident", "host", "dali", "pillow")
# A step may wait for its data for this part of its time.
GOAL = 0.01
# How long a rate is measured for, s; at least and at most so many batches.
SECONDS = 1.0
BATCHES = (3, 200)
# Steps on which the wait is measured: the first ones find what was prefetched while nothing ran.
STEPS, IGNORED = 8, 3
# Longer steps are cut to this: what a loader has not made by then it makes no sooner.
LONGEST_MS = 400.0


@dataclass(frozen=True)
class Delivery:
    """What one mode delivers."""

    mode: str
    reason: str
    """What it is, or why it does not run here."""
    images_per_second: float | None = None
    """Batches one after another, on the device as the step takes them."""
    wait_ms: float | None = None
    """Median time that a batch is waited for when there is a step's time between two."""

    def reaches(self, step_ms: float) -> bool:
        """Whether the wait is within the goal, for a step of that time."""
        return self.wait_ms is not None and self.wait_ms <= GOAL * step_ms


@dataclass(frozen=True)
class Deliveries:
    """All modes at one size, and the step that they are to feed."""

    config: Config
    packing: str
    """What the prepared set holds, as ``PreparedSet.packing`` says it."""
    step_ms: float
    step_measured: bool
    modes: Sequence[Delivery]

    @property
    def needed(self) -> float:
        """Images/s that the step takes."""
        return self.config.train.batch / self.step_ms * 1e3


def deliver(config: Config, images: PreparedSet, mode: str, step_ms: float) -> Delivery:
    """Measures one of ``MODES``; one that does not run here says why."""
    device = pick_device(config.engine.device)
    try:
        with open_source(in_mode(config, mode), images, device, start_step=0) as source:
            rate = config.train.batch / _seconds_a_batch(source, device)
            return Delivery(mode, source.reason, rate, _wait_ms(source, device, step_ms))
    except (DataError, torch.cuda.OutOfMemoryError) as error:
        return Delivery(mode, f"does not run here: {str(error).splitlines()[0]}")


def in_mode(config: Config, mode: str) -> Config:
    """The configuration in which ``mode`` is the one that ``open_source`` takes."""
    changes: dict[str, Any] = {"loader": mode}
    if mode == "host":
        changes = {"loader": "auto", "resident_gib": 0.0, "host_gib": float("inf")}
    return config.model_copy(update={"data": config.data.model_copy(update=changes)})


def _seconds_a_batch(source: Source, device: torch.device) -> float:
    """Mean time of a batch when nothing else runs, after one that starts everything."""
    least, most = BATCHES
    _next(source, device)
    begin, count = time.perf_counter(), 0
    while count < least or (count < most and time.perf_counter() - begin < SECONDS):
        source.fetch()
        source.reals()
        count += 1
    wait_for(device)
    return (time.perf_counter() - begin) / count


def _wait_ms(source: Source, device: torch.device, step_ms: float) -> float:
    """Time until the batch lies on the device, which idles meanwhile; the step itself is slept through.

    Of steps beyond ``LONGEST_MS`` this is an upper limit.
    """
    waits = []
    for _ in range(IGNORED + STEPS):
        begin = time.perf_counter()
        source.fetch()
        wait_for(device)
        waits.append((time.perf_counter() - begin) * 1e3)
        source.reals()
        wait_for(device)
        time.sleep(min(step_ms, LONGEST_MS) / 1e3)
    return statistics.median(waits[IGNORED:])


def _next(source: Source, device: torch.device) -> None:
    source.fetch()
    source.reals()
    wait_for(device)
