"""A run: resumed in the middle of a stage it goes on exactly, interrupted it saves, and it tells figures at its end."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch

from fastgan_engine.capture import mutable_tensors
from fastgan_engine.errors import UserError
from fastgan_engine.report import TickReport
from fastgan_engine.run_folder import RunFolder
from fastgan_engine.screen import QuietScreen
from fastgan_engine.single.files import load_single
from fastgan_engine.single.inputs import Inputs
from fastgan_engine.single.step import StageStep
from fastgan_engine.single.trainer import SingleTrainer
from tests.engine.single.small import CPU, begun, picture, small_config, small_single


class Recorder(QuietScreen):
    """Keeps what is told; ``stop_at`` presses Ctrl-C after that step."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.events: list[str] = []
        self.stop_at = stop_at

    def event(self, text: str) -> None:
        self.events.append(text)

    def tick(self, report: TickReport) -> None:
        if report.step == self.stop_at:
            os.kill(os.getpid(), signal.SIGINT)


def trainer(folder: Path, screen: QuietScreen | None = None, **values: object) -> SingleTrainer:
    return SingleTrainer(small_config(**values), picture(), folder, screen=screen)


@pytest.mark.parametrize(("mode", "stop_at"), [("generate", 8), ("harmonize", 8), ("edit", 10)])
def test_resumed_in_stage_2_it_goes_on_as_if_it_had_never_stopped(tmp_path: Path, mode: str, stop_at: int) -> None:
    values = {"mode": mode, "stages": 3}
    whole = trainer(tmp_path / "whole", **values)
    assert whole.train()
    screen = Recorder(stop_at)
    assert not trainer(tmp_path / "parted", screen, **values).train()
    checkpoint = RunFolder(tmp_path / "parted").latest_checkpoint()
    assert checkpoint is not None
    assert checkpoint.stem == f"step-{stop_at:07d}"
    resumed = trainer(tmp_path / "parted", **values)
    resumed.resume(checkpoint)
    assert (resumed.state.stage, resumed.state.iteration) == (1, stop_at - 5)
    assert resumed.train()
    assert resumed.state.amplitudes == whole.state.amplitudes
    for a, b in zip(resumed.state.modules(), whole.state.modules(), strict=True):
        for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True):
            assert torch.equal(x, y)


def test_resumed_after_the_rates_dropped_they_stay_so(tmp_path: Path) -> None:
    first = trainer(tmp_path, Recorder(10), iterations=12, stages=3)
    assert not first.train()
    resumed = trainer(tmp_path, iterations=12, stages=3)
    resumed.resume(tmp_path / "checkpoints" / "step-0000010.pt")
    rates = [group["lr"] for group in resumed.state.opt_g.param_groups]
    assert rates == pytest.approx([5e-5, 5e-5, 5e-5])
    assert rates == [group["lr"] for group in first.state.opt_g.param_groups]


def test_what_a_run_leaves(tmp_path: Path) -> None:
    screen = Recorder()
    made = trainer(tmp_path, screen, stages=3)
    assert made.train()
    assert [path.name for path in RunFolder(tmp_path).all_checkpoints()] == ["step-0000010.pt", "step-0000015.pt"]
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == [
        f"step-{step:07d}.png" for step in (5, 10, 15)
    ]
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [2, 4, 5, 6, 8, 10, 12, 14, 15]
    assert {"loss_d_real", "loss_d_fake", "loss_penalty", "loss_reconstruction", "loss_g"} <= records[0].keys()
    assert screen.events[0] == "stage 1 of 3: 22 x 15, training stage 1"
    assert "stage 3 of 3: 40 x 28, training stages 2 to 3" in screen.events
    assert screen.events[-1].startswith("quality: patch-wise sliced Wasserstein distance 0.")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "single.train_depth" in page
    assert "data.path" not in page
    assert "unknown to this version" not in page
    opened = load_single(tmp_path, "retarget", CPU)
    for a, b in zip(opened.model.generator.parameters(), made.state.networks.generator.parameters(), strict=True):
        assert torch.equal(a, b)


def test_another_image_or_another_training_is_refused(tmp_path: Path) -> None:
    trainer(tmp_path, Recorder(2), stages=3).train()
    checkpoint = tmp_path / "checkpoints" / "step-0000002.pt"
    other = SingleTrainer(small_config(stages=3), picture(40, 30), tmp_path)
    with pytest.raises(UserError, match="trained on another image"):
        other.resume(checkpoint)
    for name, value in {"filters": 5, "mode": "animate", "stages": 4, "iterations": 6, "min_size": 16}.items():
        with pytest.raises(UserError, match=rf"single\.{name} = {value}, but .* was trained with .*another --out"):
            trainer(tmp_path, **{"stages": 3, name: value}).resume(checkpoint)
    trainer(tmp_path, stages=3, batch_norm="off", lr=1e-3).resume(checkpoint)  # the same network; a rate may change


def test_a_finished_run_that_is_resumed_begins_no_stage(tmp_path: Path) -> None:
    trainer(tmp_path, stages=3).train()
    screen = Recorder()
    again = trainer(tmp_path, screen, stages=3)
    again.resume(tmp_path / "checkpoints" / "step-0000015.pt")
    assert again.train()
    assert len(screen.events) == 1
    assert screen.events[0].startswith("quality: ")


def test_a_run_is_opened_only_for_what_it_was_trained_for_and_when_all_stages_have_begun(tmp_path: Path) -> None:
    trainer(tmp_path, Recorder(2), stages=3).train()
    with pytest.raises(UserError, match=r"trained for generate, which does not serve edit; .*--mode edit"):
        load_single(tmp_path, "edit", CPU)
    with pytest.raises(UserError, match=r"only reached stage 1 of 3; go on with .*--resume auto"):
        load_single(tmp_path, "generate", CPU)
    with pytest.raises(UserError, match="is no run on one image"):
        load_single(tmp_path / "elsewhere", "generate", CPU)


def test_every_tensor_that_an_iteration_changes_is_known_and_stays_in_place() -> None:
    """What capturing a stage as a CUDA graph rests on."""
    single = small_single()
    state, reals, sizes = begun(single, 2, torch.float32)
    step, inputs = StageStep(state, single, reals[2], sizes), Inputs(single, reals[0], state.generator)
    draws = inputs.draw(sizes)
    tensors = list(mutable_tensors(state))
    saved = [tensor.detach().clone() for tensor in tensors]
    addresses = [tensor.data_ptr() for tensor in tensors]
    first = step(draws)
    assert [tensor.data_ptr() for tensor in mutable_tensors(state)] == addresses
    with torch.no_grad():
        for tensor, value in zip(tensors, saved, strict=True):
            tensor.copy_(value)
    for a, b in zip(first, step(draws), strict=True):
        assert torch.equal(a, b)


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["generate", "harmonize", "edit"])
def test_captured_stages_train_as_eager_ones(tmp_path: Path, mode: str) -> None:
    found = []
    for step in ("eager", "graph"):
        config = small_config(mode=mode, stages=3, iterations=10)
        engine = config.engine.model_copy(update={"device": "cuda", "step": step})
        made = SingleTrainer(config.model_copy(update={"engine": engine}), picture(), tmp_path / step)
        assert made.train()
        found.append(made.state.networks.generator.state_dict())
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-3, atol=1e-4)
