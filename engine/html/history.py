"""What a run's folder tells of its course: the settings, the logged series, where it ran, its pictures."""

import math
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastgan_engine.errors import UserError
from fastgan_engine.run_folder import RunFolder
from fastgan_engine.run_log import read_records

NOT_SERIES = ("time", "step", "steps", "seconds_left", "eval_count")
EVALUATION = re.compile(r"(metrics?|eval|evaluation)[._/]")
"""What may stand before a metric's name."""


@dataclass(frozen=True)
class Series:
    """One logged quantity. steps: int64 [N], rising; values: float64 [N], finite."""

    steps: np.ndarray
    values: np.ndarray


@dataclass(frozen=True, kw_only=True)
class History:
    """One run as its folder tells it; what is missing or damaged there is missing here.

    settings: as saved, by dotted key. series: by the key of the log. starts: one record for each start of training.
    evaluations: one record for each time that `evaluate` looked at it.
    step, steps: where it is, and where it is to end; None before the first record.
    """

    name: str
    folder: RunFolder
    settings: dict[str, Any]
    series: dict[str, Series]
    starts: list[dict[str, Any]]
    evaluations: list[dict[str, Any]]
    step: int | None
    steps: int | None


def read_histories(folders: Sequence[Path]) -> list[History]:
    """The runs in these folders, named so that they can be told apart; one given twice is read once.

    Raises:
        UserError: one of them is no run.
    """
    paths = list(dict.fromkeys(folder.absolute() for folder in folders))
    return [_read_history(RunFolder(path), name) for path, name in zip(paths, _names(paths), strict=True)]


def _read_history(folder: RunFolder, name: str) -> History:
    if not folder.path.is_dir():
        raise UserError(f"{folder.path} is no folder; give the folder of a run")
    if not (folder.config.is_file() or folder.log.is_file()):
        raise UserError(f"{folder.path} is no run: it has neither {folder.config.name} nor {folder.log.name}")
    records = list(read_records(folder.log))
    return History(
        name=name,
        folder=folder,
        settings=_settings(folder.config),
        series=_series(records),
        starts=list(read_records(folder.environment)),
        evaluations=list(read_records(folder.evaluations)),
        step=max((record["step"] for record in records), default=None),
        steps=next((record["steps"] for record in reversed(records) if "steps" in record), None),
    )


def _names(paths: Sequence[Path]) -> list[str]:
    """The folders' own names, with as many of their parents as it takes to tell them apart."""
    names = [path.name for path in paths]
    for depth in range(2, max(len(path.parts) for path in paths) + 1):
        if len(set(names)) == len(names):
            break
        names = ["/".join(path.parts[-depth:]) for path in paths]
    return names


def _settings(path: Path) -> dict[str, Any]:
    """Read as plain TOML, so that a run of an older or newer version can be shown too."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return dict(_flatten(table))


def _series(records: Sequence[dict[str, Any]]) -> dict[str, Series]:
    """Every number of the records, also of nested objects, as a series (true: 1); what is not finite leaves a gap."""
    points: dict[str, dict[int, float]] = {}
    for record in records:
        for key, value in _flatten(record):
            if isinstance(value, int | float) and key not in NOT_SERIES and math.isfinite(value):
                points.setdefault(EVALUATION.sub("", key, count=1), {})[record["step"]] = float(value)
    return {key: _as_series(found) for key, found in points.items()}


def _as_series(points: dict[int, float]) -> Series:
    steps = sorted(points)
    return Series(np.array(steps, dtype=np.int64), np.array([points[step] for step in steps]))


def _flatten(table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
