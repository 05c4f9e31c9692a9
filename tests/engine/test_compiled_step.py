"""The rival's step: the reference step's arithmetic, trained through the engine's state.

Dynamo traces it where that is what is tested; Inductor, which takes minutes, never runs.
"""

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fastgan_engine import compiled_step
from fastgan_engine.build import build_loss, build_state, build_step
from fastgan_engine.checkpoint import load_checkpoint
from fastgan_engine.compiled_step import CompiledStep
from fastgan_engine.config import Config, resolve
from fastgan_engine.draws import Draws
from fastgan_engine.errors import UserError
from fastgan_engine.iteration import draw_for
from fastgan_engine.pipelines import draw_demo, prepare
from fastgan_engine.reference_step import ReferenceStep
from fastgan_engine.run_folder import RunFolder
from fastgan_engine.trainer import Trainer
from tests.engine.small import BATCH, SIZE, small_config

CPU = torch.device("cpu")
CONFIG = small_config(engine={"step": "compile", "device": "cpu"})


@pytest.fixture(autouse=True)
def _without_inductor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_step, "BACKEND", "eager")
    torch.compiler.reset()


@pytest.fixture
def untraced() -> Iterator[None]:
    with torch.compiler.set_stance("force_eager"):
        yield


def draws_and_reals(config: Config) -> tuple[Draws, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    draws = draw_for(config, generator)._replace(part=torch.tensor(2))
    return draws, torch.rand(BATCH, 3, SIZE, SIZE, generator=generator) * 2 - 1


def test_it_updates_as_the_reference_step_does() -> None:
    state = build_state(CONFIG, CPU, torch.float32)
    networks = copy.deepcopy(state.networks)
    opt_g, opt_d = (
        torch.optim.Adam(network.parameters(), lr=CONFIG.train.lr, betas=(CONFIG.train.beta1, CONFIG.train.beta2))
        for network in (networks.generator, networks.discriminator)
    )
    reference = ReferenceStep(networks, build_loss(CONFIG), opt_g, opt_d, ema_decay=CONFIG.train.ema_decay)
    step = build_step(CONFIG, state, build_loss(CONFIG), torch.float32)
    assert isinstance(step, CompiledStep)
    draws, reals = draws_and_reals(CONFIG)
    for _ in range(2):
        expected = reference(reals, draws)
        torch.testing.assert_close(step(reals.contiguous(memory_format=torch.channels_last), draws), expected)
    for name in ("generator", "discriminator", "ema"):
        wanted = getattr(networks, name).state_dict()
        for key, value in getattr(state.networks, name).state_dict().items():
            torch.testing.assert_close(value, wanted[key], rtol=1e-3, atol=1e-4, msg=f"{name}.{key}")


@pytest.mark.usefixtures("untraced")
def test_a_scaler_skips_an_update_that_overflows() -> None:
    state = build_state(CONFIG, CPU, torch.float16)
    before = copy.deepcopy(state.networks.discriminator.state_dict())
    step = CompiledStep(state, build_loss(CONFIG), dtype=torch.float32, ema_decay=0.9)
    draws, reals = draws_and_reals(CONFIG)
    step(torch.full_like(reals, float("inf")), draws)
    for key, value in state.networks.discriminator.named_parameters():
        assert torch.equal(value, before[key]), key
    assert state.scalers["d"].get_scale() < 65536.0


@pytest.mark.usefixtures("untraced")
def test_training_goes_on_with_the_engine_and_back(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    draw_demo(photos, count=4, size=SIZE)
    images = prepare(photos, tmp_path / "cache", im_size=SIZE, warn=pytest.fail)
    log = {"tick": 1, "sample_count": 1, "tensorboard": False, "sample_every": 0, "checkpoint_every": 0}
    for steps, kind in enumerate(("compile", "auto", "compile"), start=1):
        config = small_config(engine={"step": kind, "device": "cpu"}, train={"steps": steps}, log=log)
        trainer = Trainer(config, images, tmp_path / "run")
        if steps > 1:
            trainer.resume(RunFolder(tmp_path / "run").checkpoint(steps - 1))
        assert trainer.train()
    state = load_checkpoint(RunFolder(tmp_path / "run").checkpoint(3))["state"]
    assert {int(values["step"]) for values in state["opt_g"]["state"].values()} == {3}
    assert not [key for key in state["generator"] if "orig_mod" in key]


def test_a_backend_that_cannot_run_is_the_users_to_know() -> None:
    def broken(module: object, inputs: object) -> None:
        raise RuntimeError("No working C++ compiler found")

    state = build_state(CONFIG, CPU, torch.float32)
    step = CompiledStep(state, build_loss(CONFIG), dtype=torch.float32, ema_decay=0.9, backend=broken)
    draws, reals = draws_and_reals(CONFIG)
    with pytest.raises(UserError, match=r"cannot run here: .*No working C\+\+ compiler found.*take engine.step"):
        step(reals, draws)


def test_micro_batches_are_refused() -> None:
    with pytest.raises(UserError, match=r'engine.step = "compile" takes the whole batch at once'):
        resolve(flags={"engine.step": "compile", "train.micro_batch": 2})
