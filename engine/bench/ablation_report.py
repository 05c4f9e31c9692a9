"""``bench ablation`` as a table and as JSON."""

from collections.abc import Mapping
from typing import Any

import torch
from rich.console import Console

from fastgan_engine.bench.ablation import AGAIN, NOTHING, ablate, time_ablation
from fastgan_engine.bench.cost_report import DTYPES
from fastgan_engine.bench.counting import Cost
from fastgan_engine.bench.tables import figures_table
from fastgan_engine.config import Config
from fastgan_engine.hardware import describe_device


def ablation_command(config: Config, *, iterations: int) -> dict[str, Any]:
    """Counts the engine with each opportunity off in turn, and unless ``iterations`` is 0 times it so; the figures."""
    aside = Console(stderr=True)
    with aside.status("") as status:
        counted = ablate(config, DTYPES[config.precision.dtype], lambda name: status.update(f"counting without {name}"))
        times = {}
        if iterations:
            times = time_ablation(config, iterations, lambda name: status.update(f"timing without {name}"))
    _print(config, counted, times)
    return as_json(config, counted, times)


def _print(config: Config, counted: Mapping[str, Cost], times: Mapping[str, float]) -> None:
    console = Console()
    console.print(
        f"one iteration at {config.model.im_size}, batch {config.train.batch}: counted on fake tensors"
        + (f", timed on {describe_device(config)}" if times else "")
        + "; what each opportunity is worth"
    )
    table = figures_table("without", "ops", "GFLOP", "GB", *(["ms"] if times else []))
    full = counted[NOTHING]
    for name in dict.fromkeys([*counted, *times]):
        one, ms = counted.get(name), times.get(name)
        figures = ["", "", ""]
        if one is full:
            figures = [f"{full.ops:,}", f"{full.gflop:,.0f}", f"{full.gbytes:,.2f}"]
        elif one is not None:
            figures = [_change(one.ops - full.ops, ",d"), _change(one.gflop - full.gflop, ",.0f")]
            figures.append(_change(one.gbytes - full.gbytes, ",.2f"))
        if times:
            figures.append(_ms(name, ms, times[NOTHING]))
        table.add_row(name, *figures)
    console.print(table)


def _change(value: float, form: str) -> str:
    return f"{value:+{form}}"


def _ms(name: str, ms: float | None, whole: float) -> str:
    if ms is None:
        return ""
    return f"{ms:,.4g}" if name in (NOTHING, AGAIN) else f"{ms - whole:+,.3g}"


def as_json(config: Config, counted: Mapping[str, Cost], times: Mapping[str, float]) -> dict[str, Any]:
    """By what is off, its whole cost and time; and where that was."""
    values: dict[str, Any] = {"im_size": config.model.im_size, "batch": config.train.batch, "torch": torch.__version__}
    if times:
        values["device"] = describe_device(config)
    off: dict[str, dict[str, float]] = {}
    for name in dict.fromkeys([*counted, *times]):
        off[name] = {}
        if (one := counted.get(name)) is not None:
            off[name] |= {"ops": one.ops, "gflop": one.gflop, "gbytes": one.gbytes}
        if name in times:
            off[name]["ms"] = times[name]
    return values | {"off": off}
