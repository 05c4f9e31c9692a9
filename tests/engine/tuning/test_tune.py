"""``profiles tune``: what it takes from what it measured, and that its profile trains."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from fastgan_engine import profiles
from fastgan_engine.bench.data import Delivery
from fastgan_engine.build import build_loss, build_state, build_step
from fastgan_engine.cli import app
from fastgan_engine.config import Config, resolve
from fastgan_engine.errors import UserError
from fastgan_engine.kernels.up_conv import REFERENCE_FROM
from fastgan_engine.step import EngineStep
from fastgan_engine.tuning import trials, tune, up_convs
from fastgan_engine.tuning.trials import Effort, Trial
from tests.engine.small import small_config

# ms of a step by what is decided on; anything else takes 100.
MS = {("precision.dtype", "bf16"): 50.0, ("engine.threads", 1): 98.0, ("train.batch", 16): 180.0}
EFFORT = Effort(seconds=60, iterations=1, trial_seconds=1)


def layer(pixels: int, direct: float, transposed: float, count: int = 1) -> up_convs.Layer:
    return up_convs.Layer(up_convs.Shape((1, 1, 1, pixels), 1), count, direct, transposed)


LAYERS = [layer(128, 1.0, 3.0), layer(512, 2.0, 2.5), layer(2048, 9.0, 4.0)]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with four cores on which everything takes what the tables above say."""

    def step_ms(config: Config, iterations: int, *, seconds: float = 0) -> float:
        values = config.values()
        return 100.0 * min([ms / 100 for (key, value), ms in MS.items() if values[key] == value], default=1.0)

    monkeypatch.setattr(trials, "engine_step_ms", step_ms)
    monkeypatch.setattr(tune.os, "cpu_count", lambda: 4)
    monkeypatch.setattr(up_convs, "measure", lambda config, repeats: LAYERS)
    waits = {1: 5.0, 2: 0.3, 4: 0.2}
    monkeypatch.setattr(tune, "deliver", lambda config, *_: Delivery("pillow", "", 900.0, waits[config.data.workers]))


def search(effort: Effort = EFFORT) -> tuple[tune.Tuned, list[Trial]]:
    told: list[Trial] = []
    return tune.Search(small_config(precision={"dtype": "fp32"}), None, effort, told.append).run(), told  # type: ignore[arg-type]


@pytest.mark.usefixtures("measured")
def test_the_fastest_is_taken_where_it_wins_by_more_than_noise() -> None:
    found, told = search()
    assert found.settings["precision.dtype"] == "bf16"
    assert found.settings["train.batch"] == 2  # the recipe's
    assert found.settings["data.workers"] == 2  # the fewest that keep up
    assert found.settings["engine.transposed_from"] == 2048
    assert found.trials == told
    assert {trial.axis for trial in told} == {"start", "precision", "threads", "up_conv", "batch", "workers"}
    assert "bf16 40" in found.reasons["precision.dtype"]


@pytest.mark.usefixtures("measured")
def test_a_gain_within_the_noise_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MS, ("precision.dtype", "bf16"), 99.0)
    found, _ = search()
    assert found.settings["precision.dtype"] == "fp32"


@pytest.mark.usefixtures("measured")
def test_what_was_timed_while_the_machine_was_busy_is_timed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    measured, calls = trials.engine_step_ms, []

    def busy_at_first(config: Config, iterations: int, *, seconds: float = 0) -> float:
        calls.append(config)
        return 10 * measured(config, iterations, seconds=seconds) if len(calls) == 1 else 70.0

    monkeypatch.setattr(trials, "engine_step_ms", busy_at_first)
    found, _ = search()
    before = small_config(precision={"dtype": "fp32"}).values()
    for key in ("engine.threads", "precision.dtype"):
        assert found.settings[key] == before[key]


