"""From how many pixels the transposed form of an up-convolution wins on this machine, layer by layer."""

import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from fastgan_engine.bench.fake_iteration import fake_tensors
from fastgan_engine.bench.throughput import wait_for
from fastgan_engine.build import build_networks
from fastgan_engine.config import Config
from fastgan_engine.hardware import pick_device, pick_dtype
from fastgan_engine.kernels.spectral import SpectralBatch, SpectralLayer
from fastgan_engine.kernels.up_conv import transposed_from, up_conv


class Shape(NamedTuple):
    """Of an up-convolution: its input [B, C, H, W] before it is upsampled, and its output channels."""

    x: tuple[int, int, int, int]
    outputs: int


@dataclass(frozen=True)
class Layer:
    """Up-convolutions of one shape: how many a step runs, and ms of forward and backward of one in both forms."""

    shape: Shape
    count: int
    direct: float
    transposed: float

    @property
    def pixels(self) -> int:
        """What the rule goes by: pixels of the input in the whole batch."""
        batch, _, height, width = self.shape.x
        return batch * height * width

    def ms(self, rule: int) -> float:
        """In a step under that rule."""
        return self.count * (self.transposed if self.pixels >= rule else self.direct)


def measure(config: Config, repeats: int) -> list[Layer]:
    """Every up-convolution of a step, in the step's precision, in the order of pixels."""
    found = [
        Layer(shape, count, *(_ms(config, shape, form, repeats) for form in (False, True)))
        for shape, count in _shapes(config).items()
    ]
    return sorted(found, key=lambda layer: layer.pixels)


def own_rule(config: Config) -> int:
    """The kernels' own rule there."""
    return transposed_from(config.engine.kernels, torch.empty(0, device=pick_device(config.engine.device)))


def best_rule(found: Sequence[Layer], own: int) -> int:
    """The rule under which a step's up-convolutions take least; ``own`` where it is as good as any."""
    rules = sorted({own, *(layer.pixels for layer in found), max(layer.pixels for layer in found) + 1})
    return min(rules, key=lambda rule: (sum(layer.ms(rule) for layer in found), rule != own))


def _shapes(config: Config) -> Counter[Shape]:
    """The up-convolutions of G and of D's decoders; each runs once for a micro-batch."""
    batch = config.train.batch // config.train.accumulation
    with fake_tensors():
        networks = build_networks(config, torch.device("cpu"))
    found: Counter[Shape] = Counter()
    for network in (networks.generator, networks.discriminator):
        for name, side in network.up_convs().items():
            outputs, inputs, *_ = network.get_parameter(f"{name}.weight_orig").shape
            found[Shape((batch, inputs, side, side), outputs)] += config.train.accumulation
    return found


def _ms(config: Config, shape: Shape, transposed: bool, repeats: int) -> float:
    """Median of forward and backward, normalised weights included, after one that is not counted."""
    device = pick_device(config.engine.device)
    dtype = pick_dtype(config.precision.dtype, device)

    def ones(*size: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.ones(size, dtype=dtype, device=device).contiguous(memory_format=torch.channels_last)

    inputs = shape.x[1]
    x, weight = ones(*shape.x, dtype=dtype).requires_grad_(), ones(shape.outputs, inputs, 3, 3).requires_grad_()
    u, v = (torch.ones(size, device=device) for size in (shape.outputs, inputs * 9))
    spectral = SpectralBatch([SpectralLayer(weight, u, v, upsampled=transposed)], impl=config.engine.kernels)
    state = spectral.step()
    times = []
    for _ in range(1 + repeats):
        wait_for(device)
        begin = time.perf_counter()
        (made,) = spectral.normalised(state, dtype)
        up_conv(x, made).sum().backward()
        wait_for(device)
        times.append((time.perf_counter() - begin) * 1e3)
    return statistics.median(times[1:])
