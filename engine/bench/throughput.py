"""Time and memory of one training iteration, contender against contender.

They get the same batches and take turns, so that whatever else the machine does meets all of them.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fastgan_engine.bench.contenders import CONTENDERS, Contender, Engine
from fastgan_engine.build import set_backends
from fastgan_engine.config import Config
from fastgan_engine.hardware import pick_device, pick_dtype

GIB = 2**30


@dataclass
class Timing:
    """One contender's iterations, milliseconds."""

    setup: float
    """Graph capture; 0 where there is none."""
    first: float
    """The first iteration, with everything that happens once (compilation)."""
    peak_gib: float | None
    """Largest memory its tensors took on the GPU, everything of its own counted; None on the CPU."""
    each: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.each)

    def quantile(self, percent: int) -> float:
        return float(torch.tensor(self.each, dtype=torch.float64).quantile(percent / 100))


def compare(config: Config, names: Sequence[str], *, iterations: int) -> dict[str, Timing]:
    """Times each contender ``iterations`` times, in turns, after one iteration that is timed apart.

    Raises:
        ValueError: an unknown contender.
    """
    for name in names:
        if name not in CONTENDERS:
            raise ValueError(f"cannot compare {name!r}; known are {', '.join(CONTENDERS)}")
    device = pick_device(config.engine.device)
    dtype = pick_dtype(config.precision.dtype, device)
    set_backends(config)
    generator = torch.Generator(device).manual_seed(config.train.seed)
    contenders: dict[str, Contender] = {}
    timings: dict[str, Timing] = {}
    for name in names:
        before = _start_counting(device)
        contenders[name] = CONTENDERS[name](config, device, dtype)
        first = _time(contenders[name], _batch(config, generator), device)
        _time(contenders[name], _batch(config, generator), device)
        timings[name] = Timing(contenders[name].setup_ms, first, _peak_gib(device, before))
    for _ in range(iterations):
        reals = _batch(config, generator)
        for name, contender in contenders.items():
            timings[name].each.append(_time(contender, reals, device))
    return timings


def engine_step_ms(config: Config, iterations: int, *, seconds: float = float("inf")) -> float:
    """Median milliseconds of the engine's iteration under ``config``, its batch at hand, LPIPS with random weights.

    After one that is not counted, as many as ``iterations`` and ``seconds`` allow; where the first takes all of them,
    it is what counts.
    """
    device = pick_device(config.engine.device)
    set_backends(config)
    engine = Engine(config, device, pick_dtype(config.precision.dtype, device))
    reals = _batch(config, torch.Generator(device).manual_seed(config.train.seed))
    end = time.perf_counter() + seconds
    first = _time(engine, reals, device)
    times: list[float] = []
    while len(times) < iterations and time.perf_counter() < end:
        times.append(_time(engine, reals, device))
    return statistics.median(times or [first])


def _batch(config: Config, generator: torch.Generator) -> Tensor:
    model = config.model
    shape = (config.train.batch, model.nc, model.im_size, model.im_size)
    return torch.rand(shape, generator=generator, device=generator.device) * 2 - 1


def _time(contender: Contender, reals: Tensor, device: torch.device) -> float:
    """Milliseconds of one iteration, the device finished."""
    wait_for(device)
    begin = time.perf_counter()
    contender.run(reals)
    wait_for(device)
    return (time.perf_counter() - begin) * 1e3


def wait_for(device: torch.device) -> None:
    """Until the device has done all that was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _start_counting(device: torch.device) -> int:
    if device.type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def _peak_gib(device: torch.device, before: int) -> float | None:
    return (torch.cuda.max_memory_allocated(device) - before) / GIB if device.type == "cuda" else None
