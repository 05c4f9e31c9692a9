"""D's other self-supervised tasks: their losses by hand, and the engine's step against the reference's."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fastgan_engine.bench.fake_iteration import fake_tensors
from fastgan_engine.build import build_loss, build_networks, build_state, build_step
from fastgan_engine.config import Config, resolve
from fastgan_engine.draws import Draws
from fastgan_engine.errors import UserError
from fastgan_engine.iteration import draw_for
from fastgan_engine.kernels.diffaug import diffaug
from fastgan_engine.self_supervision import TEMPERATURE, Contrastive, Rotation, nt_xent
from tests.engine.test_step import (
    BATCH,
    CPU,
    FROZEN,
    SIZE,
    config_of,
    engine_step,
    gradient,
    reference_step,
    relative,
    state_of,
)

TASKS = ("rotation", "contrastive")


def task_config(task: str, **sections: dict[str, object]) -> Config:
    return config_of(loss={"reconstruction": "l1", "self_supervision": task}, **sections)


def batch_of(config: Config, seed: int) -> tuple[Tensor, Draws]:
    generator = torch.Generator().manual_seed(seed)
    reals = torch.rand(BATCH, config.model.nc, SIZE, SIZE, generator=generator) * 2 - 1
    return reals.contiguous(memory_format=torch.channels_last), draw_for(config, generator)


def test_nt_xent_is_the_papers_equation() -> None:
    z = torch.randn(10, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def s(i: int, j: int) -> float:
        return float(z[i] @ z[j] / (z[i].norm() * z[j].norm()))

    losses = []
    for i in range(10):
        j = i + 5 if i < 5 else i - 5
        others = sum(math.exp(s(i, k) / TEMPERATURE) for k in range(10) if k != i)
        losses.append(-math.log(math.exp(s(i, j) / TEMPERATURE) / others))
    assert float(nt_xent(z)) == pytest.approx(np.mean(losses), rel=1e-12)


def test_rotation_asks_for_the_quarter_turn() -> None:
    config = task_config("rotation", train={"batch": BATCH})
    reals, draws = batch_of(config, seed=0)
    task = Rotation(5).double().requires_grad_(False)
    views = task.views(reals.double(), draws, impl="reference")
    augmented = diffaug(reals.double(), draws.augment_real, impl="reference").numpy()
    for turn in range(4):
        wanted = np.rot90(augmented, turn, axes=(2, 3))
        assert np.array_equal(views[turn * BATCH : (turn + 1) * BATCH].numpy(), wanted)
    maps = torch.randn(4 * BATCH, 5, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    logits = maps.mean((2, 3)) @ task.head.weight.T + task.head.bias
    right = [logits[n].softmax(0)[n // BATCH].log() for n in range(4 * BATCH)]
    assert float(task(maps)) == pytest.approx(-float(torch.stack(right).mean()), rel=1e-12)


def test_contrast_is_between_two_draws_of_each_real() -> None:
    config = task_config("contrastive")
    reals, draws = batch_of(config, seed=0)
    views = Contrastive(5).views(reals, draws, impl="reference")
    assert draws.augment_view is not None
    first, second = (diffaug(reals, params, impl="reference") for params in (draws.augment_real, draws.augment_view))
    assert torch.equal(views, torch.cat([first, second]))
    assert not torch.equal(first, second)


def test_second_view_leaves_the_other_draws_alone() -> None:
    """So that a run with another task sees the same latents and augmentations."""
    plain, contrastive = (
        draw_for(config, torch.Generator().manual_seed(3)) for config in (config_of(), task_config("contrastive"))
    )
    assert plain.augment_view is None
    assert torch.equal(plain.z, contrastive.z)
    assert torch.equal(plain.part, contrastive.part)
    for a, b in zip(plain.augment_small, contrastive.augment_small, strict=True):
        assert (a is None) == (b is None)
        assert a is None or b is None or torch.equal(a, b)


def test_only_the_chosen_task_adds_parameters() -> None:
    def keys(task: str) -> set[str]:
        return set(build_networks(task_config(task), CPU).discriminator.state_dict())

    released, bare = keys("reconstruction"), keys("none")
    assert bare == {key for key in released if not key.startswith("decoder_")} < released
    assert keys("rotation") - bare == {"task.head.weight", "task.head.bias"}
    assert keys("contrastive") - bare == {
        f"task.head.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")
    }


@pytest.mark.parametrize("task", TASKS)
def test_losses_and_gradients_are_the_references(task: str) -> None:
    config = task_config(task, **FROZEN)
    reference, engine = state_of(config), state_of(config)
    reals, draws = batch_of(config, seed=1)
    step = reference_step(config, reference)
    kept: dict[str, Tensor] = {}

    def keep(*_: object) -> None:
        discriminator = reference.networks.discriminator
        kept["all"], kept["head"] = gradient(discriminator), gradient(_head(discriminator))

    step.opt_d.register_step_pre_hook(keep)
    expected = step(reals, draws)
    got = engine_step(config, engine)(reals, draws)
    assert float(expected.reconstruction) > 0.1
    torch.testing.assert_close(torch.stack(list(got)), torch.stack(list(expected)), rtol=1e-4, atol=1e-5)
    assert relative(gradient(engine.networks.discriminator), kept["all"]) < 0.02
    assert relative(gradient(_head(engine.networks.discriminator)), kept["head"]) < 1e-3
    wanted = reference.networks.discriminator.state_dict()
    for key, value in engine.networks.discriminator.state_dict().items():
        if key.endswith(("running_mean", "running_var")):
            torch.testing.assert_close(value, wanted[key], rtol=1e-4, atol=1e-5, msg=key)


@pytest.mark.parametrize("task", TASKS)
def test_the_task_reaches_the_trunk(task: str) -> None:
    """D's gradient is that of the hinge alone plus that of the task alone, the latter by autograd on plain D."""
    config, bare = task_config(task, **FROZEN), task_config("none", **FROZEN)
    reals, draws = batch_of(config, seed=2)
    engine, without, alone = state_of(config), state_of(bare), state_of(config)
    without.networks.discriminator.load_state_dict(engine.networks.discriminator.state_dict(), strict=False)
    engine_step(config, engine)(reals, draws)
    engine_step(bare, without)(reals, draws)
    network = alone.networks.discriminator
    assert network.task is not None
    network.task(network.features(network.task.views(reals, draws, impl="reference"))[0]).backward()
    own, hinge, tasks = (
        {name: p.grad for name, p in state.networks.discriminator.named_parameters() if p.grad is not None}
        for state in (engine, without, alone)
    )
    name = "down_16.main.0.weight_orig"
    assert float(tasks[name].norm()) > 0
    assert relative(own[name].flatten(), (hinge[name] + tasks[name]).flatten()) < 0.02


