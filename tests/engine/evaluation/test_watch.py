"""Evaluations while training: they leave it as it is, keep the best, stop early, and survive a resume."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from fastgan_engine.checkpoint import load_checkpoint
from fastgan_engine.config import Config
from fastgan_engine.errors import UserError
from fastgan_engine.evaluation import watch as module
from fastgan_engine.evaluation.collapse import CollapseAlarm, Diversity
from fastgan_engine.evaluation.evaluator import Evaluator
from fastgan_engine.pipelines import PreparedSet, draw_demo, prepare
from fastgan_engine.run_folder import RunFolder
from fastgan_engine.run_log import RunLog
from fastgan_engine.screen import QuietScreen
from fastgan_engine.snapshot import load_snapshot
from fastgan_engine.trainer import Trainer
from tests.engine.small import small_config
from tests.engine.test_trainer import same

EVERY = 1


class Told(QuietScreen):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.statuses: dict[str, str] = {}
        self.warned: set[str] = set()

    def event(self, text: str) -> None:
        self.events.append(text)

    def status(self, name: str, text: str, *, warning: bool = False) -> None:
        self.statuses[name] = text
        if warning:
            self.warned.add(name)


@pytest.fixture(autouse=True)
def _own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    folder = tmp_path_factory.mktemp("photos")
    draw_demo(folder, count=6, size=64)
    return prepare(folder, tmp_path_factory.mktemp("prepared"), im_size=64, warn=pytest.fail)


def config(steps: int, *, checkpoint_every: int = 0, **evaluation: Any) -> Config:
    settings = {"every": EVERY, "metrics": "swd", "count": 4} | evaluation
    log = {"tick": 2, "sample_every": 0, "checkpoint_every": checkpoint_every, "tensorboard": False, "report": False}
    return small_config(train={"steps": steps}, eval=settings, log=log | {"sample_count": 2, "keep": 9})


def train(images: PreparedSet, folder: Path, settings: Config, *, resume: int | None = None) -> Told:
    screen = Told()
    trainer = Trainer(settings, images, folder, screen=screen)
    if resume is not None:
        trainer.resume(RunFolder(folder).checkpoint(resume))
    assert trainer.train()
    return screen


def test_the_last_step_is_evaluated_whatever_the_interval(images: PreparedSet, tmp_path: Path) -> None:
    train(images, tmp_path, config(3, every=2))
    assert [step for step, _ in evaluations(tmp_path)] == [2, 3]


def evaluations(folder: Path) -> list[tuple[int, float]]:
    records = [json.loads(line) for line in RunFolder(folder).log.read_text().splitlines()]
    return [(record["step"], record["eval_swd"]) for record in records if "eval_swd" in record]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Values that evaluations find, the next at each; of the averaged generator nothing is looked at."""
    values: list[float] = []

    def call(self: Evaluator, *arguments: Any, **settings: Any) -> dict[str, float]:
        return {"swd": values.pop(0)}

    monkeypatch.setattr(Evaluator, "__call__", call)
    return values


def test_training_is_the_same_to_the_bit_with_and_without(images: PreparedSet, tmp_path: Path) -> None:
    told = train(images, tmp_path / "with", config(2, checkpoint_every=1))
    train(images, tmp_path / "without", config(2, every=0, alarm=0.0))
    assert [step for step, _ in evaluations(tmp_path / "with")] == [1, 2]
    assert {"SWD", "diversity"} <= told.statuses.keys()
    assert not RunFolder(tmp_path / "without").best.exists()
    states = [load_checkpoint(RunFolder(tmp_path / name).checkpoint(2))["state"] for name in ("with", "without")]
    same(*states)
    best = load_snapshot(RunFolder(tmp_path / "with").best)
    assert best.step == min(evaluations(tmp_path / "with"), key=lambda found: found[1])[0]
    of_that_step = load_snapshot(RunFolder(tmp_path / "with").snapshot(best.step))
    same(dict(best.generator.state_dict()), dict(of_that_step.generator.state_dict()))


def test_networks_of_metrics_leave_the_random_state(images: PreparedSet, tmp_path: Path, monkeypatch: Any) -> None:
    """An evaluator that is initialised at random, as InceptionV3 is before its weights are loaded."""

    class Random(torch.nn.Linear):
        key = "random"

        def __init__(self, *arguments: object) -> None:
            super().__init__(3, 3)

        def add(self, pixels: torch.Tensor) -> None: ...

        def take(self) -> torch.Tensor:
            return torch.zeros(4, 3)

    monkeypatch.setattr("fastgan_engine.evaluation.extractors.InceptionFeatures", Random)
    train(images, tmp_path / "with", config(1, metrics="fid"))
    train(images, tmp_path / "without", config(1, every=0, alarm=0.0))
    states = [load_checkpoint(RunFolder(tmp_path / name).checkpoint(1))["state"] for name in ("with", "without")]
    same(*states)


