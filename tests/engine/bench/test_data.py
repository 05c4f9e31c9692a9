"""``bench data``: what is measured of each mode, and what is said where one does not run."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from fastgan_engine.bench import data, data_report, throughput
from fastgan_engine.cli import app
from fastgan_engine.errors import UserError
from fastgan_engine.sources import Source
from tests.engine.small import BATCH, small_config

CPU = torch.device("cpu")
CONFIG = small_config()


class SlowSource(Source):
    """A batch is ready ``interval`` s after the one before was taken, as from a stream that makes one ahead."""

    reason = "slow"

    def __init__(self, interval: float) -> None:
        self.interval, self.ready = interval, time.perf_counter() + interval

    def fetch(self) -> None:
        time.sleep(max(0.0, self.ready - time.perf_counter()))
        self.ready = time.perf_counter() + self.interval

    def reals(self) -> torch.Tensor:
        return torch.zeros(())


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "SECONDS", 0.02)


def test_the_rate_is_that_of_the_source_and_the_wait_what_a_step_leaves_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "open_source", lambda *_, **__: SlowSource(0.02))
    slow = data.deliver(CONFIG, None, "host", step_ms=5.0)  # type: ignore[arg-type]
    assert slow.images_per_second == pytest.approx(BATCH / 0.02, rel=0.3)
    assert slow.wait_ms == pytest.approx(15.0, abs=6.0)
    assert not slow.reaches(5.0)
    hidden = data.deliver(CONFIG, None, "host", step_ms=40.0)  # type: ignore[arg-type]
    assert hidden.wait_ms is not None
    assert hidden.wait_ms < 5.0


@pytest.mark.parametrize(("wait", "reaches"), [(None, False), (0.99, True), (1.01, False)])
def test_the_goal_is_a_hundredth_of_the_step(wait: float | None, reaches: bool) -> None:
    assert data.Delivery("host", "", 1.0, wait).reaches(100.0) is reaches


def run(*arguments: str) -> str:
    sets = [f"--set=model.{key}={value}" for key, value in {"ngf": 8, "ndf": 8}.items()]
    result = CliRunner().invoke(app, ["bench", "data", "--device", "cpu", "--batch", "2", *sets, *arguments])
    if isinstance(result.exception, UserError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_every_mode_is_measured_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plots: list[dict[str, Any]] = []
    monkeypatch.setattr(data_report, "bar_plot", lambda path, **what: plots.append(what))
    files = ["--json", str(tmp_path / "d.json"), "--plot", str(tmp_path / "d.png")]
    output = run("--im-size", "64", "--step-ms", "20", *files)
    found = json.loads((tmp_path / "d.json").read_text())
    assert found["needed_images_per_second"] == pytest.approx(100.0)
    assert list(found["modes"]) == list(data.MODES) == list(plots[0]["series"])
    for mode, values in found["modes"].items():
        if "images_per_second" in values:  # DALI is not everywhere
            assert values["under_goal"] == (values["wait_ms"] <= 0.2)
            assert f"{values['wait_ms']:.2f}" in output
        else:
            assert mode == "dali"
    assert "resident on cpu" in found["modes"]["resident"]["reason"]
    assert "host memory" in found["modes"]["host"]["reason"]
    assert plots[0]["marks"] == [(pytest.approx(100.0), "needed by a step")]


def test_a_mode_that_does_not_run_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ImportError("no DALI on this planet")

    monkeypatch.setattr("fastgan_engine.pipelines.dali_stream.DaliStream", broken)
    assert "no DALI on this planet" in " ".join(run("--im-size", "64", "--step-ms", "20", "--modes", "dali").split())


def test_the_step_is_measured_where_no_time_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throughput, "engine_step_ms", lambda config, iterations: 12.5)
    assert "a step of 12.5 ms (measured here)" in " ".join(run("--im-size", "64", "--modes", "host").split())


def test_an_unknown_mode_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"cannot measure 'cloud'; known are resident, host, dali, pillow"):
        run("--modes", "cloud")
