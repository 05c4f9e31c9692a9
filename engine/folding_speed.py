"""How much faster the folded generator is, on this machine."""

import statistics
from dataclasses import dataclass

import torch
from torch.utils.benchmark import Timer

from fastgan_engine.folding import FoldedGenerator, fold
from fastgan_engine.networks import Generator
from fastgan_engine.sampling import draw_inputs

BATCHES = (1, 8)
ROUNDS = 5
SECONDS = 4.0


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Medians of one pass over ``batch`` latents, milliseconds."""

    batch: int
    device: str
    before_ms: float
    folded_ms: float


@torch.no_grad()
def measure(generator: Generator, *, seconds: float = SECONDS) -> list[Speed]:
    """Times the generator and its folded form with the same inputs, noise included, in channels-last memory.

    They take turns, so that whatever else the machine does meets both. generator: in evaluation mode, on the device to
    measure; its memory format is changed. seconds: in all, for each batch size.
    """
    folded = fold(generator)
    for network in (generator, folded):
        network.to(memory_format=torch.channels_last)
    return [_measure(generator, folded, batch, seconds) for batch in BATCHES]


def _measure(generator: Generator, folded: FoldedGenerator, batch: int, seconds: float) -> Speed:
    z, noise = draw_inputs(generator, 0, range(batch))
    threads = torch.get_num_threads()
    timers = [
        Timer("network(z, noise)", globals={"network": network, "z": z, "noise": noise}, num_threads=threads)
        for network in (generator, folded)
    ]
    each = seconds / ROUNDS / len(timers)
    rounds = [[timer.blocked_autorange(min_run_time=each).median * 1e3 for timer in timers] for _ in range(ROUNDS)]
    before, after = (statistics.median(times) for times in zip(*rounds, strict=True))
    return Speed(batch=batch, device=str(z.device), before_ms=before, folded_ms=after)
