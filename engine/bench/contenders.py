"""What is timed against each other: the released recipe, the same under AMP and torch.compile, and the engine.

Each is built from the same weights, draws its own random numbers inside the timed region, and keeps Adam and the moving
average: a whole iteration. LPIPS has random weights; the time does not depend on their values.
"""

import time
from abc import ABC, abstractmethod
from contextlib import nullcontext
from typing import Literal

import torch
from torch import Tensor

from fastgan_engine.bench.reference import build_reference
from fastgan_engine.bench.released_ops import released_ops
from fastgan_engine.build import build_loss, build_state, build_step
from fastgan_engine.capture import CapturedIteration
from fastgan_engine.clock import Clock
from fastgan_engine.config import Config
from fastgan_engine.iteration import Iteration, draw_for
from fastgan_engine.reference_step import StepLosses
from fastgan_engine.sources import Source


class Contender(ABC):
    """One way to run an iteration.

    Attributes:
        setup_ms: what happens once before it runs at full speed beside the first iteration (graph capture).
    """

    setup_ms = 0.0

    @abstractmethod
    def run(self, reals: Tensor) -> StepLosses:
        """One iteration on reals [B, C, H, W] in [-1, 1]."""


class Reference(Contender):
    """The released recipe as the released code spells it: fp32, NCHW, PyTorch's default Adam."""

    def __init__(self, config: Config, device: torch.device, dtype: torch.dtype) -> None:
        self.config = config
        self.generator = torch.Generator(device).manual_seed(config.train.seed)
        self.step = build_reference(config, device)

    def run(self, reals: Tensor) -> StepLosses:
        with released_ops() if "cutout" not in self.config.loss.augment else nullcontext():
            return self.step(reals, draw_for(self.config, self.generator))


class Engine(Contender):
    """The engine as ``train`` runs it; on CUDA as one captured graph unless ``engine.step`` is "eager"."""

    def __init__(self, config: Config, device: torch.device, dtype: torch.dtype) -> None:
        if config.engine.step == "compile":
            config = with_step(config, "auto")
        self.source = _FixedSource(config, device)
        iteration = trained_iteration(config, self.source, device, dtype)
        self.state = iteration.state
        self.iterate: Iteration | CapturedIteration = iteration
        if device.type == "cuda" and config.engine.step != "eager":
            begin = time.perf_counter()
            self.iterate = CapturedIteration(iteration)
            torch.cuda.synchronize(device)
            self.setup_ms = (time.perf_counter() - begin) * 1e3

    def run(self, reals: Tensor) -> StepLosses:
        self.source.buffer.copy_(reals)
        return self.iterate()


class Compiled(Contender):
    """The rival, as ``train`` runs it with ``engine.step = "compile"``: the recipe under AMP and torch.compile."""

    def __init__(self, config: Config, device: torch.device, dtype: torch.dtype) -> None:
        self.source = _FixedSource(config, device)
        self.iterate = trained_iteration(with_step(config, "compile"), self.source, device, dtype)
        self.state = self.iterate.state

    def run(self, reals: Tensor) -> StepLosses:
        self.source.buffer.copy_(reals)
        return self.iterate()


def trained_iteration(config: Config, source: Source, device: torch.device, dtype: torch.dtype) -> Iteration:
    """The iteration that ``train`` makes of a configuration, from the first step, LPIPS with random weights."""
    clock = Clock(device)
    state = build_state(config, device, dtype)
    step = build_step(config, state, build_loss(config, random_weights=True), dtype, clock)
    return Iteration(config, state, source, step, clock)


def with_step(config: Config, step: Literal["auto", "graph", "eager", "compile"]) -> Config:
    """The configuration with another ``engine.step``; "compile" without micro-batches, which it has not."""
    train = config.train.model_copy(update={"micro_batch": None}) if step == "compile" else config.train
    return config.model_copy(update={"train": train, "engine": config.engine.model_copy(update={"step": step})})


class _FixedSource(Source):
    """A batch that the benchmark fills in."""

    reason = "benchmark"

    def __init__(self, config: Config, device: torch.device) -> None:
        model = config.model
        shape = (config.train.batch, model.nc, model.im_size, model.im_size)
        self.buffer = torch.zeros(shape, device=device).contiguous(memory_format=torch.channels_last)

    def fetch(self) -> None:
        return

    def reals(self) -> Tensor:
        return self.buffer


CONTENDERS: dict[str, type[Reference] | type[Engine] | type[Compiled]] = {
    "reference": Reference,
    "compile": Compiled,
    "engine": Engine,
}