def test_micro_batches_average_the_task() -> None:
    """Two micro-batches that are copies of one have its statistics, and so its loss."""
    config = task_config("rotation", **FROZEN)
    split = task_config("rotation", train={"lr": 1e-30, "batch": 2 * BATCH, "micro_batch": BATCH})
    reals, draws = batch_of(config, seed=4)
    once = engine_step(config, state_of(config))(reals, draws)
    twice = draw_for(split, torch.Generator().manual_seed(5))
    copied = type(draws.augment_real)(*(None if v is None else torch.cat([v, v]) for v in draws.augment_real))
    both = engine_step(split, state_of(split))(torch.cat([reals, reals]), twice._replace(augment_real=copied))
    assert float(both.reconstruction) == pytest.approx(float(once.reconstruction), rel=1e-5)


@pytest.mark.parametrize("task", TASKS)
def test_a_resumed_run_goes_on_as_the_uninterrupted_one(task: str) -> None:
    config = task_config(task)
    reals, _ = batch_of(config, seed=6)
    straight, first, resumed = (build_state(config, CPU, torch.float32) for _ in range(3))

    def advance(state, steps: int) -> None:  # type: ignore[no-untyped-def]
        step = build_step(config, state, build_loss(config), torch.float32)
        for _ in range(steps):
            step(reals, draw_for(config, state.generator))

    advance(straight, 2)
    advance(first, 1)
    resumed.load_state_dict(first.state_dict())
    advance(resumed, 1)
    wanted = straight.networks.discriminator.state_dict()
    for key, value in resumed.networks.discriminator.state_dict().items():
        assert torch.equal(value, wanted[key]), key


@pytest.mark.parametrize("task", TASKS)
def test_step_reads_nothing_on_the_host(task: str) -> None:
    """A fake tensor has no value to read: what runs on them can be captured, as far as that goes."""
    config = task_config(task, engine={"kernels": "reference"})
    with fake_tensors():
        state = build_state(config, CPU, torch.float32)
        step = build_step(config, state, build_loss(config), torch.float32)
        reals = torch.empty(BATCH, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
        losses = step(reals, draw_for(config, torch.Generator().manual_seed(0)))
    assert losses.reconstruction.shape == ()


def test_rotation_is_learnt() -> None:
    """Of images that are bright at the top, which is up can be told: in 40 steps much better than by chance."""
    config = task_config("rotation", train={"lr": 2e-3, "batch": BATCH})
    state = state_of(config)
    step = engine_step(config, state)
    ramp = torch.linspace(1, -1, SIZE)[None, None, :, None].expand(BATCH, 3, SIZE, SIZE)
    reals = ramp.contiguous(memory_format=torch.channels_last)
    losses = [float(step(reals, draw_for(config, state.generator)).reconstruction) for _ in range(40)]
    assert losses[-1] < 0.6 * math.log(4)


def test_contrast_needs_two_images_and_augmentation() -> None:
    with pytest.raises(UserError, match="needs two at once or more, got 1"):
        resolve(sets=["loss.self_supervision=contrastive", "train.micro_batch=1"])
    config = resolve(sets=["loss.self_supervision=contrastive", "loss.augment="])
    assert [warning for warning in config.warnings() if "views are equal" in warning]
    assert resolve(sets=["loss.self_supervision=rotation"]).warnings() == []


def _head(discriminator: nn.Module) -> nn.Module:
    return discriminator.get_submodule("task")
