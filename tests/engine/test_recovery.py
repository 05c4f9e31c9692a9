"""Recomputing G changes nothing but the memory; a run goes on after running out of memory, and after an overflow."""

from pathlib import Path
from typing import Any

import pytest
import torch

from fastgan_engine.build import build_loss, build_state, build_step
from fastgan_engine.checkpoint import load_checkpoint
from fastgan_engine.config import Config
from fastgan_engine.draws import draw
from fastgan_engine.errors import UserError
from fastgan_engine.memory.fit import with_settings
from fastgan_engine.pipelines import PreparedSet, draw_demo, prepare
from fastgan_engine.reference_step import StepLosses
from fastgan_engine.run_folder import RunFolder
from fastgan_engine.screen import QuietScreen
from fastgan_engine.state import TrainingState
from fastgan_engine.step import EngineStep
from fastgan_engine.trainer import Trainer
from tests.engine.small import SIZE, small_config

BATCH, STEPS = 4, 5
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    folder = tmp_path_factory.mktemp("photos")
    draw_demo(folder, count=6, size=SIZE)
    return prepare(folder, tmp_path_factory.mktemp("prepared"), im_size=SIZE, warn=pytest.fail)


def config_of(**train: Any) -> Config:
    return small_config(
        train={"batch": BATCH, "steps": STEPS, **train},
        engine={"threads": 1},
        log={"tick": 1, "sample_every": 0, "sample_count": 1, "checkpoint_every": 2, "tensorboard": False,
             "report": False},
    )  # fmt: skip


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def stepped(*, recompute: bool, steps: int = 2) -> TrainingState:
    """A fresh state after some steps, each on its own batch and draws."""
    config = small_config(train={"batch": BATCH}, engine={"recompute": recompute}, precision={"dtype": "fp32"})
    state = build_state(config, CPU, torch.float32)
    step = build_step(config, state, build_loss(config), torch.float32)
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        reals = torch.rand(BATCH, 3, SIZE, SIZE, generator=generator) * 2 - 1
        draws = draw(BATCH, im_size=SIZE, nz=config.model.nz, policy=config.loss.augment, generator=generator)
        step(reals.contiguous(memory_format=torch.channels_last), draws)
    return state


def test_recompute_is_exact() -> None:
    """To the bit: weights, moments, averages, running statistics and singular vectors, which advance once a step."""
    plain, recomputed = stepped(recompute=False).state_dict(), stepped(recompute=True).state_dict()
    assert same(plain, recomputed)
    assert not same(plain["generator"], stepped(recompute=False, steps=1).state_dict()["generator"])


class Told(QuietScreen):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def event(self, text: str) -> None:
        self.texts.append(text)


def run_out(monkeypatch: pytest.MonkeyPatch, *calls: int) -> None:
    """Makes the step run out of memory in its N-th calls: after D's update, before G's."""
    original, made = EngineStep._update, [0]

    def update(self: EngineStep, name: str, optimizer: torch.optim.Optimizer) -> None:
        original(self, name, optimizer)
        made[0] += name == "d"
        if name == "d" and made[0] in calls:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(EngineStep, "_update", update)


def final(folder: Path) -> dict[str, Any]:
    return load_checkpoint(RunFolder(folder).checkpoint(STEPS))["state"]


def test_running_out_goes_back_to_the_checkpoint_and_on_with_half(
    images: PreparedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Step 4 fails with D updated and G not. The end is that of a run which began at step 2 with micro-batch 2."""
    screen = Told()
    with monkeypatch.context() as patch:
        run_out(patch, 4)
        assert Trainer(config_of(), images, tmp_path / "short", screen=screen).train()
    (told,) = [text for text in screen.texts if "out of memory" in text]
    assert "in step 4: going on from step 2 with micro-batch 2 in place of 4" in told
    assert "micro_batch = 2" in RunFolder(tmp_path / "short").config.read_text()

    Trainer(config_of(steps=2), images, tmp_path / "begun").train()
    other = Trainer(config_of(micro_batch=2), images, tmp_path / "other")
    other.resume(RunFolder(tmp_path / "begun").checkpoint(2))
    assert other.train()
    assert same(final(tmp_path / "short"), final(tmp_path / "other"))


def test_running_out_before_any_checkpoint_starts_anew(
    images: PreparedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice: the micro-batch goes from 4 to 2 to 1."""
    screen = Told()
    with monkeypatch.context() as patch:
        run_out(patch, 1, 2)
        assert Trainer(config_of(), images, tmp_path / "short", screen=screen).train()
    assert [text.split(" in place")[0][-13:] for text in screen.texts if "out of memory" in text] == [
        "micro-batch 2", "micro-batch 1",
    ]  # fmt: skip
    Trainer(config_of(micro_batch=1), images, tmp_path / "other").train()
    assert same(final(tmp_path / "short"), final(tmp_path / "other"))


def test_single_images_that_do_not_fit_end_the_run_with_what_to_do(
    images: PreparedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_out(monkeypatch, 3)
    with pytest.raises(UserError, match=r"out of memory on cpu with 1 image.*plan --fit"):
        Trainer(config_of(micro_batch=1), images, tmp_path).train()
    assert RunFolder(tmp_path).latest_checkpoint() == RunFolder(tmp_path).checkpoint(2)


def overflow(monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    """Makes G's loss NaN in the N-th call of the step, whatever the precision."""
    original, made = EngineStep.__call__, [0]

    def step(self: EngineStep, *arguments: Any) -> StepLosses:
        losses = original(self, *arguments)
        made[0] += 1
        return losses._replace(g=losses.g * float("nan")) if made[0] == call else losses

    monkeypatch.setattr(EngineStep, "__call__", step)


def test_a_loss_that_is_not_finite_goes_back_and_on_in_fp32(
    images: PreparedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Step 4 overflows. The end is that of a run which began at step 2 in fp32."""
    screen = Told()
    half = with_settings(config_of(), {"precision.dtype": "bf16"})
    with monkeypatch.context() as patch:
        overflow(patch, 4)
        assert Trainer(half, images, tmp_path / "half", screen=screen).train()
    (told,) = [text for text in screen.texts if "became" in text]
    assert told == "the loss g became nan before step 4 in bf16: going on from step 2 in fp32, which is slower"
    assert 'dtype = "fp32"' in RunFolder(tmp_path / "half").config.read_text()

    Trainer(with_settings(half, {"train.steps": 2}), images, tmp_path / "begun").train()
    other = Trainer(with_settings(half, {"precision.dtype": "fp32"}), images, tmp_path / "other")
    other.resume(RunFolder(tmp_path / "begun").checkpoint(2))
    assert other.train()
    assert same(final(tmp_path / "half"), final(tmp_path / "other"))
