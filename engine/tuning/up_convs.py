"""From how many pixels the transposed form of an up-convolution wins on this machine, layer by layer."""

import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from unittest import mock

import torch
from torch import Tensor

from fastgan_engine.bench.contenders import Engine, with_step
from fastgan_engine.bench.throughput import wait_for
from fastgan_engine.config import Config
from fastgan_engine.fast import layers
from fastgan_engine.hardware import pick_device, pick_dtype
from fastgan_engine.kernels.up_conv import TRANSPOSED_FROM, Method, up_conv

Shapes = tuple[torch.Size, torch.Size]


@dataclass(frozen=True)
class Layer:
    """Up-convolutions of one shape: how often a step runs one, and ms of forward and backward in both forms."""

    x: torch.Size
    weight: torch.Size
    count: int
    direct: float
    transposed: float

    @property
    def pixels(self) -> int:
        """What the rule goes by: pixels of x in the whole batch."""
        return self.x[0] * self.x[2] * self.x[3]

    def ms(self, transposed_from: int) -> float:
        """In a step under that rule."""
        return self.count * (self.transposed if self.pixels >= transposed_from else self.direct)


def measure(config: Config, repeats: int) -> list[Layer]:
    """Every up-convolution of a step, in the step's precision, in the order of pixels."""
    device = pick_device(config.engine.device)
    dtype = pick_dtype(config.precision.dtype, device)
    found = []
    for (x, weight), count in _shapes(config, device, dtype).items():
        operands = [torch.ones(shape, device=device, dtype=dtype) for shape in (x, weight)]
        operands = [tensor.contiguous(memory_format=torch.channels_last).requires_grad_() for tensor in operands]
        found.append(Layer(x, weight, count, _ms(operands, "direct", repeats), _ms(operands, "transposed", repeats)))
    return sorted(found, key=lambda layer: layer.pixels)


def best_rule(found: Sequence[Layer]) -> int:
    """The rule under which a step's up-convolutions take least."""
    rules = sorted({TRANSPOSED_FROM, *(layer.pixels for layer in found), max(layer.pixels for layer in found) + 1})
    return min(rules, key=lambda rule: (sum(layer.ms(rule) for layer in found), rule != TRANSPOSED_FROM))


def _shapes(config: Config, device: torch.device, dtype: torch.dtype) -> Counter[Shapes]:
    """What the up-convolutions of one step are given, and how often."""
    seen: Counter[Shapes] = Counter()

    def record(x: Tensor, weight: Tensor, **options: object) -> Tensor:
        seen[x.shape, weight.shape] += 1
        return up_conv(x, weight)

    engine = Engine(with_step(config, "eager"), device, dtype)
    model = config.model
    with mock.patch.object(layers, "up_conv", record):
        engine.run(torch.zeros(config.train.batch, model.nc, model.im_size, model.im_size, device=device))
    return seen


def _ms(operands: Sequence[Tensor], method: Method, repeats: int) -> float:
    """Median of forward and backward, after one that is not counted."""
    x, weight = operands
    times = []
    for _ in range(1 + repeats):
        wait_for(x.device)
        begin = time.perf_counter()
        up_conv(x, weight, method=method).sum().backward()
        wait_for(x.device)
        times.append((time.perf_counter() - begin) * 1e3)
    return statistics.median(times[1:])