def test_the_best_is_kept_and_told(images: PreparedSet, tmp_path: Path, scripted: list[float]) -> None:
    scripted += [0.3, 0.1, 0.2]
    told = train(images, tmp_path, config(3))
    assert evaluations(tmp_path) == [(1, 0.3), (2, 0.1), (3, 0.2)]
    best = load_snapshot(RunFolder(tmp_path).best)
    assert best.step == 2
    assert told.statuses["SWD"] == "0.2000 at step 3; best 0.1000 at step 2"


def test_patience_ends_the_run(images: PreparedSet, tmp_path: Path, scripted: list[float]) -> None:
    scripted += [0.3, 0.1, 0.2, 0.1, 0.0]
    told = train(images, tmp_path, config(100, patience=2, keep_best=False))
    assert not RunFolder(tmp_path).best.exists()
    assert RunFolder(tmp_path).latest_checkpoint() == RunFolder(tmp_path).checkpoint(4)  # saved all the same
    (message,) = [event for event in told.events if event.startswith("stopped early")]
    assert message == (
        "stopped early at step 4: swd has not improved in 2 evaluations (eval.patience = 2); the best was at step 2"
    )


def test_a_resumed_run_knows_the_best_and_its_patience(
    images: PreparedSet, tmp_path: Path, scripted: list[float]
) -> None:
    """Resumed from step 3: what was logged later is forgotten, what was before counts."""
    scripted += [0.3, 0.1, 0.2, 0.05]
    train(images, tmp_path, config(4, patience=2, checkpoint_every=3))
    assert load_snapshot(RunFolder(tmp_path).best).step == 4
    scripted += [0.15]
    told = train(images, tmp_path, config(100, patience=2), resume=3)
    assert evaluations(tmp_path) == [(1, 0.3), (2, 0.1), (3, 0.2), (4, 0.15)]
    assert told.statuses["SWD"] == "0.1500 at step 4; best 0.1000 at step 2"
    assert any(event.startswith("stopped early at step 4") for event in told.events)


def test_resumed_evaluations_are_those_of_the_uninterrupted_run(images: PreparedSet, tmp_path: Path) -> None:
    train(images, tmp_path / "whole", config(2))
    train(images, tmp_path / "parts", config(1))
    train(images, tmp_path / "parts", config(2), resume=1)
    assert evaluations(tmp_path / "whole") == evaluations(tmp_path / "parts")
    assert len(evaluations(tmp_path / "whole")) == 2


def test_an_interrupted_evaluation_is_given_up(images: PreparedSet, tmp_path: Path) -> None:
    """Ctrl-C while samples are made: no value is logged, nothing is kept."""
    trainer = Trainer(config(100), images, tmp_path)
    trainer.state.step = EVERY
    with RunLog(RunFolder(tmp_path), tensorboard=False, start_step=EVERY) as log:
        trainer.watch(trainer.state, log, stop=lambda: True)
        assert evaluations(tmp_path) == []
        assert not RunFolder(tmp_path).best.exists()
        trainer.watch(trainer.state, log, stop=lambda: False)
        assert len(evaluations(tmp_path)) == 1


def test_alarm_is_told_and_logged(images: PreparedSet, tmp_path: Path, monkeypatch: Any) -> None:
    found = {1: 0.7, 2: 0.2}
    state: dict[str, int] = {}
    monkeypatch.setattr(CollapseAlarm, "measure", lambda self, *_, **__: Diversity(ratio=found[state["step"]], swd=0.1))
    monkeypatch.setattr(CollapseAlarm, "rings", lambda self, diversity, *, step: diversity.ratio < self.threshold)
    called = module.Watch.__call__

    def at_step(self: Any, training: Any, *arguments: Any, **settings: Any) -> None:
        state["step"] = training.step
        called(self, training, *arguments, **settings)

    monkeypatch.setattr(module.Watch, "__call__", at_step)
    told = train(images, tmp_path, config(2, alarm=0.5))
    records = [json.loads(line) for line in RunFolder(tmp_path).log.read_text().splitlines()]
    logged = [(r["step"], r["diversity_ratio"], r["collapse"]) for r in records if "collapse" in r]
    assert logged == [(1, 0.7, False), (2, 0.2, True)]
    (warning,) = [event for event in told.events if event.startswith("WARNING")]
    assert "at step 2 the samples look alike" in warning
    assert "0.20 of that of the training images, below eval.alarm = 0.5" in warning
    assert "diversity" in told.warned


def test_automatic_metric_needs_no_download(images: PreparedSet, tmp_path: Path) -> None:
    screen = Told()
    watch = Trainer(config(2, metrics="auto"), images, tmp_path, screen=screen).watch
    assert watch.decides == "swd"
    (note,) = [event for event in screen.events if event.startswith("note: evaluations take swd")]
    assert "weights-inception-2015-12-05-6726825d.pth" in note


def test_missing_weights_are_said_before_training(images: PreparedSet, tmp_path: Path, monkeypatch: Any) -> None:
    def offline(*arguments: object, **settings: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(UserError, match=r"needs the file weights-inception-2015-12-05-6726825d\.pth"):
        Trainer(config(2, metrics="fid"), images, tmp_path / "run")
    assert not (tmp_path / "run").exists()
