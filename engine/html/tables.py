"""The report's tables: how far each run is, its settings, where it ran."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np

from fastgan_engine.config import Config, settings
from fastgan_engine.config.schema import Root
from fastgan_engine.config.single import SingleConfig
from fastgan_engine.evaluation.metrics import METRICS
from fastgan_engine.html.charts import BUDGET
from fastgan_engine.html.history import History
from fastgan_engine.html.plot import number

NOTHING = "–"
NOT_SHOWN = ("time", "step")


@dataclass(frozen=True, kw_only=True)
class Row:
    """What a row is about, and a value for each run."""

    label: str
    values: list[str]

    @property
    def differs(self) -> bool:
        return len(set(self.values)) > 1


@dataclass(frozen=True, kw_only=True)
class SettingRow(Row):
    """label: the dotted key."""

    default: str
    meaning: str

    @property
    def changed(self) -> bool:
        return any(value not in (self.default, NOTHING) for value in self.values)


def overview(histories: Sequence[History]) -> list[Row]:
    """How far, how fast, how large; rows of which nothing is known are left out."""
    facts: dict[str, Callable[[History], str]] = {
        "Step": _progress,
        "Training time": _training_time,
        "Speed (median)": lambda history: _median(history, "images_per_second", "images/s"),
        "Time a step (median)": lambda history: _median(history, "ms_step", "ms"),
        "Memory (peak)": _memory,
        "FID (best)": _best_fid,
        "Collapse alarm": _alarm,
        "Image size": lambda history: _size(history.settings.get("model.im_size")),
        "Training images": _images,
    }
    rows = [Row(label=label, values=[fact(history) for history in histories]) for label, fact in facts.items()]
    return [row for row in rows if set(row.values) != {NOTHING}]


def _progress(history: History) -> str:
    if history.step is None:
        return "no records yet"
    return f"{history.step:,}" + (f" of {history.steps:,}" if history.steps else "")


def _training_time(history: History) -> str:
    """Of the steps alone, without pauses and interruptions: each record holds the mean since the one before."""
    times = history.series.get("ms_step")
    if times is None:
        return NOTHING
    first = history.starts[0]["step"] if history.starts else 0
    seconds = float((times.values * np.diff(times.steps, prepend=min(first, times.steps[0]))).sum() / 1000)
    return str(timedelta(seconds=round(seconds)))


def _median(history: History, key: str, unit: str) -> str:
    series = history.series.get(key)
    return NOTHING if series is None else f"{number(float(np.median(series.values)))} {unit}"


def _memory(history: History) -> str:
    used, budget = history.series.get("memory_used_gib"), history.series.get(BUDGET)
    if used is None:
        return NOTHING
    return f"{used.values.max():.2f}" + (f" of {budget.values[-1]:.2f}" if budget else "") + " GiB"


def _best_fid(history: History) -> str:
    fid = history.series.get("fid")
    if fid is None:
        return NOTHING
    best = int(fid.values.argmin())
    return f"{number(fid.values[best])} at step {fid.steps[best]:,}"


def _alarm(history: History) -> str:
    alarm = history.series.get("collapse")
    rang = alarm.steps[alarm.values > 0].tolist() if alarm else []
    return f"rang {len(rang)} times, last at step {rang[-1]:,}" if rang else NOTHING


def _size(im_size: Any) -> str:
    return NOTHING if im_size is None else f"{im_size} × {im_size}"


def _images(history: History) -> str:
    return _text(history.starts[-1].get("images", NOTHING)) if history.starts else NOTHING


def setting_rows(histories: Sequence[History]) -> list[SettingRow]:
    """Every setting that one of the runs has, in the order of the schema, with this version's default."""
    if not any(history.settings for history in histories):
        return []
    kinds = dict.fromkeys(map(_kind, histories))
    defaults = {key: value for kind in kinds for key, value in kind().values().items()}
    fields = {key: field for kind in kinds for key, field in settings(kind).items()}
    keys = dict.fromkeys([*fields, *(key for history in histories for key in history.settings)])
    return [
        SettingRow(
            label=key,
            values=[_text(history.settings[key]) if key in history.settings else NOTHING for history in histories],
            default=_text(defaults[key]) if key in defaults else NOTHING,
            meaning=(fields[key].description or "") if key in fields else "unknown to this version",
        )
        for key in keys
    ]


def _kind(history: History) -> type[Root]:
    """Of the configuration that a run has."""
    return SingleConfig if any(key.startswith("single.") for key in history.settings) else Config


def environment_rows(histories: Sequence[History]) -> list[Row]:
    """Of each run's latest start."""
    latest = [history.starts[-1] if history.starts else {} for history in histories]
    keys = dict.fromkeys(key for start in latest for key in start if key not in NOT_SHOWN)
    return [
        Row(label=key.replace("_", " "), values=[_text(start.get(key, NOTHING)) for start in latest]) for key in keys
    ]


@dataclass(frozen=True)
class Evaluations:
    """What `evaluate` found of all runs: headings, and a row of cells for each time."""

    headings: list[str]
    rows: list[list[str]]


def evaluations_table(histories: Sequence[History]) -> Evaluations:
    """A column for each metric that was looked at; no rows where nothing was."""
    found = [(history.name, record, record.get("values")) for history in histories for record in history.evaluations]
    whole = [(name, record, values) for name, record, values in found if isinstance(values, dict)]
    metrics = [key for key in METRICS if any(key in values for _, _, values in whole)]
    headings = ["Run", "Step", "Samples", "Training images", *(METRICS[key].title for key in metrics)]
    return Evaluations(
        headings,
        [
            [
                name,
                *(_count(record.get(key)) for key in ("step", "count", "reals")),
                *(_metric(key, values.get(key)) for key in metrics),
            ]
            for name, record, values in whole
        ],
    )


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else NOTHING


def _metric(key: str, value: Any) -> str:
    return METRICS[key].text(value) if isinstance(value, int | float) else NOTHING


def start_times(history: History) -> list[str]:
    """When training started, and at which step."""
    return [f"{_when(start.get('time'))} at step {start['step']:,}" for start in history.starts]


def _when(seconds: Any) -> str:
    if not isinstance(seconds, int | float):
        return "at an unknown time"
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def _text(value: Any) -> str:
    """As the configuration file spells it."""
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value is None else str(value)
