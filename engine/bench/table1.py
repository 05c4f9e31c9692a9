"""The paper's table 1 on this machine: time, memory and parameters of the baseline and of the full model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from fastgan_engine.bench import throughput
from fastgan_engine.bench.fake_iteration import CPU, fake_tensors
from fastgan_engine.bench.paper import ITERATIONS
from fastgan_engine.bench.throughput import GIB, Timing
from fastgan_engine.bench.vram import plan_contender
from fastgan_engine.build import build_networks
from fastgan_engine.config import Config

# Of the training set whose decoded copy is planned: a few-shot one.
IMAGES = 100


@dataclass(frozen=True)
class Parameters:
    """How many weights a model has: G, D without its decoders, and these."""

    generator: int
    discriminator: int
    decoders: int

    @property
    def total(self) -> int:
        return self.generator + self.discriminator + self.decoders


@dataclass(frozen=True)
class Measured:
    """A model as one contender runs it. planned_gib: what PyTorch is planned to reserve on a GPU."""

    timing: Timing
    planned_gib: float

    @property
    def hours(self) -> float:
        """Of 10,000 iterations, extrapolated from the median one."""
        return self.timing.median * ITERATIONS / 3.6e6


@dataclass(frozen=True)
class Model:
    """A row of the table: a variant of the paper at one size, by contender."""

    variant: str
    config: Config
    parameters: Parameters
    measured: Mapping[str, Measured]


def measure(variant: str, config: Config, names: Sequence[str], *, iterations: int) -> Model:
    """Times the contenders on one variant, ``iterations`` each, and counts its parameters.

    Raises:
        ValueError: an unknown contender.
    """
    timings = throughput.compare(config, names, iterations=iterations)
    measured = {
        name: Measured(timing, plan_contender(name, config, images=IMAGES, card=None).reserved / GIB)
        for name, timing in timings.items()
    }
    return Model(variant, config, parameters(config), measured)


def parameters(config: Config) -> Parameters:
    """Counted on networks as they are built for training, of fake tensors."""
    with fake_tensors():
        networks = build_networks(config, CPU)
    decoders = sum(
        _count(module) for name, module in networks.discriminator.named_children() if name.startswith("decoder_")
    )
    return Parameters(_count(networks.generator), _count(networks.discriminator) - decoders, decoders)


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
