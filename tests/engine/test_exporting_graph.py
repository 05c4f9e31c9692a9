"""ONNX and torch.export archives: read back by their own libraries, compared with the generator."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from typer.testing import CliRunner

from fastgan_engine import exporting_graph
from fastgan_engine.api import Run, load_run
from fastgan_engine.cli import app
from fastgan_engine.errors import UserError
from fastgan_engine.exporting_graph import export_archive, export_onnx
from fastgan_engine.folding_speed import BATCHES, measure
from fastgan_engine.sampling import draw_inputs
from fastgan_engine.snapshot import save_snapshot
from tests.engine.small import small_config
from tests.engine.weights import trained

STEP = 70


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder as far as exporting looks at it."""
    folder = tmp_path_factory.mktemp("run")
    networks = trained(nz=8)
    (folder / "config.toml").write_text(small_config(data={"path": "/secret/photos"}, train={"lr": 1e-4}).to_toml())
    save_snapshot(folder / "snapshots" / f"step-{STEP:07d}.safetensors", networks.generator.eval(), step=STEP)
    return folder


@pytest.fixture(scope="module")
def opened(source: Path) -> Run:
    return load_run(source)


def export(*arguments: object) -> str:
    return CliRunner().invoke(app, ["export", *map(str, arguments)], catch_exceptions=False).output


@torch.no_grad()
def test_onnx_with_noise_gives_the_engines_images(source: Path, opened: Run, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    output = export(source, tmp_path / "g.onnx", "--noise", "input")
    assert "its images equal the engine's within" in " ".join(output.split())
    session = runtime.InferenceSession(tmp_path / "g.onnx", providers=["CPUExecutionProvider"])
    assert [entry.name for entry in session.get_inputs()] == ["z", "noise_8_1", "noise_8_2", "noise_32_1", "noise_32_2"]
    for count in (1, 5):  # any batch
        z, noise = draw_inputs(opened.generator, 3, range(count))
        maps = {f"noise_{size}_{i}": pair[i - 1].numpy() for size, pair in noise.items() for i in (1, 2)}
        (made,) = session.run(None, {"z": z.numpy(), **maps})
        np.testing.assert_allclose(made, opened.generator(z, noise)[0].numpy(), atol=1e-5)
    card = session.get_modelmeta().custom_metadata_map
    assert (card["training_step"], card["image_size"]) == (str(STEP), "64")
    assert "noise_SIZE_1" in card["noise"]
    assert json.loads(card["settings"])["train.lr"] == 1e-4
    assert "secret" not in str(card)


@torch.no_grad()
def test_onnx_without_noise(opened: Run, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    assert export_onnx(opened, tmp_path / "g.onnx") < 1e-5
    session = runtime.InferenceSession(tmp_path / "g.onnx", providers=["CPUExecutionProvider"])
    z = torch.randn(4, 8)
    silent = {size: (torch.zeros(4, 1, size, size),) * 2 for size in opened.generator.noise_sizes()}
    (made,) = session.run(["image"], {"z": z.numpy()})
    np.testing.assert_allclose(made, opened.generator(z, silent)[0].numpy(), atol=1e-5)
    kinds = {node.op_type for node in onnx.load(tmp_path / "g.onnx").graph.node}
    assert not kinds & {"BatchNormalization", "RandomNormal", "RandomNormalLike", "Div"}
    assert [file.name for file in tmp_path.iterdir()] == ["g.onnx"]  # no second file with the weights


@torch.no_grad()
def test_archive(source: Path, opened: Run, tmp_path: Path) -> None:
    export(source, tmp_path / "g.pt2", "--noise", "input")
    files = {"card.json": ""}
    module = torch.export.load(tmp_path / "g.pt2", extra_files=files).module()
    z, noise = draw_inputs(opened.generator, 3, range(5))
    made = module(z, *(each for pair in noise.values() for each in pair))
    torch.testing.assert_close(made, opened.generator(z, noise)[0], rtol=0, atol=1e-5)
    assert json.loads(files["card.json"])["training_step"] == str(STEP)


def test_a_file_that_computes_something_else_is_not_left(
    opened: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(generator: torch.nn.Module) -> exporting_graph.FoldedGenerator:
        folded = real_fold(generator)
        folded.to_image.weight.mul_(1.5)
        return folded

    real_fold = exporting_graph.fold
    monkeypatch.setattr(exporting_graph, "fold", other)
    with pytest.raises(RuntimeError, match="makes other images than the engine: they differ by up to 0"):
        export_archive(opened, tmp_path / "g.pt2")
    assert not any(tmp_path.iterdir())


def test_the_card_of_a_snapshot(source: Path, tmp_path: Path) -> None:
    export(source, tmp_path / "g.safetensors")
    with safe_open(tmp_path / "g.safetensors", "pt") as file:
        card = file.metadata()
    assert card["source"] == f"{source.name}/snapshots/step-{STEP:07d}.safetensors"
    assert card["load"] == "fastgan_engine.load_run(FILE).generator(z)"
    assert card["input"] == "z: float32 [batch, 8], drawn from N(0, 1)"
    assert card["licence"]
    assert "data.path" not in card["settings"]


def test_a_missing_extra_is_named(opened: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match=r"pip install 'fastgan-engine\[onnx\]'"):
        export_onnx(opened, tmp_path / "g.onnx")


def test_measure(opened: Run) -> None:
    speeds = measure(opened.generator, seconds=0.1)
    assert [speed.batch for speed in speeds] == list(BATCHES)
    assert all(speed.before_ms > 0 and speed.folded_ms > 0 for speed in speeds)
