"""What is timed against each other: the released recipe, the same under AMP and torch.compile, and the engine.

Each is built from the same weights, draws its own random numbers inside the timed region, and keeps Adam and the moving
average: a whole iteration. LPIPS has random weights; the time does not depend on their values.
"""

import time
from abc import ABC, abstractmethod
from contextlib import nullcontext

import torch
from torch import Tensor

from fastgan_engine.bench.released_ops import released_ops
from fastgan_engine.build import build_networks, build_state, build_step
from fastgan_engine.capture import CapturedIteration
from fastgan_engine.clock import Clock
from fastgan_engine.config import Config
from fastgan_engine.draws import draw
from fastgan_engine.iteration import Iteration
from fastgan_engine.reconstruction import ReconstructionLoss
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
        model, train = self.config.model, self.config.train
        draws = draw(
            train.batch, im_size=model.im_size, nz=model.nz, policy=self.config.loss.augment, generator=self.generator
        )
        return self.step(reals, draws)

    def _step(self, config: Config, device: torch.device, dtype: torch.dtype) -> ReferenceStep:
        return _reference_step(_with_layout(config, channels_last=False), device, None)


class Compiled(Reference):
    """The rival: our plain networks under autocast, channels-last, they and LPIPS through torch.compile."""

    def _step(self, config: Config, device: torch.device, dtype: torch.dtype) -> ReferenceStep:
        autocast = None if dtype == torch.float32 else torch.autocast(device.type, dtype=dtype)
        step = _reference_step(_with_layout(config, channels_last=True), device, autocast)
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
        step = build_step(config, state, _loss(config, device), dtype, clock)
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


def _with_layout(config: Config, *, channels_last: bool) -> Config:
    return config.model_copy(update={"precision": config.precision.model_copy(update={"channels_last": channels_last})})


def _loss(config: Config, device: torch.device) -> ReconstructionLoss:
    kind = config.loss.reconstruction if config.model.decode else "none"
    return ReconstructionLoss(kind, random_weights=True).to(device)


def _reference_step(config: Config, device: torch.device, autocast: torch.autocast | None) -> ReferenceStep:
    networks, train = build_networks(config, device), config.train
    opt_g, opt_d = (
        torch.optim.Adam(network.parameters(), lr=train.lr, betas=(train.beta1, train.beta2))
        for network in (networks.generator, networks.discriminator)
    )
    return ReferenceStep(
        networks, _loss(config, device), opt_g, opt_d,
        policy=config.loss.augment, ema_decay=train.ema_decay, autocast=autocast,
    )  # fmt: skip


CONTENDERS: dict[str, type[Reference] | type[Engine]] = {
    "reference": Reference,
    "compile": Compiled,
    "engine": Engine,
}
