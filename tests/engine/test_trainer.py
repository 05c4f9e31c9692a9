"""Whole runs, small: what they write, how they stop, and that a resumed one is the uninterrupted one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from fastgan_engine.checkpoint import load_checkpoint
from fastgan_engine.config import Config
from fastgan_engine.errors import UserError
from fastgan_engine.pipelines import PreparedSet, draw_demo, prepare
from fastgan_engine.run_folder import RunFolder
from fastgan_engine.trainer import Trainer
from tests.pipelines.bad_files import write_bad_files

SMALL = {"im_size": 64, "ngf": 8, "ndf": 8, "nz": 16}
FLAGS = [
    "--im-size", "64", "--reconstruction", "l1", "--device", "cpu", "--batch", "4",
    "--set", "model.ngf=8", "--set", "model.ndf=8", "--set", "model.nz=16", "--set", "log.tick=1",
    "--set", "log.sample_count=4", "--set", "log.tensorboard=false", "--set", "engine.threads=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    draw_demo(folder, count=6, size=64)
    return folder


@pytest.fixture(scope="module")
def images(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    return prepare(photos, tmp_path_factory.mktemp("prepared"), im_size=64, warn=pytest.fail)


def config_of(steps: int, **log: object) -> Config:
    return Config.model_validate(
        {
            "model": SMALL,
            "loss": {"reconstruction": "l1"},
            "train": {"steps": steps, "batch": 4},
            "precision": {"dtype": "fp32"},  # "auto" goes by the processor
            "engine": {"device": "cpu", "threads": 1},
            "log": {"tick": 2, "sample_count": 4, "tensorboard": False, "sample_every": 0, "checkpoint_every": 0} | log,
        }
    )


def run_cli(*arguments: str, cwd: Path, **more: object) -> subprocess.Popen[str]:
    environment = os.environ | {"FASTGAN_CACHE": str(cwd / "cache"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "fastgan_engine", "train", *arguments, *FLAGS],
        cwd=cwd, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def same(a: object, b: object, where: str = "state") -> None:
    """Asserts that two nested states are equal to the bit."""
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict) and isinstance(b, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple) and isinstance(b, list | tuple):
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            same(x, y, f"{where}[{index}]")
    else:
        assert a == b, where


def test_a_run_leaves_everything(images: PreparedSet, tmp_path: Path) -> None:
    finished = Trainer(
        config_of(4, sample_every=2, checkpoint_every=2, keep=1, tensorboard=True), images, tmp_path
    ).train()
    assert finished
    folder = RunFolder(tmp_path)
    assert [p.name for p in folder.all_checkpoints()] == ["step-0000004.pt"]
    assert [p.name for p in folder.all_snapshots()] == ["step-0000004.safetensors"]
    assert sorted(p.name for p in folder.samples.iterdir()) == [f"step-000000{n}.png" for n in (0, 2, 4)]
    with Image.open(folder.sample(4)) as grid:
        assert min(grid.size) >= 2 * 64
    assert folder.reconstruction(4).is_file()
    lines = [json.loads(line) for line in folder.log.read_text().splitlines()]
    records = [line for line in lines if "ms_step" in line]
    assert [record["step"] for record in records] == [2, 4]
    assert {"ms_data", "ms_d", "ms_g", "images_per_second", "loss_g", "loss_reconstruction"} <= records[0].keys()
    assert list(folder.tensorboard.glob("events.*"))
    assert "im_size = 64" in folder.config.read_text()


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_resume_is_exact(images: PreparedSet, tmp_path: Path, dtype: str) -> None:
    """10 steps are 5 steps and 5 more from the checkpoint: weights, optimizers, random numbers, to the bit."""

    def config(steps: int) -> Config:
        base = config_of(steps)
        return base.model_copy(update={"precision": base.precision.model_copy(update={"dtype": dtype})})

    Trainer(config(10), images, tmp_path / "whole").train()
    Trainer(config(5), images, tmp_path / "parts").train()
    again = Trainer(config(10), images, tmp_path / "parts")
    again.resume(RunFolder(tmp_path / "parts").checkpoint(5))
    again.train()
    whole, parts = (load_checkpoint(RunFolder(tmp_path / name).checkpoint(10)) for name in ("whole", "parts"))
    same(whole["state"], parts["state"])


def test_killed_and_resumed_from_the_command_line_is_exact(photos: Path, tmp_path: Path) -> None:
    whole = run_cli("--data", str(photos), "--out", "whole", "--steps", "6", cwd=tmp_path)
    assert whole.wait(120) == 0, whole.stdout.read()  # type: ignore[union-attr]
    killed = run_cli("--data", str(photos), "--out", "killed", "--steps", "6", "--checkpoint-every", "3", cwd=tmp_path)
    assert killed.stdout is not None
    for line in killed.stdout:
        if line.startswith("step 4/"):
            killed.kill()
            break
    assert killed.wait(60) == -signal.SIGKILL
    again = run_cli("--out", "killed", "--resume", "auto", "--data", str(photos), "--steps", "6", cwd=tmp_path)
    output, _ = again.communicate(timeout=120)
    assert again.returncode == 0, output
    assert "resumed from" in output
    assert "step 3" in output
    a, b = (load_checkpoint(RunFolder(tmp_path / name).checkpoint(6))["state"] for name in ("whole", "killed"))
    same(a, b)
    steps = [json.loads(line)["step"] for line in RunFolder(tmp_path / "killed").log.read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interruption_saves_and_says_how_to_go_on(photos: Path, tmp_path: Path, number: signal.Signals) -> None:
    process = run_cli("--data", str(photos), "--out", "run", "--steps", "100000", cwd=tmp_path)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("step 2/"):
            process.send_signal(number)
            break
    output = process.stdout.read()
    assert process.wait(60) == 130
    checkpoint = RunFolder(tmp_path / "run").latest_checkpoint()
    assert checkpoint is not None
    assert load_checkpoint(checkpoint)["state"]["step"] >= 2
    assert "--resume auto --out run" in output
    assert "Traceback" not in output


def test_bad_files_are_named_and_skipped(tmp_path: Path) -> None:
    folder = tmp_path / "mess"
    folder.mkdir()
    bad = write_bad_files(folder)
    process = run_cli("--data", str(folder), "--out", "run", "--steps", "1", cwd=tmp_path)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert any(file.name in output for file in bad if not file.usable)
    strict = run_cli("--data", str(folder), "--out", "strict", "--steps", "1", "--strict", cwd=tmp_path)
    output, _ = strict.communicate(timeout=120)
    assert strict.returncode == 2
    assert output.startswith("error: ")
    assert "Traceback" not in output


def test_a_model_that_does_not_fit_the_checkpoint_is_refused(images: PreparedSet, tmp_path: Path) -> None:
    Trainer(config_of(1), images, tmp_path).train()
    other = config_of(2).model_copy(update={"model": config_of(2).model.model_copy(update={"ngf": 16})})
    with pytest.raises(UserError, match="does not fit the configuration"):
        Trainer(other, images, tmp_path).resume(RunFolder(tmp_path).checkpoint(1))


def test_changed_images_are_noticed(images: PreparedSet, photos: Path, tmp_path: Path) -> None:
    from fastgan_engine.screen import QuietScreen

    class Told(QuietScreen):
        texts: list[str] = []  # noqa: RUF012

        def event(self, text: str) -> None:
            self.texts.append(text)

    Trainer(config_of(1), images, tmp_path / "run").train()
    fewer = tmp_path / "fewer"
    fewer.mkdir()
    for path in sorted(photos.glob("*.png"))[:2]:
        (fewer / path.name).write_bytes(path.read_bytes())
    changed = prepare(fewer, tmp_path / "cache", im_size=64, warn=pytest.fail)
    screen = Told()
    trainer = Trainer(config_of(2), changed, tmp_path / "run", screen=screen)
    trainer.resume(RunFolder(tmp_path / "run").checkpoint(1))
    assert any("images have changed" in text for text in screen.texts)
    assert trainer.train()  # two images, batches of four


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_checkpoint(images: PreparedSet, tmp_path: Path) -> None:
    Trainer(config_of(2), images, tmp_path).train()
    trainer = Trainer(config_of(4), images, tmp_path)
    trainer.resume(RunFolder(tmp_path).checkpoint(2))
    with torch.no_grad():
        trainer.state.networks.generator.to_big.weight_orig.fill_(float("nan"))
    with pytest.raises(RuntimeError, match="--resume auto"):
        trainer.train()
    assert RunFolder(tmp_path).latest_checkpoint() == RunFolder(tmp_path).checkpoint(2)


def test_time_is_split(images: PreparedSet, tmp_path: Path) -> None:
    begin = time.perf_counter()
    Trainer(config_of(2), images, tmp_path).train()
    whole = (time.perf_counter() - begin) * 1e3
    record = json.loads(RunFolder(tmp_path).log.read_text().splitlines()[-1])
    parts = record["ms_data"] + record["ms_d"] + record["ms_g"]
    assert 0 < parts <= record["ms_step"] * 1.001
    assert record["ms_step"] * 2 < whole
