"""Which logged series are shown in which chart, and the charts as the page's template wants them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastgan_engine.html.history import History, Series
from fastgan_engine.html.plot import (
    Axis,
    Curve,
    band_path,
    dots_path,
    line_path,
    number,
    step_axis,
    summarise,
    value_axis,
)  # fmt: skip

COLOURS = 6  # of the style sheet; further lines take them again
TABLE_ROWS = 20


@dataclass(frozen=True)
class Group:
    """Series that one chart holds: log key -> label."""

    title: str
    unit: str
    members: dict[str, str]
    zero: bool = True
    """The vertical axis starts at 0."""


BUDGET, ALARM, DIVERSITY = "memory_budget_gib", "eval.alarm", "diversity_ratio"
GROUPS = (
    Group("Losses", "", {"loss_d_real": "D, real images", "loss_d_fake": "D, generated images", "loss_g": "G"}),
    Group("Reconstruction loss", "", {"loss_reconstruction": "D's decoders"}),
    Group("Logits of D", "", {"logit_real": "real images", "logit_fake": "generated images"}, zero=False),
    Group("FID", "lower is better", {"fid": "FID"}),
    Group("KID", "lower is better", {"kid": "KID"}),
    Group("Precision and recall", "higher is better", {"precision": "precision", "recall": "recall"}),
    Group("Density and coverage", "higher is better", {"density": "density", "coverage": "coverage"}),
    Group("LPIPS between samples", "higher: more diverse", {"lpips": "LPIPS"}),
    Group("Diversity", "1: as the training images", {DIVERSITY: "mean distance between samples"}),
    Group("Sliced Wasserstein distance", "lower is better", {"swd": "evaluation", "diversity_swd": "collapse alarm"}),
    Group("Speed", "images/s", {"images_per_second": "images/s"}),
    Group("Time a step", "ms", {"ms_step": "whole step", "ms_d": "D", "ms_g": "G", "ms_data": "wait for data"}),
    Group("Memory", "GiB", {"memory_used_gib": "used (peak)", "memory_reserved_gib": "reserved"}),
    Group("Loss scale", "", {"scale": "loss scale"}),
)  # fmt: skip
SILENT_AT_ZERO = {"skipped": "Skipped steps", "collapse": "Collapse alarm (1: it rang)"}


@dataclass(frozen=True, kw_only=True)
class Line:
    """colour: index of the style sheet's colours and dashes. last: the newest value, as text."""

    label: str
    colour: int
    last: str
    path: str
    band: str
    dots: str
    points: list[tuple[int, float]]


@dataclass(frozen=True, kw_only=True)
class Tick:
    """A label at a share of an axis, in percent from its low end."""

    at: float
    label: str


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One plot, its legend and its table."""

    title: str
    unit: str
    lines: list[Line]
    x: Axis
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    records: int
    """How many records a point stands for, at most."""
    limit: Tick | None
    """A line across, such as the card's memory."""
    rows: list[tuple[str, list[str]]] = field(default_factory=list)
    """Of the table: step, and each line's value."""

    @property
    def summary(self) -> str:
        lines = "; ".join(f"{line.label} {line.last}" for line in self.lines)
        return f"{self.title}, steps {number(self.x.low)} to {number(self.x.high)}. Last: {lines}."

    @property
    def readout(self) -> dict[str, Any]:
        """What the page's script needs."""
        return {"low": self.x.low, "high": self.x.high, "lines": [line.points for line in self.lines]}


def make_charts(histories: Sequence[History]) -> list[Chart]:
    """One run: a chart for each group of series. Several: one for each series, with a line for each run."""
    groups = [*GROUPS, *_others(histories)]
    if len(histories) > 1:
        groups = [single for group in groups for single in _one_by_one(group)]
    found = [(group, list(_lines(group, histories))) for group in groups]
    return [_chart(group, lines, histories) for group, lines in found if lines]


