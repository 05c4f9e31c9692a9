"""The time that an iteration calls "data"."""

import time
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from fastgan_engine.clock import Clock
from fastgan_engine.iteration import Iteration
from fastgan_engine.sources import Source
from tests.engine.small import small_config


class Slow(Source):
    """A batch that the host waits ``seconds`` for; and, with ``behind``, for all that the device has to do."""

    reason = "slow"

    def __init__(self, seconds: float, *, behind: bool = False) -> None:
        self.seconds, self.behind = seconds, behind

    def fetch(self) -> None:
        if self.behind:
            torch.cuda.synchronize()
        time.sleep(self.seconds)

    def reals(self) -> Tensor:
        return torch.zeros(())


def data_seconds(source: Source, device: str, *, busy_cycles: int = 0) -> float:
    """What one fetch adds to "data", with the device at work for so many cycles when it begins."""
    clock = Clock(torch.device(device))
    iteration = Iteration(small_config(), SimpleNamespace(), source, lambda *_: None, clock)  # type: ignore[arg-type, return-value]
    if busy_cycles:
        torch.cuda._sleep(busy_cycles)
    iteration.fetch()
    clock.lap("step")
    if device == "cuda":
        torch.cuda.synchronize()
    return clock.read()["data"]


def test_a_late_batch_is_a_wait_for_data() -> None:
    assert 0.02 <= data_seconds(Slow(0.02), "cpu") < 0.2


@pytest.mark.gpu
def test_on_cuda_it_is_the_device_that_waits() -> None:
    assert 0.02 <= data_seconds(Slow(0.02), "cuda") < 0.2
    # Some 50 to 100 ms of work; a batch that comes in the middle of it, and one that waits for its end.
    busy = 100_000_000
    assert data_seconds(Slow(0.01), "cuda", busy_cycles=busy) < 0.005
    assert data_seconds(Slow(0.0, behind=True), "cuda", busy_cycles=busy) < 0.005
