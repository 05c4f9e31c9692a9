"""A run is planned before it starts, and refused where the plan does not fit: in numbers, with what would."""

from functools import partial

from fastgan_engine.config import Config
from fastgan_engine.errors import UserError
from fastgan_engine.hardware import GIB, Gpu, pick_device, profile_for
from fastgan_engine.memory.budget import Budget, budget_of, gpu_of
from fastgan_engine.memory.fit import Fit, fit
from fastgan_engine.memory.rehearsal import plan
from fastgan_engine.profiles import Card, card


def check_fits(config: Config, images: int) -> str | None:
    """One line about the plan of a run on this machine; None where there is nothing to plan (no CUDA).

    Raises:
        UserError: the plan is above the budget; the message has both, and the flags with which it is not.
    """
    device = pick_device(config.engine.device)
    if device.type != "cuda" or config.engine.step == "compile":
        return None
    gpu = gpu_of(device.index)
    facts = nearest_card(gpu) if gpu else None
    budget = budget_of(config, facts, gpu)
    if budget is None:
        return None
    found = fit(config, budget.bytes, images, partial(plan, images=images, card=facts))
    if found.chosen is None or found.chosen.settings:
        raise UserError(refusal(found, budget))
    return f"memory: {found.chosen.plan.peak / GIB:.2f} GiB planned of {budget}"


def nearest_card(gpu: Gpu) -> Card | None:
    """The facts of the shipped profile that is nearest."""
    return card(profile_for(gpu).profile)


def refusal(found: Fit, budget: Budget) -> str:
    """What is planned, what there is, and what to do."""
    planned = f"the plan needs {found.tried[0].plan.peak / GIB:.2f} GiB, the budget is {budget}"
    if found.chosen is not None:
        return f"{planned}. It fits, with {found.chosen.plan.peak / GIB:.2f} GiB, with: {found.chosen.flags}"
    least = found.tried[-1]
    with_all = f"; even with {least.flags} it needs {least.plan.peak / GIB:.2f} GiB" if least.settings else ""
    return (
        f"{planned}{with_all}. Close programs that use the card (`fastgan-engine doctor` names them), take a smaller "
        f"--im-size, or, if you know better than the plan, set --set engine.budget_gib=N"
    )
