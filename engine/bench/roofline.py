"""How long a counted iteration takes at the limit of a machine: a model, not a measurement.

Each operation takes the longer of its bytes at the machine's bandwidth and its FLOP at its matrix rate. Caches,
occupancy and convolution algorithms do not enter. A card that is not here has the rates of its datasheet, and its
launches cost what is assumed below; the machine that is here has the rates that ``measure_rates`` finds.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from fastgan_engine.bench.counting import Cost
from fastgan_engine.profiles import Card

# Assumed, not measured: what PyTorch needs to launch an operation, and what a kernel in a graph takes at least.
EAGER_LAUNCH_US = 5.0
GRAPH_LAUNCH_US = 1.5

# Side of the square matrices and bytes of the copied memory: large enough to fill the device, and soon done.
MATRIX = {"cpu": 1536, "cuda": 8192}
COPY_BYTES = {"cpu": 2**28, "cuda": 2**30}
REPEATS = 5


@dataclass(frozen=True)
class Times:
    """Modelled milliseconds of an iteration, without and with the cost of its launches."""

    ms: float
    ms_launched: float


@dataclass(frozen=True)
class Rates:
    """What a machine does at best."""

    tflops: float
    """Matrix products, TFLOP/s, multiply-add = 2."""
    gbs: float
    """Memory read and written, GB/s."""


def model(cost: Cost, card: Card, *, half: bool, graph: bool) -> Times:
    """``half``: matrix products run in half precision; ``graph``: the iteration is replayed from a CUDA graph."""
    rates = Rates(card.tensor_tflops if half and card.tensor_tflops else card.fp32_tflops, card.bandwidth_gbs)
    launch = (GRAPH_LAUNCH_US if graph else EAGER_LAUNCH_US) * 1e-6
    seconds = _seconds(cost, rates)
    return Times(sum(seconds) * 1e3, sum(max(time, launch) for time in seconds) * 1e3)


def limit_ms(cost: Cost, rates: Rates) -> float:
    """Milliseconds that a machine of these rates needs at least for the counted operations, one after another."""
    return sum(_seconds(cost, rates)) * 1e3


def _seconds(cost: Cost, rates: Rates) -> list[float]:
    return [max(op.bytes / (rates.gbs * 1e9), op.flop / (rates.tflops * 1e12)) for op in cost.operations]


def measure_rates(device: torch.device, dtype: torch.dtype) -> Rates:
    """The best of a few products of large matrices in ``dtype``, and of a few copies of a large piece of memory.

    On CUDA fp32 runs in TF32 where convolutions may use it, which is what they are compared with.
    """
    side, size = MATRIX[device.type], COPY_BYTES[device.type]
    a, b = (torch.ones(side, side, device=device, dtype=dtype) for _ in range(2))
    product = torch.empty_like(a)
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    tf32 = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
    try:
        matrix = _best_seconds(lambda: torch.mm(a, b, out=product), device)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = tf32
    copy = _best_seconds(lambda: target.copy_(source), device)
    return Rates(2 * side**3 / matrix / 1e12, 2 * size / copy / 1e9)


def _best_seconds(work: Callable[[], object], device: torch.device) -> float:
    def once() -> float:
        begin = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - begin

    once()
    return min(once() for _ in range(REPEATS))
