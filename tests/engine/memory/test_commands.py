"""``plan`` and ``bench vram`` as a user calls them, on a small network."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from fastgan_engine.bench import vram
from fastgan_engine.cli import app
from fastgan_engine.errors import UserError
from fastgan_engine.hardware import Hardware
from fastgan_engine.memory import rehearsal, segments
from fastgan_engine.memory.phases import ITERATION, PHASES
from tests.engine.small import small_config

SMALL = [
    "--im-size", "64", "--set", "model.ngf=8", "--set", "model.ndf=8", "--set", "model.nz=16",
    "--set", "loss.reconstruction=l1",
]  # fmt: skip


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, [*arguments, *SMALL])
    if isinstance(result.exception, UserError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_plan_prints_tables_and_writes_json(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    output = run("plan", "--profile", "rtx2070", "--batch", "4", "--json", str(file))
    for text in (
        "RTX 2070",
        "saved activations",
        "G step: backward",
        "not yet run on a GPU",
        "of which PyTorch reserves",
    ):
        assert text in output
    values = json.loads(file.read_text())
    assert {"peak_gib", "phases", "categories", "largest"} <= values.keys()
    assert "fit" not in values


def test_fit_says_what_to_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = rehearsal.plan(small_config(), images=1)
    monkeypatch.setattr(rehearsal, "plan", lambda config, **_: made)
    file = tmp_path / "plan.json"
    output = run("plan", "--profile", "rtx2070", "--set", "engine.device=cpu", "--fit", "--json", str(file))
    assert "use: these settings as they are" in output
    fit = json.loads(file.read_text())["fit"]
    assert fit["settings"] == {}
    assert fit["largest_batch"]["as configured"] == 64
    assert fit["budget_gib"] == pytest.approx(7.6)


def test_fit_without_a_card_or_a_budget_is_refused() -> None:
    with pytest.raises(UserError, match=r"--profile.*--budget"):
        run("plan", "--fit")


def test_bench_vram_without_a_gpu_shows_and_draws_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastgan_engine.hardware.detect", lambda: Hardware(gpus=[], driver=None))
    json_file, plot = tmp_path / "vram.json", tmp_path / "vram.png"
    output = run("bench", "vram", "--compare", "reference,engine", "--json", str(json_file), "--plot", str(plot))
    assert "nothing was measured" in output
    values = json.loads(json_file.read_text())
    assert values["engine"]["measured"] is None
    assert set(values["reference"]["plan"]["phases"]) == set(PHASES)
    live = {name: values[name]["plan"]["phases"]["D step: D forward"]["live_gib"] for name in ("reference", "engine")}
    assert live["engine"] < live["reference"]
    with Image.open(plot) as picture:
        assert min(picture.size) > 500


def test_a_contender_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UserError, match="cannot compare 'rival'"):
        run("bench", "vram", "--compare", "rival")


def test_expandable_segments_leave_a_users_setting_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in segments.VARIABLES:
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)
    segments.use_expandable_segments()
    assert [segments.os.environ[v] for v in segments.VARIABLES] == ["expandable_segments:True"] * 2
    monkeypatch.setenv(segments.VARIABLES[1], "max_split_size_mb:64")
    monkeypatch.delenv(segments.VARIABLES[0])
    segments.use_expandable_segments()
    assert segments.VARIABLES[0] not in segments.os.environ


@pytest.mark.gpu
def test_the_plan_is_within_a_tenth_of_what_is_reserved() -> None:
    """On the card that is here, its phases in order, at a size where constants do not decide."""
    config = small_config(
        model={"im_size": 256, "ngf": 64, "ndf": 64, "nz": 256}, train={"batch": 8},
        loss={"reconstruction": "lpips-vgg"}, engine={"device": "cuda"},
    )  # fmt: skip
    dtype = torch.bfloat16
    planned = vram.plan_contender("engine", config, images=1, card=None)
    measured = vram.measure_contender("engine", config, torch.device("cuda"), dtype)
    assert set(ITERATION) <= measured.phases.keys()
    assert planned.reserved == pytest.approx(measured.reserved, rel=0.1)
