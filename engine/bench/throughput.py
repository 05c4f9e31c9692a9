"""Time of one training iteration: the engine's step against the reference step.

Both start from the same weights and get the same batches and draws; they take turns, so that whatever else the machine
does meets both. LPIPS runs with random weights: the time does not depend on their values.
"""

import statistics
import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fastgan_engine.build import build_networks, build_state, build_step
from fastgan_engine.config import Config
from fastgan_engine.draws import Draws, draw
from fastgan_engine.hardware import pick_device, pick_dtype
from fastgan_engine.reconstruction import ReconstructionLoss
from fastgan_engine.reference_step import ReferenceStep, StepLosses

Step = "ReferenceStep | EngineStep"
CONTENDERS = ("reference", "engine")


@dataclass
class Timing:
    """Times of one contender, milliseconds an iteration."""

    first: float
    """The first iteration, with everything that happens once."""
    each: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.each)

    def quantile(self, percent: int) -> float:
        return float(torch.tensor(self.each, dtype=torch.float64).quantile(percent / 100))


def compare(config: Config, contenders: list[str], *, iterations: int) -> dict[str, Timing]:
    """Times each contender ``iterations`` times, in turns, after one iteration that is timed apart.

    Raises:
        ValueError: an unknown contender.
    """
    for name in contenders:
        if name not in CONTENDERS:
            raise ValueError(f"cannot compare {name!r}; known are {', '.join(CONTENDERS)}")
    device = pick_device(config.engine.device)
    steps = {name: _build(name, config, device) for name in contenders}
    timings: dict[str, Timing] = {}
    generator = torch.Generator(device).manual_seed(config.train.seed)
    for index in range(iterations + 1):
        reals, draws = _batch(config, generator)
        for name, step in steps.items():
            elapsed = _time(step, reals, draws, device)
            if index == 0:
                timings[name] = Timing(first=elapsed)
            else:
                timings[name].each.append(elapsed)
    return timings


def _build(name: str, config: Config, device: torch.device):  # type: ignore[no-untyped-def]
    loss = ReconstructionLoss(config.loss.reconstruction, random_weights=True).to(device)
    dtype = pick_dtype(config.precision.dtype, device)
    if name == "engine":
        return build_step(config, build_state(config, device, dtype), loss, dtype)
    plain = config.model_copy(update={"precision": config.precision.model_copy(update={"channels_last": False})})
    networks = build_networks(plain, device)
    opt_g, opt_d = (
        torch.optim.Adam(network.parameters(), lr=config.train.lr, betas=(config.train.beta1, config.train.beta2))
        for network in (networks.generator, networks.discriminator)
    )
    return ReferenceStep(networks, loss, opt_g, opt_d, policy=config.loss.augment, ema_decay=config.train.ema_decay)


def _batch(config: Config, generator: torch.Generator) -> tuple[Tensor, Draws]:
    model, batch = config.model, config.train.batch
    reals = torch.rand(batch, model.nc, model.im_size, model.im_size, generator=generator, device=generator.device)
    return reals * 2 - 1, draw(
        batch, im_size=model.im_size, nz=model.nz, policy=config.loss.augment, generator=generator
    )


def _time(step, reals: Tensor, draws: Draws, device: torch.device) -> float:  # type: ignore[no-untyped-def]
    """Milliseconds of one iteration, the device finished."""
    _wait(device)
    begin = time.perf_counter()
    losses: StepLosses = step(reals, draws)
    losses.g.item()
    _wait(device)
    return (time.perf_counter() - begin) * 1e3


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
