"""The cost of one whole training iteration, of the released recipe and of the engine, counted on fake tensors.

Counted is an iteration in the steady state (the second): draws, DiffAugment, D step, G step, optimizers, average; of
the engine also the gathering of the batch from a resident set. No GPU is needed: see ``fake_iteration`` for why the
fake tensors are on the CPU.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from fastgan_engine.bench.counting import Bytes, Cost, counting
from fastgan_engine.bench.fake_iteration import CPU, fake_tensors
from fastgan_engine.bench.reference import build_reference
from fastgan_engine.bench.released_ops import released_ops
from fastgan_engine.build import build_loss, build_state, build_step
from fastgan_engine.clock import Clock
from fastgan_engine.config import Config
from fastgan_engine.iteration import Iteration, draw_for
from fastgan_engine.kernels.batch import gather_batch
from fastgan_engine.reconstruction import ReconstructionLoss
from fastgan_engine.sources import Source
from fastgan_engine.state import Networks

Who = Literal["reference", "engine"]
RESIDENT_IMAGES = 100


@dataclass(frozen=True)
class FakeIteration:
    """An iteration on fake tensors: ``run`` makes one; ``networks`` and ``loss`` are what it trains and with what."""

    run: Callable[[], Any]
    networks: Networks
    loss: ReconstructionLoss

    def owned(self) -> Iterator[Tensor]:
        """Parameters and buffers."""
        for module in (self.networks.generator, self.networks.discriminator, self.networks.ema, self.loss):
            yield from module.parameters()
            yield from module.buffers()


def cost(config: Config, who: Who, dtype: torch.dtype = torch.bfloat16, launch_bytes: Bytes | None = None) -> Cost:
    """What one iteration of ``who`` costs under ``config``.

    The reference is the released recipe in fp32, whatever the configuration says about precision and kernels; the
    engine computes in ``dtype`` with the kernels that ``config.engine.kernels`` chooses ("auto": Triton).
    """
    with fake_tensors():
        iteration = reference_iteration(config) if who == "reference" else engine_iteration(config, dtype)
        iteration.run()
        with counting(launch_bytes) as operations:
            iteration.run()
    return Cost(operations)


def engine_iteration(config: Config, dtype: torch.dtype) -> FakeIteration:
    """The engine's part of an iteration that runs on the device: all but the fetching of the batch."""
    if config.engine.kernels == "auto":
        config = config.model_copy(update={"engine": config.engine.model_copy(update={"kernels": "triton"})})
    state, loss = build_state(config, CPU, dtype), build_loss(config, random_weights=True)
    step = build_step(config, state, loss, dtype)
    iteration = Iteration(config, state, _FakeSource(config), step, Clock(CPU))
    return FakeIteration(iteration.on_device, state.networks, loss)


def reference_iteration(config: Config, dtype: torch.dtype = torch.float32) -> FakeIteration:
    """The released recipe: Adam and the average parameter by parameter, contiguous; under autocast if not in fp32."""
    autocast = torch.autocast("cpu", dtype, enabled=dtype != torch.float32)
    step = build_reference(config, CPU, autocast=autocast, foreach=False)
    model = config.model
    generator = torch.Generator().manual_seed(0)

    def run() -> None:
        draws = draw_for(config, generator)
        reals = torch.empty(config.train.batch, model.nc, model.im_size, model.im_size)
        with released_ops():
            # The released step reads the quadrant on the host, which a fake scalar of known value allows.
            step(reals, draws._replace(part=torch.tensor(0)))

    return FakeIteration(run, step.networks, step.reconstruction)


class _FakeSource(Source):
    """A resident set without images."""

    def __init__(self, config: Config) -> None:
        model, batch = config.model, config.train.batch
        self.reason, self.impl = "nothing is read", config.engine.kernels
        self.cache = torch.empty(RESIDENT_IMAGES, model.im_size, model.im_size, model.nc, dtype=torch.uint8)
        self.indices = torch.empty(batch, dtype=torch.int64)
        self.flips = torch.empty(batch, dtype=torch.bool)

    def fetch(self) -> None:
        return

    def reals(self) -> Tensor:
        return gather_batch(self.cache, self.indices, self.flips, torch.float32, impl=self.impl)
