"""The plots of ``bench``: bars in groups, and lines. matplotlib is imported where one is drawn.

Raises (all functions): UserError where matplotlib is not installed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastgan_engine.atomic import atomic_write
from fastgan_engine.extras import require

COLOURS = ("#3f9a6b", "#8a5aa8", "#c2688f", "#4fa3b8", "#b8503f", "#7a6f52")
# The contenders look the same in every plot.
KNOWN = {"reference": "#9aa0a8", "compile": "#d98f2b", "engine": "#2f6fb3"}
INK, GRID = "#30343a", "#dde0e4"
DPI = 140
# Of the space that a group of bars has, what the bars take.
FILL = 0.8


@dataclass(frozen=True)
class Bar:
    """A value, where it spreads, and what is written above it."""

    value: float
    label: str
    low: float | None = None
    high: float | None = None


def require_matplotlib() -> None:
    """To be called before the measuring: whoever waited for minutes wants the plot.

    Raises:
        UserError: matplotlib is not installed.
    """
    require("matplotlib", extra="bench")


def bar_plot(
    path: Path,
    *,
    title: str,
    unit: str,
    groups: Sequence[str],
    series: Mapping[str, Sequence[Bar | None]],
    marks: Sequence[tuple[float, str] | None] = (),
    log: bool = False,
) -> None:
    """Bars side by side: one group a name in ``groups``, in it one bar a series; None leaves a gap.

    marks: for each group a value to draw across it, with its name in the legend.
    """
    figure, axes = _figure(max(5.5, 1.6 + 0.62 * len(groups) * len(series)), title, unit)
    width = FILL / len(series)
    for index, (name, bars) in enumerate(series.items()):
        shown = [(group, bar) for group, bar in enumerate(bars) if bar is not None]
        centres = [group + (index - (len(series) - 1) / 2) * width for group, _ in shown]
        heights = [bar.value for _, bar in shown]
        axes.bar(centres, heights, width * 0.92, color=_colour(index, name), label=name, zorder=2)
        for centre, (_, bar) in zip(centres, shown, strict=True):
            top = bar.value if bar.high is None else max(bar.high, bar.value)
            if bar.low is not None and bar.high is not None:
                axes.vlines(centre, bar.low, bar.high, color=INK, linewidth=1.2, zorder=3)
            axes.annotate(
                bar.label, (centre, top), (0, 3), textcoords="offset points", ha="center", fontsize=8, color=INK
            )
    named: set[str] = set()
    for group, mark in enumerate(marks):
        if mark is not None:
            value, name = mark
            label = None if name in named else name
            axes.hlines(
                value, group - 0.46, group + 0.46, color=INK, linestyle="--", linewidth=1.2, label=label, zorder=4
            )
            named.add(name)
    axes.set_xticks(range(len(groups)), groups)
    if log:
        axes.set_yscale("log")
    axes.margins(y=0.14)
    _save(figure, axes, path)


def line_plot(
    path: Path, *, title: str, unit: str, x_label: str, series: Mapping[str, tuple[Sequence[float], Sequence[float]]]
) -> None:
    """Lines of (x, y) by name."""
    figure, axes = _figure(6.5, title, unit)
    for index, (name, (x, y)) in enumerate(series.items()):
        axes.plot(x, y, color=_colour(index, name), label=name, marker="o", markersize=3.5, linewidth=1.8)
    axes.set_xlabel(x_label, color=INK)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    _save(figure, axes, path)


def _colour(index: int, name: str) -> str:
    return KNOWN.get(name, COLOURS[index % len(COLOURS)])


def _figure(width: float, title: str, unit: str) -> tuple[Any, Any]:
    require_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(min(width, 14), 4.2), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=10.5, color=INK)
    axes.set_ylabel(unit, color=INK)
    axes.grid(axis="y", color=GRID, linewidth=0.8, zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK, length=0)
    return figure, axes


def _save(figure: Any, axes: Any, path: Path) -> None:
    axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png")
