"""``fastgan-engine plan``: predicted memory of a run, and what makes it fit."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from fastgan_engine.config import Config
    from fastgan_engine.memory.budget import Budget
    from fastgan_engine.memory.fit import Planner
    from fastgan_engine.profiles import Card

IMAGES = 100  # as in memory.forecast, which imports torch


def plan(
    profile: Annotated[
        str | None, typer.Option(help="The card to plan for (see `profiles list`), or auto for this machine's.")
    ] = None,
    im_size: Annotated[int | None, typer.Option(help="64, 128, 256, 512 or 1024.")] = None,
    batch: Annotated[int | None, typer.Option(help="Images a step.")] = None,
    micro_batch: Annotated[int | None, typer.Option(help="Images at once; divides the batch.")] = None,
    images: Annotated[int, typer.Option(min=1, help="Images of the training set.")] = IMAGES,
    config_file: Annotated[Path | None, typer.Option("--config", help="TOML file of settings.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Any setting; wins over everything.")
    ] = None,
    fit: Annotated[
        bool, typer.Option("--fit", help="Find the cheapest means and the largest batch that fit the budget.")
    ] = False,
    budget: Annotated[
        float | None,
        typer.Option(help="GiB that the run may take; default: what is free, or the card's less a reserve."),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the figures here.")] = None,
) -> None:
    """Predict the GPU memory of a run, by phase and by what it is for. Needs no GPU and no images.

    The engine's own iteration runs on tensors without values; what PyTorch's allocator makes of it is modelled.
    """
    from rich.console import Console

    from fastgan_engine import profiles
    from fastgan_engine.config import resolve

    flags = {
        "model.im_size": im_size, "train.batch": batch, "train.micro_batch": micro_batch, "engine.budget_gib": budget,
    }  # fmt: skip
    name = _named(profile)
    config = resolve(name, config_file, flags, settings or [])
    card = profiles.card(name) if name else None
    from fastgan_engine.memory.rehearsal import plan as predict
    from fastgan_engine.memory.report import as_json, print_plan

    predicted = predict(config, images=images, card=card)
    console = Console()
    title = f"{config.model.im_size} x {config.model.im_size}, batch {config.train.batch}, {images:,} images"
    console.print(f"{title}, {card.name if card else 'a card with bf16 and Triton'}\n")
    print_plan(console, predicted)
    values = as_json(predicted)
    if fit:
        values["fit"] = _fit(config, images, card)
    if json_file is not None:
        json_file.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        typer.echo(f"wrote {json_file}")


def _named(profile: str | None) -> str | None:
    if profile != "auto":
        return profile
    from fastgan_engine.hardware import choose_profile

    return choose_profile().profile


def _fit(config: "Config", images: int, card: "Card | None") -> dict[str, Any]:
    from functools import partial

    from fastgan_engine.errors import UserError
    from fastgan_engine.memory.budget import budget_of
    from fastgan_engine.memory.rehearsal import plan as predict

    allowed = budget_of(config, card, _gpu(config))
    if allowed is None:
        raise UserError("--fit needs a budget: name a card with --profile, or give --budget GIB")
    return _print_fit(config, images, allowed, partial(predict, images=images, card=card))


def _gpu(config: "Config") -> Any:
    """The card that is here, if the configuration would train on one."""
    from fastgan_engine.hardware import pick_device
    from fastgan_engine.memory.budget import gpu_of

    if config.engine.device == "cpu":
        return None
    device = pick_device("auto" if config.engine.device == "cuda" else config.engine.device)
    return gpu_of(device.index) if device.type == "cuda" else None


def _print_fit(config: "Config", images: int, allowed: "Budget", planner: "Planner") -> dict[str, Any]:
    from rich.console import Console
    from rich.table import Table

    from fastgan_engine.memory.fit import EXPANDABLE, HOST, RECOMPUTE, fit, largest_batch, with_settings
    from fastgan_engine.memory.plan import GIB

    found = fit(config, allowed.bytes, images, planner)
    table = Table("with", "peak, GiB", "fits", box=None, pad_edge=False)
    for means in found.tried:
        fits = means.plan.peak <= allowed.bytes
        table.add_row(means.flags or "nothing changed", f"{means.plan.peak / GIB:.2f}", "yes" if fits else "no")
    console = Console(highlight=False)
    console.print(f"\nbudget: {allowed}")
    console.print(table)
    if found.chosen is None:
        console.print(
            "[bold red]nothing fits[/]: take a smaller --im-size, or a narrower network (model.ngf, model.ndf)"
        )
    else:
        console.print(f"[bold]use:[/] {found.chosen.flags or 'these settings as they are'}")
    batches = {
        "as configured": largest_batch(config, allowed.bytes, planner),
        "with expandable segments, recompute and images in host memory": largest_batch(
            with_settings(config, {**EXPANDABLE, **HOST, **RECOMPUTE}), allowed.bytes, planner
        ),
    }
    for how, largest in batches.items():
        console.print(f"largest batch at once, {how}: {largest}")
    return {
        "budget_gib": allowed.bytes / GIB,
        "tried": [{"settings": dict(means.settings), "peak_gib": means.plan.peak / GIB} for means in found.tried],
        "settings": None if found.chosen is None else dict(found.chosen.settings),
        "largest_batch": batches,
    }
