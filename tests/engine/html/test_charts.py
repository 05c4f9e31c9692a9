"""Which series come into which chart."""

from pathlib import Path

import pytest

from fastgan_engine.html.charts import Chart, make_charts
from fastgan_engine.html.history import read_histories

from .runs import write_run


def charts_of(*paths: Path) -> dict[str, Chart]:
    return {chart.title: chart for chart in make_charts(read_histories(paths))}


def test_groups_of_one_run(tmp_path: Path) -> None:
    charts = charts_of(write_run(tmp_path / "run").path)
    assert {title: [line.label for line in chart.lines] for title, chart in charts.items()} == {
        "Losses": ["D, real images", "D, generated images", "G"],
        "Reconstruction loss": ["D's decoders"],
        "Speed": ["images/s"],
        "Time a step": ["whole step", "D", "G", "wait for data"],
        "Memory": ["used (peak)", "reserved"],
    }
    assert [line.last for line in charts["Time a step"].lines] == ["200", "120", "79", "1"]
    assert len({line.colour for line in charts["Time a step"].lines}) == 4


def test_the_budget_is_a_line_that_lies_on_the_chart(tmp_path: Path) -> None:
    limit = charts_of(write_run(tmp_path / "run").path)["Memory"].limit
    assert limit is not None
    assert limit.label == "budget 8"
    assert 90 < limit.at < 100
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "log.jsonl").write_text('{"step": 1, "steps": 2, "memory_used_gib": 1.0}\n')
    assert charts_of(tmp_path / "cpu")["Memory"].limit is None


def test_evaluations_and_the_alarm(tmp_path: Path) -> None:
    more = {"eval_fid": 50.0, "eval_count": 1000, "eval_swd": 0.1, "diversity_ratio": 0.9, "diversity_swd": 0.2}
    charts = charts_of(write_run(tmp_path / "run", more=more | {"collapse": False}, settings=["eval.alarm=0.5"]).path)
    assert {"FID", "Sliced Wasserstein distance", "Diversity"} <= charts.keys()
    assert not {"eval count", "count", "Collapse alarm (1: it rang)"} & charts.keys()
    limit = charts["Diversity"].limit
    assert limit is not None
    assert limit.label == "alarm below 0.5"
    assert "Collapse alarm (1: it rang)" in charts_of(write_run(tmp_path / "b", more={"collapse": True}).path)


def test_unknown_series_get_charts_of_their_own(tmp_path: Path) -> None:
    charts = charts_of(write_run(tmp_path / "run", more={"skipped": 2, "new_figure": 1.0, "a": {"b": 2}}).path)
    assert {"new figure", "a: b", "Skipped steps"} <= charts.keys()


def test_several_runs_share_a_chart_for_each_series(tmp_path: Path) -> None:
    long, short = write_run(tmp_path / "long", records=40).path, write_run(tmp_path / "short", records=10).path
    charts = charts_of(long, short)
    assert "Losses: G" in charts
    assert "Losses" not in charts
    chart = charts["Reconstruction loss"]
    assert [line.label for line in chart.lines] == ["long", "short"]
    assert (chart.x.low, chart.x.high) == (10, 400)
    assert chart.lines[1].points[-1][0] == 100
    assert chart.rows[0] == ("10", ["6.667", "6.667"])
    assert chart.rows[-1][1][1] == "–"  # the short run has no value there


def test_a_run_keeps_its_colour_where_the_other_has_nothing(tmp_path: Path) -> None:
    without, evaluated = write_run(tmp_path / "a").path, write_run(tmp_path / "b", more={"fid": 50.0}).path
    charts = charts_of(without, evaluated)
    assert [line.colour for line in charts["Speed"].lines] == [0, 1]
    assert [(line.label, line.colour) for line in charts["FID"].lines] == [("b", 1)]


def test_the_table_holds_logged_values(tmp_path: Path) -> None:
    chart = charts_of(write_run(tmp_path / "run", records=400).path)["Reconstruction loss"]
    assert len(chart.rows) == 20
    for step, (value,) in chart.rows:
        assert float(value) == pytest.approx(8 / (1 + int(step.replace(",", "")) / 50), rel=1e-3)
