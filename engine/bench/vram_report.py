"""``bench vram`` as a table, as JSON and as a plot."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from fastgan_engine.atomic import atomic_write
from fastgan_engine.bench import plots
from fastgan_engine.bench.tables import figures_table
from fastgan_engine.bench.vram import Measured
from fastgan_engine.config import Config
from fastgan_engine.memory.phases import ITERATION, START
from fastgan_engine.memory.plan import GIB, Plan
from fastgan_engine.memory.report import NOT_MEASURED, as_json

MIB = 2**20
NOTHING_MEASURED = "planned only: no GPU is visible here, nothing was measured"
# Colours of the phases' bands, by step.
BANDS = {"data": "#eceff2", "D step": "#e3edf6", "G step": "#e8f3ea"}


@dataclass(frozen=True)
class Contender:
    """A plan, and on a GPU what was measured."""

    plan: Plan
    measured: Measured | None = None


def show(console: Console, config: Config, contenders: Mapping[str, Contender]) -> None:
    """Live MiB at the peak of each phase, planned and measured, and what PyTorch reserves in all."""
    console.print(f"\n{config.model.im_size} x {config.model.im_size}, batch {config.train.batch}")
    measured = any(contender.measured for contender in contenders.values())
    columns = [name if not measured else f"{name}, {kind}" for name in contenders for kind in _kinds(measured)]
    table = figures_table("live, MiB", *columns)
    for phase in (START, *ITERATION):
        table.add_row(
            phase, *(_cell(contender, phase, kind) for contender in contenders.values() for kind in _kinds(measured))
        )
    table.add_row(
        "reserved in all",
        *(_reserved(contender, kind) for contender in contenders.values() for kind in _kinds(measured)),
        style="bold",
    )
    console.print(table)
    console.print(NOT_MEASURED if not measured else "", style="dim", highlight=False)


def _kinds(measured: bool) -> Sequence[str]:
    return ("plan", "measured") if measured else ("plan",)


def _cell(contender: Contender, phase: str, kind: str) -> str:
    if kind == "plan":
        return f"{contender.plan.phases()[phase].live / MIB:,.0f}"
    found = contender.measured.phases.get(phase) if contender.measured else None
    return "-" if found is None else f"{found / MIB:,.0f}"


def _reserved(contender: Contender, kind: str) -> str:
    if kind == "plan":
        return f"{contender.plan.reserved / MIB:,.0f}"
    return "-" if contender.measured is None else f"{contender.measured.reserved / MIB:,.0f}"


def values(config: Config, contenders: Mapping[str, Contender]) -> dict[str, Any]:
    """As JSON: each contender's plan, and beside it what was measured (null: nothing)."""
    return {
        "im_size": config.model.im_size,
        "batch": config.train.batch,
        **{
            name: {
                "plan": as_json(contender.plan),
                "measured": None
                if contender.measured is None
                else {
                    "phases": {phase: size / GIB for phase, size in contender.measured.phases.items()},
                    "reserved_gib": contender.measured.reserved / GIB,
                },
            }
            for name, contender in contenders.items()
        },
    }


def plot(path: Path, title: str, contenders: Mapping[str, Contender]) -> None:
    """The timeline of each contender: live MiB over the allocations of the run, its phases as bands.

    Raises:
        UserError: matplotlib is not installed.
    """
    plots.require_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 1.2 + 2.3 * len(contenders)), dpi=plots.DPI, layout="constrained")
    rows = figure.subplots(len(contenders), 1, squeeze=False, sharey=True)
    for axes, (name, contender) in zip(rows[:, 0], contenders.items(), strict=True):
        _timeline(axes, name, contender)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10.5, color=plots.INK)
    rows[-1, 0].set_xlabel("allocations and frees, in order", color=plots.INK)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png")


def _timeline(axes: Any, name: str, contender: Contender) -> None:
    moments = contender.plan.moments
    colour = plots.KNOWN.get(name, plots.COLOURS[0])
    live = [(moment.live + moment.live_in_graph) / MIB for moment in moments]
    axes.fill_between(range(len(live)), live, step="post", color=colour, alpha=0.35, linewidth=0)
    axes.plot(live, drawstyle="steps-post", color=colour, linewidth=1.0, label=f"{name}: live, planned")
    held = [(moment.reserved + moment.reserved_by_graph) / MIB for moment in moments]
    axes.plot(held, drawstyle="steps-post", color=plots.INK, linewidth=0.9, linestyle=":", label="reserved, planned")
    measured = contender.measured
    for begin, end, phase in _spans([moment.phase for moment in moments]):
        band = BANDS.get(phase.split(":")[0])
        if band:
            axes.axvspan(begin, end, color=band, zorder=0, linewidth=0)
        axes.axvline(begin, color=plots.GRID, linewidth=0.8, zorder=1)
        if end - begin > len(moments) / 25:
            text = phase.partition(": ")[2] or phase
            axes.annotate(text, ((begin + end) / 2, 1), (0, -9), xycoords=("data", "axes fraction"),
                          textcoords="offset points", ha="center", fontsize=6.5, color=plots.INK)  # fmt: skip
        if measured and phase in measured.phases:
            peak = measured.phases[phase] / MIB
            axes.hlines(peak, begin, end, color="#b8503f", linewidth=1.6, label="measured" if begin == 0 else None)
    axes.set_ylabel("MiB", color=plots.INK)
    axes.margins(x=0, y=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=plots.INK, length=0, labelsize=8)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _spans(phases: Sequence[str]) -> list[tuple[int, int, str]]:
    """Runs of the same phase: first index, one past the last, phase."""
    begins = [index for index, phase in enumerate(phases) if index == 0 or phases[index - 1] != phase]
    return [(begin, end, phases[begin]) for begin, end in zip(begins, [*begins[1:], len(phases)], strict=True)]