def _one_by_one(group: Group) -> Iterator[Group]:
    for key, label in group.members.items():
        title = group.title if len(group.members) == 1 else f"{group.title}: {label}"
        yield Group(title, group.unit, {key: label}, group.zero)


def _lines(group: Group, histories: Sequence[History]) -> Iterator[tuple[str, int, Series]]:
    """Label, colour and series; a run has the same colour in every chart, also where another run lacks the series."""
    several = len(histories) > 1
    for run, history in enumerate(histories):
        for index, (key, label) in enumerate(group.members.items()):
            if key in history.series:
                yield (history.name, run, history.series[key]) if several else (label, index, history.series[key])


def _others(histories: Sequence[History]) -> list[Group]:
    """A chart for each series that no group names, such as those of later versions."""
    known = {key for group in GROUPS for key in group.members} | {BUDGET}
    keys = dict.fromkeys(key for history in histories for key in history.series if key not in known)
    groups = []
    for key in keys:
        title = SILENT_AT_ZERO.get(key)
        if title and not any(history.series[key].values.any() for history in histories if key in history.series):
            continue
        title = title or key.replace(".", ": ").replace("_", " ")
        groups.append(Group(title, "", {key: title}, zero=False))
    return groups


def _chart(group: Group, lines: Sequence[tuple[str, int, Series]], histories: Sequence[History]) -> Chart:
    series = [line for _, _, line in lines]
    curves = [summarise(line) for line in series]
    limit, meaning = _limit(group, histories)
    x, y = step_axis(curves), value_axis(curves, zero=group.zero, reach=limit)
    return Chart(
        title=group.title,
        unit=group.unit,
        lines=[
            _line(label, colour, line, curve, x, y) for (label, colour, line), curve in zip(lines, curves, strict=True)
        ],
        x=x,
        x_ticks=[Tick(at=100 * x.share(value), label=_step_label(value)) for value in x.ticks],
        y_ticks=[Tick(at=100 * y.share(value), label=number(value)) for value in y.ticks],
        records=max(curve.records for curve in curves),
        limit=Tick(at=100 * y.share(limit), label=f"{meaning} {number(limit)}") if limit else None,
        rows=_table(series),
    )


def _line(label: str, colour: int, series: Series, curve: Curve, x: Axis, y: Axis) -> Line:
    return Line(
        label=label,
        colour=colour % COLOURS,
        last=number(series.values[-1]),
        path=line_path(curve, x, y),
        band=band_path(curve, x, y),
        dots=dots_path(curve, x, y),
        points=[(int(step), float(f"{mean:.4g}")) for step, mean in zip(curve.steps, curve.mean, strict=True)],
    )


def _limit(group: Group, histories: Sequence[History]) -> tuple[float | None, str]:
    """The card's memory (GiB), or where the collapse alarm rings: of the runs that tell, if all tell the same."""
    if any(key.startswith("memory_") for key in group.members):
        found, meaning = {h.series[BUDGET].values[-1] for h in histories if BUDGET in h.series}, "budget"
    elif DIVERSITY in group.members:
        found, meaning = {h.settings[ALARM] for h in histories if ALARM in h.settings}, "alarm below"
    else:
        return None, ""
    return (float(found.pop()) if len(found) == 1 else None), meaning


def _table(series: Sequence[Series]) -> list[tuple[str, list[str]]]:
    """Some steps, evenly chosen, each with every line's last record up to there."""
    steps = np.unique(np.concatenate([line.steps for line in series]))
    chosen = steps[np.unique(np.linspace(0, len(steps) - 1, min(TABLE_ROWS, len(steps))).round().astype(int))]
    return [(f"{step:,}", [_value_at(line, step) for line in series]) for step in chosen]


def _value_at(series: Series, step: int) -> str:
    index = int(np.searchsorted(series.steps, step, side="right")) - 1
    return number(series.values[index]) if index >= 0 and step <= series.steps[-1] else "–"


def _step_label(step: float) -> str:
    return f"{step / 1000:g}k" if step >= 10_000 else f"{step:,g}"
