"""Losses and times of the steps since the last tick."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

from fastgan_engine.clock import Clock
from fastgan_engine.report import TickReport, read_memory
from fastgan_engine.state import Trained


class Losses(Protocol):
    """A named tuple of scalars on the device."""

    @property
    def _fields(self) -> tuple[str, ...]: ...

    def __iter__(self) -> Iterator[Tensor]: ...


class NotFiniteLossError(RuntimeError):
    """A loss became infinite or NaN at ``step`` or since the tick before it."""

    def __init__(self, loss: str, value: float, step: int) -> None:
        super().__init__(
            f"the loss {loss} became {value} before step {step}; the last checkpoint is untouched: go on from it with "
            f"--resume auto, a lower --lr or another --seed"
        )
        self.loss, self.value, self.step = loss, value, step


class Ticker:
    """Sums losses on the device and reads them, with the times, once a tick.

    steps: of the whole run. batch: images a step.
    """

    def __init__(self, state: Trained, clock: Clock, *, steps: int, batch: int) -> None:
        self.state, self.clock, self.steps, self.batch = state, clock, steps, batch
        self._names: tuple[str, ...] = ()
        self._sums: Tensor | None = None
        self._first_step = state.step
        self._begin = time.perf_counter()

    def add(self, losses: Losses) -> None:
        self._names = losses._fields
        values = torch.stack(list(losses))
        self._sums = values if self._sums is None else self._sums + values

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What happens inside (files being written) is not part of any step's time."""
        begin = time.perf_counter()
        yield
        self._begin += time.perf_counter() - begin

    def read(self) -> TickReport:
        """The report since the last one. The one place where the host waits for the device.

        Raises:
            NotFiniteLossError: a loss is not finite.
        """
        state = self.state
        count = state.step - self._first_step
        assert self._sums is not None
        losses = dict(zip(self._names, (self._sums / count).tolist(), strict=True))
        now = time.perf_counter()
        seconds = (now - self._begin) / count
        laps = {name: total / count * 1e3 for name, total in self.clock.read().items()}
        self._sums, self._first_step, self._begin = None, state.step, now
        _check_finite(losses, state.step)
        scalers = [scaler for scaler in state.scalers.values() if scaler.is_enabled()]
        return TickReport(
            step=state.step,
            steps=self.steps,
            images_per_second=self.batch / seconds,
            ms_step=seconds * 1e3,
            ms_data=laps.get("data", 0.0),
            ms_d=laps.get("d"),
            ms_g=laps.get("g"),
            memory=read_memory(state.device),
            losses=losses,
            seconds_left=seconds * (self.steps - state.step),
            scale=min((scaler.get_scale() for scaler in scalers), default=None),
            skipped=_skipped_steps(state.step, state.opt_d, state.opt_g) if scalers else 0,
        )


def _check_finite(losses: dict[str, float], step: int) -> None:
    for name, value in losses.items():
        if not math.isfinite(value):
            raise NotFiniteLossError(name, value, step)


def _skipped_steps(steps: int, *optimizers: torch.optim.Optimizer) -> int:
    """How many updates overflow has skipped: each optimizer counts those it made."""
    return sum(steps - max((int(s["step"]) for s in optimizer.state.values()), default=0) for optimizer in optimizers)
