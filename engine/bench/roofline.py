"""A model, not a measurement: the time that a card's bandwidth, rates and launches allow for a counted iteration.

Each operation takes the longer of its bytes at the card's bandwidth and its FLOP at the card's rate, and with launches
at least ``EAGER_LAUNCH_US`` or, replayed from a CUDA graph, ``GRAPH_LAUNCH_US``. Caches, occupancy and convolution
algorithms do not enter. Bandwidth and rates are datasheet figures; the launch costs are assumed.
"""

from dataclasses import dataclass

from fastgan_engine.bench.counting import Cost
from fastgan_engine.profiles import Card

# Assumed, not measured: what PyTorch needs to launch an operation, and what a kernel in a graph takes at least.
EAGER_LAUNCH_US = 5.0
GRAPH_LAUNCH_US = 1.5


@dataclass(frozen=True)
class Times:
    """Modelled milliseconds of an iteration, without and with the cost of its launches."""

    ms: float
    ms_launched: float


def model(cost: Cost, card: Card, *, half: bool, graph: bool) -> Times:
    """``half``: matrix products run in half precision; ``graph``: the iteration is replayed from a CUDA graph."""
    rate = card.tensor_tflops if half and card.tensor_tflops else card.fp32_tflops
    launch = (GRAPH_LAUNCH_US if graph else EAGER_LAUNCH_US) * 1e-6
    seconds = [max(op.bytes / (card.bandwidth_gbs * 1e9), op.flop / (rate * 1e12)) for op in cost.operations]
    return Times(sum(seconds) * 1e3, sum(max(time, launch) for time in seconds) * 1e3)
