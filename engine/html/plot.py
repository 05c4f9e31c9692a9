"""The geometry of a line plot: series in few points, limits, ticks, SVG paths.

A plot is an SVG without any text, stretched to the width it is given; its ticks are HTML beside it, so that letters
keep their size on a phone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fastgan_engine.html.history import Series

WIDTH, HEIGHT = 1000, 300  # of the SVG's coordinates
POINTS = 150
DOTTED_BELOW = 25  # so few records are single events, such as evaluations: each gets a dot


@dataclass(frozen=True)
class Curve:
    """A series in at most ``POINTS`` points, each the mean of some neighbouring records, with their range.

    steps: the last step of each point. records: how many a point stands for.
    """

    steps: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    records: int


@dataclass(frozen=True)
class Axis:
    """From ``low`` to ``high``, with ticks at ``ticks``."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def share(self, value: float) -> float:
        """0 at the low end, 1 at the high one."""
        return (value - self.low) / (self.high - self.low)


def summarise(series: Series) -> Curve:
    """Means over equally many records, of long series: legible, and no larger for a longer run."""
    count = len(series.steps)
    points = count if count < POINTS / 2 else min(max(count // 4, POINTS // 3), POINTS)
    parts = np.array_split(np.arange(count), points)
    values = [series.values[part] for part in parts]
    return Curve(
        steps=np.array([series.steps[part[-1]] for part in parts]),
        mean=np.array([value.mean() for value in values]),
        low=np.array([value.min() for value in values]),
        high=np.array([value.max() for value in values]),
        records=math.ceil(count / points),
    )


def step_axis(curves: Sequence[Curve]) -> Axis:
    """Over all steps of the curves."""
    first, last = min(int(curve.steps[0]) for curve in curves), max(int(curve.steps[-1]) for curve in curves)
    return Axis(first, max(last, first + 1), _ticks(first, last, 6))


def value_axis(curves: Sequence[Curve], *, zero: bool, reach: float | None = None) -> Axis:
    """Over the curves' means; single peaks far above (below) the rest do not squeeze the rest.

    zero: starts at 0 where nothing is negative. reach: goes up to there at least.
    """
    values = np.concatenate([curve.mean for curve in curves])
    bottom, top = np.quantile(values, [0.05, 0.95])
    low, high = max(values.min(), 2 * bottom - top), min(values.max(), 2 * top - bottom)
    low, high = float(low), float(high if reach is None else max(high, reach))
    if zero and low >= 0:
        low = 0.0
    if not high > low:  # a constant
        low, high = low - (abs(low) / 10 or 1), high + (abs(high) / 10 or 1)
    ticks = _ticks(low, high, 5)
    margin = (high - low) * 0.04
    return Axis(low if zero and low == 0 else low - margin, high + margin, ticks)


def _ticks(low: float, high: float, most: int) -> tuple[float, ...]:
    """Round numbers in [low, high]: multiples of 1, 2 or 5 times a power of ten, at most ``most`` + 1."""
    if not high > low:
        return (low,)
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(power * factor for factor in (1, 2, 5, 10, 20) if (high - low) / (power * factor) <= most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return tuple(round(index * step, 12) for index in range(first, last + 1))


def line_path(curve: Curve, x: Axis, y: Axis) -> str:
    """SVG path of the means."""
    return _polyline(curve.steps, curve.mean, x, y)


def band_path(curve: Curve, x: Axis, y: Axis) -> str:
    """SVG path around the range of the records; empty where each point is one record."""
    if curve.records == 1:
        return ""
    there = _polyline(curve.steps, curve.high, x, y)
    back = _polyline(curve.steps[::-1], curve.low[::-1], x, y)
    return f"{there}L{back[1:]}Z"


def dots_path(curve: Curve, x: Axis, y: Axis) -> str:
    """SVG path of a line of no length at each point, which round line caps turn into dots."""
    if len(curve.steps) > DOTTED_BELOW:
        return ""
    return "".join(f"M{point}h0" for point in _points(curve.steps, curve.mean, x, y))


def _polyline(steps: np.ndarray, values: np.ndarray, x: Axis, y: Axis) -> str:
    return "M" + "L".join(_points(steps, values, x, y))


def _points(steps: np.ndarray, values: np.ndarray, x: Axis, y: Axis) -> list[str]:
    pairs = zip(steps, values, strict=True)
    return [f"{x.share(step) * WIDTH:.1f} {(1 - y.share(value)) * HEIGHT:.1f}" for step, value in pairs]


def number(value: float) -> str:
    """At most four significant digits, thousands with commas."""
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e7:
        return f"{value:.3g}"
    decimals = max(0, 3 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if decimals else text
