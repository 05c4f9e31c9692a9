"""``bench quality``: the same batches and seeds for all, and a distance that sees a difference."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from fastgan_engine.bench.contenders import Engine, Reference
from fastgan_engine.bench.quality import compare_quality
from fastgan_engine.cli import app
from fastgan_engine.pipelines import draw_demo, prepare
from tests.engine.small import small_config


def test_contenders_see_the_same_batches_and_begin_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_demo(tmp_path / "photos", count=4, size=64)
    images = prepare(tmp_path / "photos", tmp_path / "cache", im_size=64, warn=pytest.fail)
    seen: dict[str, list[torch.Tensor]] = {"reference": [], "engine": []}
    for name, kind in {"reference": Reference, "engine": Engine}.items():
        run = kind.run
        monkeypatch.setattr(
            kind, "run", lambda self, reals, name=name, run=run: (seen[name].append(reals.clone()), run(self, reals))[1]
        )
    config = small_config(train={"steps": 3, "lr": 1e-12}, precision={"dtype": "fp32"})
    found = list(compare_quality(config, images, ["reference", "engine"], every=2))
    assert [(name, point.step) for name, point in found] == [
        (name, step) for name in ("reference", "engine") for step in (0, 2, 3)
    ]
    assert all(torch.equal(a, b) for a, b in zip(seen["reference"], seen["engine"], strict=True))
    assert not torch.equal(seen["engine"][0], seen["engine"][1])
    by_name = {name: [point.distance for other, point in found if other == name] for name in seen}
    assert by_name["reference"] == pytest.approx(by_name["engine"], rel=1e-2)
    assert by_name["reference"][0] > 0.01


def test_the_command_writes_every_distance(tmp_path: Path) -> None:
    small = ["--set", "model.ngf=8", "--set", "model.ndf=8", "--set", "model.nz=16"]
    arguments = ["--quick", "--steps", "1", "--batch", "2", "--im-size", "64", "--device", "cpu", "--dtype", "fp32"]
    file = tmp_path / "q.json"
    result = CliRunner().invoke(
        app, ["bench", "quality", "--compare", "engine", *arguments, *small, "--json", str(file)]
    )
    assert result.exit_code == 0, result.output
    distances = json.loads(file.read_text())["distances"]["engine"]
    assert [point["step"] for point in distances] == [0, 1]
    assert all(point["distance"] > 0 for point in distances)
