"""The paper's table 1 as a command: what is counted, extrapolated and printed beside the paper's figures."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fastgan_engine.bench import paper, table1, table1_report, throughput
from fastgan_engine.bench.table1 import Measured, parameters
from fastgan_engine.bench.throughput import Timing
from fastgan_engine.cli import app
from fastgan_engine.config import resolve

TINY = [
    "model.ngf=8", "model.ndf=8", "model.nz=16", "train.batch=2", "loss.reconstruction=l1",
    "precision.dtype=fp32", "engine.device=cpu",
]  # fmt: skip
SETS = [part for text in TINY for part in ("--set", text)]
# 36 ms a step are 0.1 h for 10,000 steps.
TIMING = Timing(setup=0.0, first=9.0, peak_gib=None, each=[36.0, 10.0, 50.0])


@pytest.mark.parametrize("size", [256, 1024])
def test_full_model_has_the_parameters_of_the_released_code(size: int) -> None:
    full = parameters(resolve(flags={"model.im_size": size} | paper.VARIANTS[paper.FULL]))
    assert full.total / 1e6 == pytest.approx(paper.PARAMETERS_RELEASED[size], abs=6e-4)
    baseline = parameters(resolve(flags={"model.im_size": size} | paper.VARIANTS[paper.BASELINE]))
    assert baseline.decoders == 0
    assert baseline.generator < full.generator
    assert baseline.discriminator < full.discriminator


def test_hours_are_extrapolated_from_the_median() -> None:
    assert Measured(TIMING, planned_gib=1.0).hours == pytest.approx(0.1)


def test_command_measures_both_models(tmp_path: Path) -> None:
    file = tmp_path / "t.json"
    arguments = ["--im-size", "64", "--iterations", "1", "--json", str(file)]
    result = CliRunner().invoke(app, ["bench", "table1", *arguments, *SETS])
    assert result.exit_code == 0, result.output
    found = json.loads(file.read_text())
    assert set(found["models"]) == {"baseline", "full"}
    for model in found["models"].values():
        measured = model["measured"]["engine"]
        assert measured["hours_for_10k_extrapolated"] == pytest.approx(measured["ms"] / 360, rel=1e-9)
        assert measured["planned_gib"] > 0
        assert measured["peak_gib"] is None
    assert (
        found["models"]["baseline"]["parameters"]["decoders"] == 0 < found["models"]["full"]["parameters"]["decoders"]
    )
    assert "extrapolated" in result.output
    assert "no figures for 64 x 64" in result.output


def test_papers_figures_stand_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[dict[str, Any]] = []
    monkeypatch.setattr(throughput, "compare", lambda config, names, iterations: dict.fromkeys(names, TIMING))
    monkeypatch.setattr(table1_report, "bar_plot", lambda path, **what: drawn.append(what))
    monkeypatch.setattr(table1, "plan_contender", lambda *a, **k: type("P", (), {"reserved": 2**30}))
    result = CliRunner().invoke(app, ["bench", "table1", *SETS, "--plot", str(tmp_path / "t.png")])
    assert result.exit_code == 0, result.output
    for figure in ("6.5 GB", "36 GB", "47.363", "40.705", "1024 x 1024"):
        assert figure in result.output
    assert drawn[0]["groups"] == ["256 x 256", "1024 x 1024"]
    hours = {title: [bar.value for bar in bars] for title, bars in drawn[0]["series"].items()}
    assert hours["full, paper, RTX 2080 Ti"] == [1, 1.7]
    assert hours["full, engine, here"] == pytest.approx([0.1, 0.1])


def test_unknown_contender_is_refused() -> None:
    result = CliRunner().invoke(app, ["bench", "table1", "--compare", "stylegan"])
    assert "cannot compare 'stylegan'" in str(result.exception)
