"""What is timed against each other: the released recipe, the same under AMP and torch.compile, and the engine.

Each is built from the same weights, draws its own random numbers inside the timed region, and keeps Adam and the moving
average: a whole iteration. LPIPS has random weights; the time does not depend on their values.
"""

import time
from abc import ABC, abstractmethod
from contextlib import nullcontext

import torch
from torch import Tensor

from fastgan_engine.bench.reference import build_reference
from fastgan_engine.bench.released_ops import released_ops
from fastgan_engine.build import build_loss, build_state, build_step
from fastgan_engine.capture import CapturedIteration
from fastgan_engine.clock import Clock
from fastgan_engine.config import Config
from fastgan_engine.iteration import Iteration, draw_for
from fastgan_engine.reference_step import ReferenceStep, StepLosses
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
        self.step = self._step(config, device, dtype)

    def run(self, reals: Tensor) -> StepLosses:
        with released_ops() if "cutout" not in self.config.loss.augment else nullcontext():
            return self._iterate(reals)

    def _iterate(self, reals: Tensor) -> StepLosses:
        return self.step(reals, draw_for(self.config, self.generator))

    def _step(self, config: Config, device: torch.device, dtype: torch.dtype) -> ReferenceStep:
        return build_reference(config, device)


class Compiled(Reference):
    """The rival: our plain networks under autocast, channels-last, they and LPIPS through torch.compile."""

    def _step(self, config: Config, device: torch.device, dtype: torch.dtype) -> ReferenceStep:
        autocast = None if dtype == torch.float32 else torch.autocast(device.type, dtype=dtype)
        step = build_reference(config, device, channels_last=True, autocast=autocast)
        for module in (step.networks.generator, step.networks.discriminator, step.reconstruction):
            module.compile()
        return step

    def run(self, reals: Tensor) -> StepLosses:
        return self._iterate(reals.contiguous(memory_format=torch.channels_last))


class Engine(Contender):
    """The engine as ``train`` runs it; on CUDA as one captured graph unless ``engine.step`` is "eager"."""

    def __init__(self, config: Config, device: torch.device, dtype: torch.dtype) -> None:
        clock = Clock(device)
        state = build_state(config, device, dtype)
        step = build_step(config, state, build_loss(config, random_weights=True), dtype, clock)
        self.source = _FixedSource(config, device)
        iteration = Iteration(config, state, self.source, step, clock)
        self.iterate: Iteration | CapturedIteration = iteration
        if device.type == "cuda" and config.engine.step != "eager":
            begin = time.perf_counter()
            self.iterate = CapturedIteration(iteration)
            torch.cuda.synchronize(device)
            self.setup_ms = (time.perf_counter() - begin) * 1e3

    def run(self, reals: Tensor) -> StepLosses:
        self.source.buffer.copy_(reals)
        return self.iterate()


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


CONTENDERS: dict[str, type[Reference] | type[Engine]] = {
    "reference": Reference,
    "compile": Compiled,
    "engine": Engine,
}
