"""``bench table1`` as tables, as JSON and as a plot, beside the paper's own figures."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from fastgan_engine.bench import paper
from fastgan_engine.bench.plots import Bar, bar_plot
from fastgan_engine.bench.table1 import Model
from fastgan_engine.bench.tables import figures_table
from fastgan_engine.hardware import describe_device

PAPER = f"paper, {paper.CARD}"


def show(models: Sequence[Model]) -> None:
    """The models of one size."""
    config, console = models[0].config, Console()
    size = config.model.im_size
    console.print(f"\n{size} x {size}, batch {config.train.batch}, {describe_device(config)}")
    table = figures_table("", "ms a step", "hours for 10k", "peak GiB", "planned GiB")
    for model in models:
        for name, found in model.measured.items():
            peak = found.timing.peak_gib
            table.add_row(
                f"{paper.TITLES[model.variant]}, {name}",
                f"{found.timing.median:,.1f}",
                _hours(found.hours),
                "-" if peak is None else f"{peak:.2f}",
                f"{found.planned_gib:.2f}",
            )
    for variant, cost in paper.COSTS.get(size, {}).items():
        title = f"{paper.TITLES.get(variant, variant)}, {PAPER}"
        table.add_row(title, "", f"{cost.hours:g}", f"{cost.gb:g} GB", "", style="dim")
    console.print(table)
    _show_parameters(models, console)
    for note in notes(models):
        console.print(note, style="dim", highlight=False)


def _show_parameters(models: Sequence[Model], console: Console) -> None:
    size = models[0].config.model.im_size
    table = figures_table("parameters, M", "G", "D", "decoders", "G + D", "with decoders")
    for model in models:
        count = model.parameters
        sums = count.total - count.decoders, count.total
        figures = (count.generator, count.discriminator, count.decoders, *sums)
        table.add_row(paper.TITLES[model.variant], *(f"{figure / 1e6:.3f}" for figure in figures))
    for title, known in (("full, the paper", paper.PARAMETERS), ("full, the released code", paper.PARAMETERS_RELEASED)):
        if size in known:
            table.add_row(title, *[""] * 4, f"{known[size]:.3f}", style="dim")
    console.print(table)


def notes(models: Sequence[Model]) -> list[str]:
    """What a reader of these figures should know, a sentence each."""
    model, batch = models[0].config.model, models[0].config.train.batch
    found = [
        f"hours: extrapolated from the median of {_iterations(models)} iterations, without the loading of images, "
        f"samples and checkpoints; peak: of live tensors; planned: what PyTorch reserves on a GPU by plan"
    ]
    if model.im_size not in paper.COSTS:
        found.append(f"the paper has no figures for {model.im_size} x {model.im_size}")
    if (model.ngf, model.ndf) != (64, 64):
        found.append(f"ngf = {model.ngf}, ndf = {model.ndf}: narrower or wider than the paper's model, which has 64")
    if batch != paper.BATCH:
        found.append(f"batch {batch}, where the paper's is {paper.BATCH}")
    return found


def _iterations(models: Sequence[Model]) -> int:
    return min(len(found.timing.each) for model in models for found in model.measured.values())


def as_json(models: Sequence[Model]) -> dict[str, Any]:
    """Facts of the models of one size, and the paper's figures; times in ms and hours."""
    config = models[0].config
    size = config.model.im_size
    costs = {variant: asdict(cost) for variant, cost in paper.COSTS.get(size, {}).items()}
    return {
        "im_size": size,
        "batch": config.train.batch,
        "ngf": config.model.ngf,
        "ndf": config.model.ndf,
        "device": describe_device(config),
        "torch": torch.__version__,
        "notes": notes(models),
        "models": {model.variant: _model_json(model) for model in models},
        "paper": {
            "costs": costs,
            "parameters_millions": paper.PARAMETERS.get(size),
            "released_code_parameters_millions": paper.PARAMETERS_RELEASED.get(size),
        },
    }


def _model_json(model: Model) -> dict[str, Any]:
    measured = {
        name: {
            "ms": found.timing.median,
            "iterations": len(found.timing.each),
            "hours_for_10k_extrapolated": found.hours,
            "peak_gib": found.timing.peak_gib,
            "planned_gib": found.planned_gib,
        }
        for name, found in model.measured.items()
    }
    return {"parameters": asdict(model.parameters) | {"total": model.parameters.total}, "measured": measured}


def plot(sizes: Sequence[Sequence[Model]], path: Path) -> None:
    """Hours for 10,000 iterations by size, with the memory in the label where it is known."""
    first = sizes[0][0].config
    series: dict[str, list[Bar | None]] = {}
    for variant in (paper.STYLEGAN2, paper.BASELINE, paper.FULL):
        title = f"{paper.TITLES.get(variant, variant)}, {PAPER}"
        series[title] = [_paper_bar(models[0].config.model.im_size, variant) for models in sizes]
    for place, model in enumerate(sizes[0]):
        for name in model.measured:
            series[f"{paper.TITLES[model.variant]}, {name}, here"] = [_bar(models[place], name) for models in sizes]
    bar_plot(
        path,
        title=f"10,000 iterations, batch {first.train.batch}; here: {describe_device(first)}",
        unit="hours (here: extrapolated)",
        groups=[f"{models[0].config.model.im_size} x {models[0].config.model.im_size}" for models in sizes],
        series={title: bars for title, bars in series.items() if any(bars)},
    )


def _paper_bar(size: int, variant: str) -> Bar | None:
    cost = paper.COSTS.get(size, {}).get(variant)
    return None if cost is None else Bar(cost.hours, f"{cost.hours:g} h\n{cost.gb:g} GB")


def _bar(model: Model, name: str) -> Bar:
    found = model.measured[name]
    peak = "" if found.timing.peak_gib is None else f"\n{found.timing.peak_gib:.1f} GiB"
    return Bar(found.hours, f"{_hours(found.hours)} h{peak}")


def _hours(value: float) -> str:
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}"
