"""The throughput benchmark: who takes part, what is timed, what is written."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from fastgan_engine.bench import plots, roofline, throughput, throughput_report
from fastgan_engine.bench.contenders import CONTENDERS, Engine, Reference
from fastgan_engine.bench.counting import Cost, Op
from fastgan_engine.cli import app
from fastgan_engine.config import Config, resolve
from fastgan_engine.errors import UserError

TINY = {
    "model.im_size": 64, "model.ngf": 8, "model.ndf": 8, "model.nz": 16, "train.batch": 2,
    "loss.reconstruction": "l1", "engine.device": "cpu", "precision.dtype": "fp32",
}  # fmt: skip


TIMING = throughput.Timing(setup=0.0, first=9.0, peak_gib=1.25, each=[5.0, 1.0, 4.0, 2.0, 3.0, 6.0])


@pytest.fixture(scope="module")
def config() -> Config:
    return resolve(flags=TINY)


def test_contenders_take_turns_and_start_from_the_same_weights(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    for name, kind in {"reference": Reference, "engine": Engine}.items():
        run = kind.run
        monkeypatch.setattr(
            kind, "run", lambda self, reals, name=name, run=run: (order.append(name), run(self, reals))[1]
        )
    timings = throughput.compare(config, ["reference", "engine"], iterations=2)
    assert order[-4:] == ["reference", "engine"] * 2
    assert [len(timing.each) for timing in timings.values()] == [2, 2]
    assert all(timing.median > 0 and timing.first > 0 and timing.peak_gib is None for timing in timings.values())
    cpu = torch.device("cpu")
    reference, engine = (CONTENDERS[name](config, cpu, torch.float32) for name in ("reference", "engine"))
    assert isinstance(reference, Reference)
    assert isinstance(engine, Engine)
    wanted = reference.step.networks.generator.state_dict()
    for key, value in engine.iterate.state.networks.generator.state_dict().items():  # type: ignore[union-attr]
        assert torch.equal(value, wanted[key]), key


def test_quantiles_are_those_of_the_times() -> None:
    timing = throughput.Timing(setup=0.0, first=9.0, peak_gib=None, each=[5.0, 1.0, 4.0, 2.0, 3.0, 6.0])
    assert timing.median == 3.5
    assert (timing.quantile(20), timing.quantile(80)) == (2.0, 5.0)


def test_json_has_the_ratio(tmp_path: Path) -> None:
    file = tmp_path / "b.json"
    sets = [part for key, value in TINY.items() for part in ("--set", f"{key}={value}")]
    result = CliRunner().invoke(app, ["bench", "throughput", "--iterations", "1", "--json", str(file), *sets])
    assert result.exit_code == 0, result.output
    figures = json.loads(file.read_text())
    assert figures["im_size"] == 64
    assert figures["batch"] == 2
    assert "cpu" in figures["device"]
    assert figures["speedup"] == pytest.approx(figures["reference"]["ms"] / figures["engine"]["ms"])
    assert f"{figures['speedup']:.2f} times as fast as reference" in result.output


def test_several_sizes_make_a_list_and_one_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[dict[str, Any]] = []
    monkeypatch.setattr(throughput_report, "bar_plot", lambda path, **what: drawn.append(what))
    monkeypatch.setattr(throughput, "compare", lambda config, names, iterations: dict.fromkeys(names, TIMING))
    arguments = ["--im-size", "64,128", "--im-size", "256", "--device", "cpu", "--dtype", "fp32"]
    files = ["--json", str(tmp_path / "b.json"), "--plot", str(tmp_path / "b.png")]
    result = CliRunner().invoke(app, ["bench", "throughput", *arguments, *files])
    assert result.exit_code == 0, result.output
    assert [one["im_size"] for one in json.loads((tmp_path / "b.json").read_text())] == [64, 128, 256]
    (plot,) = drawn
    assert plot["groups"] == ["64 x 64", "128 x 128", "256 x 256"]
    bar = plot["series"]["engine"][0]
    assert (bar.value, bar.low, bar.high, bar.label) == (3.5, 2.0, 5.0, "3.5\n1.2 GiB")


def test_a_plot_is_a_picture(tmp_path: Path) -> None:
    plots.bar_plot(
        tmp_path / "p.png", title="t", unit="ms", groups=["a", "b"],
        series={"x": [plots.Bar(1, "1", 0.5, 2), None], "y": [plots.Bar(2, "2"), plots.Bar(3, "3")]},
        marks=[(2.5, "needed"), None],
    )  # fmt: skip
    with Image.open(tmp_path / "p.png") as picture:
        assert len(picture.convert("RGB").getcolors(2**20) or []) > 10
        assert picture.width > 500


def test_the_limit_takes_the_longer_of_bytes_and_flop() -> None:
    counted = Cost([Op("mm", flop=4_000_000_000, bytes=1_000), Op("add", flop=0, bytes=3_000_000)])
    assert roofline.limit_ms(counted, roofline.Rates(tflops=2.0, gbs=1.0)) == pytest.approx(2.0 + 3.0)


def test_measured_rates_are_those_of_the_work_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "MATRIX", {"cpu": 32})
    monkeypatch.setattr(roofline, "COPY_BYTES", {"cpu": 1_000})
    monkeypatch.setattr(roofline, "_best_seconds", lambda work, device: (work(), 1e-6)[1])
    rates = roofline.measure_rates(torch.device("cpu"), torch.float32)
    assert rates.tflops == pytest.approx(2 * 32**3 / 1e6)
    assert rates.gbs == pytest.approx(2.0)


def test_roofline_says_how_far_a_step_is_from_the_limit(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = {"reference": Cost([Op("mm", 10**9, 10**6)]), "engine": Cost([Op("mm", 5 * 10**8, 10**6)])}
    monkeypatch.setattr(throughput_report, "cost", lambda config, who, dtype=None: counted[who])
    monkeypatch.setattr(throughput_report, "measure_rates", lambda device, dtype: roofline.Rates(1.0, 100.0))
    names = ["reference", "compile", "engine"]
    comparison = throughput_report.Comparison(
        config, dict.fromkeys(names, TIMING), throughput_report.find_limits(config, names)
    )
    values = throughput_report.as_json(comparison)
    assert values["reference"]["roofline"]["limit_ms"] == pytest.approx(1.0)
    assert values["reference"]["roofline"]["over_limit"] == pytest.approx(3.5)
    assert values["engine"]["roofline"]["tflops"] == pytest.approx(0.5e9 / 3.5e-3 / 1e12)
    assert values["compile"]["roofline"]["over_limit"] is None


def test_a_size_that_is_no_number_is_refused() -> None:
    result = CliRunner().invoke(app, ["bench", "throughput", "--im-size", "big"])
    assert "--im-size: got 'big'" in str(result.exception)


def test_an_unknown_contender_is_refused_by_name() -> None:
    result = CliRunner().invoke(app, ["bench", "throughput", "--compare", "engine,tensorflow"])
    assert isinstance(result.exception, UserError)
    assert "tensorflow" in str(result.exception)
    assert "reference, compile, engine" in str(result.exception)
