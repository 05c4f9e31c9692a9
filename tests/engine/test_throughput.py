"""The throughput benchmark: who takes part, what is timed, what is written."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from fastgan_engine.bench import throughput
from fastgan_engine.bench.contenders import CONTENDERS, Engine, Reference
from fastgan_engine.cli import app
from fastgan_engine.config import Config, resolve
from fastgan_engine.errors import UserError

TINY = {
    "model.im_size": 64, "model.ngf": 8, "model.ndf": 8, "model.nz": 16, "train.batch": 2,
    "loss.reconstruction": "l1", "engine.device": "cpu", "precision.dtype": "fp32",
}  # fmt: skip


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


def test_an_unknown_contender_is_refused_by_name() -> None:
    result = CliRunner().invoke(app, ["bench", "throughput", "--compare", "engine,tensorflow"])
    assert isinstance(result.exception, UserError)
    assert "tensorflow" in str(result.exception)
    assert "reference, compile, engine" in str(result.exception)
