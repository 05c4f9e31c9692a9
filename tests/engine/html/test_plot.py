"""Geometry of the plots: what is summarised, where the axes end, what the paths say."""

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgan_engine.html.history import Series
from fastgan_engine.html.plot import (
    HEIGHT,
    POINTS,
    WIDTH,
    Axis,
    band_path,
    dots_path,
    line_path,
    number,
    step_axis,
    summarise,
    value_axis,
)  # fmt: skip


def series(values: object, tick: int = 10) -> Series:
    values = np.asarray(values, dtype=float)
    return Series(np.arange(1, len(values) + 1) * tick, values)


@pytest.mark.parametrize("count", [1, 2, 74, 75, 600, 5_003])
def test_few_points_that_still_hold_every_record(count: int) -> None:
    values = np.random.default_rng(count).normal(size=count)
    curve = summarise(series(values))
    assert len(curve.steps) <= POINTS
    assert curve.steps[-1] == count * 10
    assert (curve.low.min(), curve.high.max()) == (values.min(), values.max())
    assert (curve.low <= curve.mean).all()
    assert (curve.mean <= curve.high).all()
    if count < 75:  # as it was logged
        assert curve.mean.tolist() == values.tolist()
        assert curve.records == 1
    else:
        assert curve.records >= 2
    if count == 600:  # 150 points of 4 records
        np.testing.assert_allclose(curve.mean, values.reshape(150, 4).mean(1))


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40), st.booleans())
def test_axes_hold_their_ticks(values: list[float], zero: bool) -> None:
    curve = summarise(series(values))
    for axis in (value_axis([curve], zero=zero), step_axis([curve])):
        assert axis.low < axis.high
        assert all(axis.low - 1e-9 <= tick <= axis.high + 1e-9 for tick in axis.ticks)
        assert len(axis.ticks) <= 7


def test_ticks_are_round() -> None:
    axis = value_axis([summarise(series([0.0, 0.93]))], zero=True)
    assert axis.low == 0
    assert axis.ticks == (0, 0.2, 0.4, 0.6, 0.8)
    assert step_axis([summarise(series(np.zeros(100), tick=500))]).ticks == (10_000, 20_000, 30_000, 40_000, 50_000)


def test_one_peak_does_not_squeeze_the_rest() -> None:
    values = [300.0] * 20 + [310.0] * 20
    values[0] = 90_000.0  # a first step that compiles
    assert value_axis([summarise(series(values))], zero=True).high < 400


def test_paths_lie_where_the_values_do() -> None:
    curve = summarise(series([1.0, 3.0, 2.0]))
    path = line_path(curve, Axis(10, 30, ()), Axis(1, 3, ()))
    points = [tuple(map(float, point.split())) for point in re.split("[ML]", path)[1:]]
    assert points == [(0, HEIGHT), (WIDTH / 2, 0), (WIDTH, HEIGHT / 2)]
    assert band_path(curve, Axis(10, 30, ()), Axis(1, 3, ())) == ""
    assert dots_path(curve, Axis(10, 30, ()), Axis(1, 3, ())).count("M") == 3


def test_the_band_goes_there_along_the_peaks_and_back_along_the_lows() -> None:
    curve = summarise(series([0.0, 1.0] * 100))  # 50 points of 4 records
    path = band_path(curve, Axis(40, 2000, ()), Axis(0, 1, ()))
    heights = [float(point.split()[1]) for point in re.split("[ML]", path.rstrip("Z"))[1:]]
    assert heights == [0] * 50 + [HEIGHT] * 50
    assert dots_path(curve, Axis(40, 2000, ()), Axis(0, 1, ())) == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.68513, "0.6851"), (-0.5, "-0.5"), (12_345.6, "12,346"), (65_536, "65,536"), (40.0, "40"),
     (100, "100"), (2.0**40, "1.1e+12"), (0.00001, "1e-05")],
)  # fmt: skip
def test_numbers(value: float, text: str) -> None:
    assert number(value) == text


@given(st.floats(1e-3, 1e6))
def test_numbers_keep_three_digits(value: float) -> None:
    assert math.isclose(float(number(value).replace(",", "")), value, rel_tol=5e-4)