@pytest.mark.usefixtures("measured")
def test_every_axis_has_its_share_however_slow_the_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock on which a trial takes 12 s of 90: before, batch and workers were left without."""
    clock = [0.0]
    measured = trials.engine_step_ms

    def slow(config: Config, iterations: int, *, seconds: float = 0) -> float:
        clock[0] += 12
        return measured(config, iterations, seconds=seconds)

    monkeypatch.setattr(trials, "engine_step_ms", slow)
    monkeypatch.setattr(tune.time, "perf_counter", lambda: clock[0])
    _, told = search(Effort(seconds=90, iterations=1, trial_seconds=4))
    tried = {trial.axis for trial in told if trial.note != tune.NO_TIME}
    assert tried == {"start", "precision", "threads", "up_conv", "batch", "workers"}
    assert clock[0] <= 90 + 12


@pytest.mark.usefixtures("measured")
def test_where_no_number_of_workers_keeps_up_the_one_that_waits_least_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "deliver", lambda config, *_: Delivery("pillow", "", 9.0, 90.0 / config.data.workers))
    found, _ = search()
    assert found.settings["data.workers"] == 4
    assert "no number of threads" in found.reasons["data.workers"]


@pytest.mark.usefixtures("measured")
def test_nothing_is_begun_after_the_time_is_over() -> None:
    found, told = search(Effort(seconds=0, iterations=1, trial_seconds=1))
    assert {trial.note for trial in told} == {tune.NO_TIME}
    assert set(found.settings) == {"train.batch"}


def test_what_fails_is_noted_and_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> float:
        raise RuntimeError("out of memory\nand more")

    monkeypatch.setattr(trials, "engine_step_ms", fail)
    trial = trials.try_step("batch", "16", {}, small_config(), EFFORT)
    assert (trial.images_per_second, trial.note) == (None, "failed: out of memory")


def test_the_rule_takes_least_time_in_all() -> None:
    assert up_convs.best_rule(LAYERS, 256) == 2048
    assert up_convs.best_rule([layer(128, 1, 3), layer(512, 3, 2), layer(2048, 9, 4)], 256) == 256
    assert up_convs.best_rule([layer(64, 1, 9), layer(4096, 1, 9)], 256) == 4097  # never
    assert up_convs.best_rule([layer(64, 9, 1), layer(4096, 9, 1)], 256) == 64  # always


def test_every_up_convolution_of_a_step_is_timed() -> None:
    config = small_config(precision={"dtype": "fp32"})
    found = up_convs.measure(config, 1)
    # At 64, batch 2: G's blocks of 8, 16, 32 and 64, each run once, and three decoders from 8 x 8 to 32 x 32.
    pixels = [one.pixels for one in found for _ in range(one.count)]
    assert sorted(pixels) == sorted([2 * side**2 for side in (4, 8, 16, 32)] + 3 * [2 * 8**2, 2 * 16**2])
    assert all(one.direct > 0 and one.transposed > 0 for one in found)


@pytest.mark.parametrize(("rule", "transposed"), [(None, 8), (1 << 30, 0), (1, 10), (2 * 16**2, 5)])
def test_the_rule_of_a_configuration_is_what_the_step_goes_by(rule: int | None, transposed: int) -> None:
    """At 64, batch 2: G's blocks from 4, 8, 16 and 32, and three decoders from 8 and 16; from 256 pixels by default."""
    config = small_config(engine={"transposed_from": rule})
    state = build_state(config, torch.device("cpu"), torch.float32)
    step = build_step(config, state, build_loss(config), torch.float32)
    assert isinstance(step, EngineStep)
    chosen = [*step.weights_g.transposed, *step.weights_d.transposed]
    expected = [p for p in [2 * side**2 for side in (4, 8, 16, 32, *3 * (8, 16))] if p >= (rule or REFERENCE_FROM)]
    assert len(chosen) == len(expected) == (transposed if rule else len(expected))
    weights = step.weights_g.ready(grad=False)
    assert {
        name for name, w in weights.items() if name.endswith(".1") and w.shape[-1] == 4
    } >= step.weights_g.transposed


@pytest.mark.usefixtures("measured")
def test_the_profile_that_is_written_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(
        app, ["profiles", "tune", "--profile", "cpu", "--quick", "--out", "my.toml", "--set", "train.lr=1e-3"]
    )
    assert result.exit_code == 0, result.output + str(result.exception)
    config = resolve("my.toml")
    assert (config.train.lr, config.precision.dtype, config.engine.transposed_from) == (1e-3, "bf16", 2048)
    assert config.model.ngf == profiles.load("cpu")["model"]["ngf"]
    assert "fp32 80, bf16 160" in profiles.reasons("my.toml")["precision.dtype"]
    dry = CliRunner().invoke(app, ["train", "--profile", "my.toml", "--dry-run"])
    assert tomllib.loads(dry.output)["engine"]["transposed_from"] == 2048
    again = CliRunner().invoke(app, ["profiles", "tune", "--out", "my.toml"])
    assert isinstance(again.exception, UserError)
    shown = CliRunner().invoke(app, ["profiles", "show", "my.toml"])
    assert "transposed_from" in shown.output


def test_a_profile_is_named_toml() -> None:
    result = CliRunner().invoke(app, ["profiles", "tune", "--out", "my.txt"])
    assert "expected a name that ends in .toml" in str(result.exception)
