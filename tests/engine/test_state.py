"""The average of the weights in closed form, and a training state that survives being saved."""

import copy
import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import spectral_norm

from fastgan_engine.build import build_state
from fastgan_engine.state import TrainingState, update_ema

from .small import small_config

CPU = torch.device("cpu")


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(spectral_norm(nn.Conv2d(3, 4, 3, bias=False)), nn.BatchNorm2d(4), nn.Linear(4, 2)).double()


def test_average_is_the_weighted_sum_of_all_weights_so_far() -> None:
    """ema_n = d^n ema_0 + (1 - d) sum_k d^(n - k) w_k, also for batch norm's running statistics."""
    decay, steps = 0.8, 5
    ema = network(0)
    start = copy.deepcopy(ema.state_dict())
    lives = []
    for step in range(1, steps + 1):
        live = network(step)
        live[1].running_mean.normal_()
        live[1].running_var.uniform_(1, 2)
        live[1].num_batches_tracked.fill_(step)
        update_ema(ema, live, decay)
        lives.append(live.state_dict())
    for name, value in ema.state_dict().items():
        if name.endswith(("weight_u", "weight_v", "num_batches_tracked")):
            assert torch.equal(value, lives[-1][name]), name
            continue
        expected = decay**steps * start[name] + (1 - decay) * sum(
            decay ** (steps - k) * live[name] for k, live in enumerate(lives, start=1)
        )
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12, msg=name)


def test_average_leaves_the_live_network_alone() -> None:
    ema, live = network(0), network(1)
    before = copy.deepcopy(live.state_dict())
    update_ema(ema, live, 0.5)
    torch.testing.assert_close(dict(live.state_dict()), dict(before), rtol=0, atol=0)


def make_state(dtype: torch.dtype = torch.float32, **train: Any) -> TrainingState:
    return build_state(small_config(train=train), CPU, dtype)


def work(state: TrainingState, steps: int) -> None:
    """Updates of both networks from random gradients of the state's own generator; one overflow on the way."""
    for _ in range(steps):
        for name, net, optimizer in (
            ("d", state.networks.discriminator, state.opt_d),
            ("g", state.networks.generator, state.opt_g),
        ):
            scaler = state.scalers[name]
            for p in net.parameters():
                p.grad = scaler.scale(torch.randn(p.shape, generator=state.generator))
            if name == "d" and state.step == 1 and scaler.is_enabled():
                next(net.parameters()).grad.fill_(torch.inf)  # type: ignore[union-attr]
            scaler.step(optimizer)
            scaler.update()
        update_ema(state.networks.ema, state.networks.generator, 0.9)
        state.step += 1


def through_a_file(content: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(content, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def flat(value: Any, name: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        items: Any = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    else:
        return {name: value}
    return {key: item for k, v in items for key, item in flat(v, f"{name}.{k}").items()}


def assert_equal_states(got: dict[str, Any], wanted: dict[str, Any]) -> None:
    got, wanted = flat(got), flat(wanted)
    assert got.keys() == wanted.keys()
    for name, value in wanted.items():
        same = torch.equal(got[name], value) if isinstance(value, Tensor) else got[name] == value
        assert same, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_restored_state_goes_on_as_the_saved_one(dtype: torch.dtype) -> None:
    state = make_state(dtype, seed=1)
    work(state, 3)
    saved = through_a_file(state.state_dict())
    restored = make_state(dtype, seed=2)
    restored.load_state_dict(saved)
    assert_equal_states(restored.state_dict(), saved)
    global_numbers = torch.rand(3)
    restored.load_state_dict(saved)
    assert torch.equal(torch.rand(3), global_numbers)
    work(state, 2)
    work(restored, 2)
    assert restored.step == 5
    ours, theirs = restored.state_dict(), state.state_dict()
    for content in (ours, theirs):
        content["random"].pop("cpu")  # drawn from above
    assert_equal_states(ours, theirs)


def test_loss_scales_are_restored_apart() -> None:
    state = make_state(torch.float16)
    work(state, 3)
    scales = {name: scaler.get_scale() for name, scaler in state.scalers.items()}
    assert scales == {"d": 2.0**15, "g": 2.0**16}  # D met an overflow
    restored = make_state(torch.float16)
    restored.load_state_dict(through_a_file(state.state_dict()))
    assert {name: scaler.get_scale() for name, scaler in restored.scalers.items()} == scales
    assert restored.scalers["g"].state_dict()["_growth_tracker"] == 3


@pytest.mark.parametrize(("before", "after"), [(torch.float32, torch.float16), (torch.float16, torch.float32)], ids=str)
def test_precision_may_change_on_resume(before: torch.dtype, after: torch.dtype) -> None:
    state = make_state(before)
    work(state, 2)
    restored = make_state(after)
    restored.load_state_dict(through_a_file(state.state_dict()))
    work(restored, 1)
    assert restored.step == 3


def test_learning_rate_of_the_configuration_holds_after_a_resume() -> None:
    state = make_state(lr=2e-4)
    work(state, 2)
    restored = make_state(lr=1e-5, beta1=0.25)
    restored.load_state_dict(through_a_file(state.state_dict()))
    for optimizer in (restored.opt_g, restored.opt_d):
        (group,) = optimizer.param_groups
        assert (group["lr"], group["betas"]) == (1e-5, (0.25, 0.999))
    moments = [s["exp_avg"] for s in restored.opt_d.state.values()]
    torch.testing.assert_close(moments, [s["exp_avg"] for s in state.opt_d.state.values()], rtol=0, atol=0)


def test_state_of_other_networks_is_refused() -> None:
    saved = make_state().state_dict()
    other = build_state(small_config(model={"ngf": 16}), CPU, torch.float32)
    with pytest.raises(RuntimeError, match="size mismatch"):
        other.load_state_dict(saved)
