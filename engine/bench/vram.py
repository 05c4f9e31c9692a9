"""Memory of one iteration, planned and, on a GPU, measured: the released recipe, the rival and the engine.

Planned is each contender's own iteration, rehearsed on fake tensors (``memory.rehearsal``); of the rival its networks
under AMP without torch.compile, whose fusions no rehearsal sees: it can only need less. Measured is what PyTorch's
allocator reports, phase by phase of an eager iteration; a captured one has no phases, so that of the engine as it
trains only the whole is measured.
"""

import gc
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from fastgan_engine.bench.contenders import CONTENDERS, Contender, with_step
from fastgan_engine.bench.fake_iteration import CPU
from fastgan_engine.bench.reference import build_reference
from fastgan_engine.bench.released_ops import released_ops
from fastgan_engine.build import set_backends
from fastgan_engine.config import Config
from fastgan_engine.iteration import draw_for
from fastgan_engine.memory.phases import START, telling_phases
from fastgan_engine.memory.plan import GRADIENTS, IMAGES, OPTIMIZER, WEIGHTS, Plan
from fastgan_engine.memory.rehearsal import DTYPES, for_card, moments, owned, plan, rehearse, rehearsing
from fastgan_engine.memory.tracker import Tracker
from fastgan_engine.profiles import Card


@dataclass(frozen=True)
class Measured:
    """Bytes: at the peak of each phase those of live tensors; and what was reserved by the end of the run."""

    phases: Mapping[str, int]
    reserved: int


def plan_contender(name: str, config: Config, *, images: int, card: Card | None) -> Plan:
    """The plan of a contender: "reference" in fp32, "compile" in the precision of the configuration, "engine"."""
    config = for_card(config, card)
    if name == "engine":
        return plan(config, images=images, card=card)
    half = name == "compile" and config.precision.dtype != "fp32"
    return _plan_reference(config, DTYPES[config.precision.dtype] if half else None, channels_last=name == "compile")


def _plan_reference(config: Config, half: torch.dtype | None, *, channels_last: bool) -> Plan:
    tracker = Tracker()
    with rehearsing(), released_ops():
        autocast = None if half is None else torch.autocast("cpu", half)
        step = build_reference(config, CPU, channels_last=channels_last, autocast=autocast, foreach=True)
        networks, model = step.networks, config.model
        modules = {"G": networks.generator, "D": networks.discriminator, "average": networks.ema}
        tracker.adopt(owned({**modules, "loss": step.reconstruction}), WEIGHTS)
        reals = torch.empty(config.train.batch, model.nc, model.im_size, model.im_size)
        tracker.adopt([("batch", reals)], IMAGES)
        generator = torch.Generator().manual_seed(0)

        def iterate() -> None:
            # The released step reads the quadrant on the host, which a fake scalar of known value allows.
            step(reals, draw_for(config, generator)._replace(part=torch.tensor(0)))

        iterate()  # makes Adam's moments; and the gradients stay until the next iteration makes new ones
        tracker.adopt(moments((step.opt_g, step.opt_d)), OPTIMIZER)
        trained = (networks.generator, networks.discriminator)
        tracker.adopt((("gradient", p.grad) for n in trained for p in n.parameters() if p.grad is not None), GRADIENTS)
        with tracker:
            rehearse(tracker, iterate, trained)
        recorded = list(tracker.events)  # before all of it goes
    return Plan(tracker.storages, recorded, graph=False)


def measure_contender(name: str, config: Config, device: torch.device, dtype: torch.dtype) -> Measured:
    """Runs a contender on a GPU: two eager iterations, the second phase by phase, and two as it is used."""
    set_backends(config)
    phases = _in_use(partial(_phase_peaks, device), name, with_step(config, "eager"), device, dtype)
    return Measured(phases, _in_use(partial(_reserved, device), name, config, device, dtype))


def _in_use(measure, name: str, config: Config, device: torch.device, dtype: torch.dtype):  # type: ignore[no-untyped-def]
    """What ``measure(contender, reals)`` finds on a device that holds nothing else of ours."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    contender = CONTENDERS[name](config, device, dtype)
    model = config.model
    reals = torch.zeros(config.train.batch, model.nc, model.im_size, model.im_size, device=device)
    contender.run(reals)
    return measure(contender, reals)


def _phase_peaks(device: torch.device, contender: Contender, reals: Tensor) -> dict[str, int]:
    peaks: dict[str, int] = {}
    current = START

    def enter(phase: str) -> None:
        nonlocal current
        peaks[current] = max(peaks.get(current, 0), torch.cuda.max_memory_allocated(device))
        torch.cuda.reset_peak_memory_stats(device)
        current = phase

    torch.cuda.reset_peak_memory_stats(device)
    with telling_phases(enter):
        contender.run(reals)
    enter(START)
    return peaks


def _reserved(device: torch.device, contender: Contender, reals: Tensor) -> int:
    contender.run(reals)
    return torch.cuda.max_memory_reserved(device)
