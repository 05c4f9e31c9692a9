"""``bench data`` as a table, as JSON and as a plot."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from fastgan_engine.bench.data import GOAL, Deliveries, Delivery
from fastgan_engine.bench.plots import Bar, bar_plot
from fastgan_engine.bench.tables import figures_table
from fastgan_engine.hardware import describe_device


def show(found: Deliveries) -> None:
    config, console = found.config, Console()
    size = config.model.im_size
    origin = "measured here" if found.step_measured else "given"
    console.print(
        f"{size} x {size}, batch {config.train.batch}, {config.data.workers} workers, {describe_device(config)}; "
        f"a step of {found.step_ms:,.1f} ms ({origin}) needs {found.needed:,.0f} images/s; packed as {found.packing}"
    )
    table = figures_table("mode", "images/s", "needed x", "wait ms", "% of step", f"under {GOAL:.0%}")
    for one in found.modes:
        if one.images_per_second is None or one.wait_ms is None:
            table.add_row(one.mode, "-", "-", "-", "-", "-")
            continue
        table.add_row(
            one.mode,
            f"{one.images_per_second:,.0f}",
            f"{one.images_per_second / found.needed:,.1f}",
            f"{one.wait_ms:.2f}",
            f"{one.wait_ms / found.step_ms:.2%}",
            "yes" if one.reaches(found.step_ms) else "no",
        )
    console.print(table)
    for one in found.modes:
        if one.images_per_second is None:
            console.print(f"{one.mode} {one.reason}")


def as_json(found: Deliveries) -> dict[str, Any]:
    config = found.config
    return {
        "im_size": config.model.im_size,
        "batch": config.train.batch,
        "packing": found.packing,
        "workers": config.data.workers,
        "prefetch": config.data.prefetch,
        "device": describe_device(config),
        "step_ms": found.step_ms,
        "step_measured": found.step_measured,
        "needed_images_per_second": found.needed,
        "modes": {one.mode: _values(one, found) for one in found.modes},
    }


def _values(one: Delivery, found: Deliveries) -> dict[str, Any]:
    if one.wait_ms is None:
        return {"reason": one.reason}
    return {
        "reason": one.reason,
        "images_per_second": one.images_per_second,
        "wait_ms": one.wait_ms,
        "wait_share": one.wait_ms / found.step_ms,
        "under_goal": one.reaches(found.step_ms),
    }


def plot(sizes: Sequence[Deliveries], path: Path) -> None:
    """Images/s by size and mode on a logarithmic scale, and what the step needs."""
    modes = list(dict.fromkeys(one.mode for found in sizes for one in found.modes))
    by_mode = [{one.mode: one.images_per_second for one in found.modes} for found in sizes]
    first = sizes[0].config
    bar_plot(
        path,
        title=f"Images a second, batch {first.train.batch}, {describe_device(first)}",
        unit="images/s (logarithmic)",
        groups=[f"{found.config.model.im_size} x {found.config.model.im_size}" for found in sizes],
        series={mode: [_bar(rates.get(mode)) for rates in by_mode] for mode in modes},
        marks=[(found.needed, "needed by a step") for found in sizes],
        log=True,
    )


def _bar(rate: float | None) -> Bar | None:
    return None if rate is None else Bar(rate, f"{rate:,.0f}")
