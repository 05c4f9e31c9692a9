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


def ablation_command(config: Config, *, count: bool = True, iterations: int = 0) -> dict[str, Any]:
    """Counts the engine with each opportunity off in turn, and times it with so many iterations; the figures."""
    aside = Console(stderr=True)
    with aside.status("") as status:
        counted: dict[str, Cost] = {}
        times: dict[str, float] = {}
        if count:
            dtype = DTYPES[config.precision.dtype]
            counted = ablate(config, dtype, lambda name: status.update(f"counting without {name}"))
        if iterations:
            times = time_ablation(config, iterations, lambda name: status.update(f"timing without {name}"))
    _print(config, counted, times)
    return as_json(config, counted, times)


def _print(config: Config, counted: Mapping[str, Cost], times: Mapping[str, float]) -> None:
    console = Console()
    console.print(
        f"one iteration at {config.model.im_size}, batch {config.train.batch}"
        + (", counted on fake tensors" if counted else "")
        + (f", timed on {describe_device(config)}" if times else "")
        + ": the whole engine, and what is added without each opportunity"
    )
    table = figures_table("without", "ops", "GFLOP", "GB", *(["ms"] if times else []))
    full = counted.get(NOTHING)
    for name in dict.fromkeys([*counted, *times]):
        one, ms = counted.get(name), times.get(name)
        figures = ["", "", ""]
        if one is not None and name == NOTHING:
            figures = [f"{one.ops:,}", f"{one.gflop:,.0f}", f"{one.gbytes:,.2f}"]
        elif one is not None and full is not None:
            figures = [
                f"{one.ops - full.ops:+,}",
                f"{one.gflop - full.gflop:+,.0f}",
                f"{one.gbytes - full.gbytes:+,.2f}",
            ]
        if times:
            figures.append(_ms(name, ms, times[NOTHING]))
        table.add_row(name, *figures)
    console.print(table)


def _ms(name: str, ms: float | None, whole: float) -> str:
    if ms is None:
        return ""
    digits = 0 if whole >= 1000 else 2
    return f"{ms:,.{digits}f}" if name in (NOTHING, AGAIN) else f"{ms - whole:+,.{digits}f}"


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
