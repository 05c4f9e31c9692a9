"""Memory and time of a run before it starts, in lines for ``train --dry-run``."""

from functools import partial

from fastgan_engine.bench.cost import cost
from fastgan_engine.bench.counting import tensor_bytes
from fastgan_engine.bench.roofline import model
from fastgan_engine.config import Config
from fastgan_engine.kernels.launch import Launch
from fastgan_engine.memory.budget import budget_of
from fastgan_engine.memory.fit import fit
from fastgan_engine.memory.guard import refusal
from fastgan_engine.memory.plan import GIB
from fastgan_engine.memory.rehearsal import DTYPES, for_card, plan
from fastgan_engine.profiles import Card

# Of a training set that is not known: a few-shot one.
IMAGES = 100


def forecast(config: Config, card: Card, images: int) -> list[str]:
    """Planned memory against the budget of the card, with what would fit, and the modelled time of a step."""
    allowed = budget_of(config, card)
    assert allowed is not None
    found = fit(config, allowed.bytes, images, partial(plan, images=images, card=card))
    first = found.tried[0]
    lines = [
        f"memory, planned for {card.name} and {images:,} images: {first.plan.peak / GIB:.2f} GiB, "
        f"of which PyTorch reserves {first.plan.reserved / GIB:.2f}; budget {allowed}"
    ]
    if found.chosen is not first:
        lines.append(refusal(found, allowed))
    return [*lines, f"time, modelled from {card.name}'s datasheet: {step_ms(config, card):,.0f} ms a step at best"]


def step_ms(config: Config, card: Card) -> float:
    """What bandwidth, rates and launches allow (``bench.roofline``), a Triton launch counted by its tensors' bytes."""
    config = for_card(config, card)
    counted = cost(config, "engine", DTYPES[config.precision.dtype], _bytes)
    half, graph = config.precision.dtype != "fp32", config.engine.step != "eager"
    return model(counted, card, half=half, graph=graph).ms_launched


def _bytes(launch: Launch) -> int:
    return sum(tensor_bytes(tensor) for tensor in launch.tensors.values())
