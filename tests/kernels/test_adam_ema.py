"""Adam with averages against ``torch.optim.Adam``: arithmetic, skipped steps, checkpoints, and the kernels."""

import copy

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from fastgan_engine.kernels.adam_ema import AdamEma, _self_test
from fastgan_engine.kernels.launch import record_launches
from tests.kernels.numerics import DEVICES, assert_as_good_as_eager, poisoned, random_map

IMPLS = ["reference", "triton"]
# Sizes of 1, odd ones, several programs, and whole 16 bytes.
SHAPES = [(1,), (7, 5), (64, 3, 3, 3), (90, 33), (16,)]
SETTINGS = {"lr": 0.01, "betas": (0.5, 0.999)}
DECAY = 0.9


def weights_of(dtype=torch.float32, device="cpu"):
    return [random_map(shape, dtype, device, seed=i).requires_grad_() for i, shape in enumerate(SHAPES)]


def set_grads(weights, step):
    for index, weight in enumerate(weights):
        weight.grad = random_map(weight.shape, torch.float32, seed=1000 * step + index).to(weight)


def adam_ema(weights, impl="triton", **options):
    emas = [weight.detach().clone() for weight in weights]
    return AdamEma(weights, **SETTINGS, emas=emas, decay=DECAY, impl=impl, **options)


def trained(optimizer, weights, emas, steps):
    """Weights, moments and averages after some steps; the averages by their formula where the optimizer has none."""
    for step in range(steps):
        set_grads(weights, step)
        optimizer.step()
        if not isinstance(optimizer, AdamEma):
            for ema, weight in zip(emas, weights, strict=True):
                ema.mul_(DECAY).add_(weight.detach(), alpha=1 - DECAY)
    found = {}
    for index, weight in enumerate(weights):
        found[f"weight {index}"], found[f"ema {index}"] = weight.detach(), emas[index]
        for name in ("exp_avg", "exp_avg_sq"):
            found[f"{name} {index}"] = optimizer.state[weight][name]
        assert optimizer.state[weight]["step"].item() == steps
    return found


def trained_adam(dtype, steps, device="cpu"):
    weights = weights_of(dtype, device)
    emas = [weight.detach().clone() for weight in weights]
    return trained(torch.optim.Adam(weights, **SETTINGS, foreach=False), weights, emas, steps)


def test_reference_equals_adam():
    optimizer = adam_ema(weights_of(torch.float64), "reference")
    got, expected = trained(optimizer, optimizer.weights, optimizer.emas, 25), trained_adam(torch.float64, 25)
    for name, wanted in expected.items():
        torch.testing.assert_close(got[name], wanted, rtol=1e-12, atol=1e-14, msg=name)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("impl", IMPLS)
def test_float32_error(impl, device):
    optimizer = adam_ema(weights_of(device=device), impl)
    with poisoned():
        got = trained(optimizer, optimizer.weights, optimizer.emas, 20)
    assert_as_good_as_eager(got, trained_adam(torch.float32, 20, device), trained_adam(torch.float64, 20, device))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_copies_are_the_rounded_weights(dtype, impl, device):
    weights = weights_of(device=device)
    copies = [torch.full_like(weight, float("nan"), dtype=dtype, requires_grad=False) for weight in weights]
    set_grads(weights, 0)
    adam_ema(weights, impl, copies=copies).step()
    for weight, low in zip(weights, copies, strict=True):
        # The interpreter truncates to bfloat16: one unit in the last place.
        unit = torch.finfo(dtype).eps * weight.detach().abs()
        assert ((low.float() - weight.detach()).abs() <= unit).all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("impl", IMPLS)
def test_gradients_are_divided_by_the_scale(impl, device):
    plain, scaled = (adam_ema(weights_of(device=device), impl) for _ in range(2))
    scale = torch.full((), 1024.0, device=device)
    for step in range(3):
        set_grads(plain.weights, step)
        set_grads(scaled.weights, step)
        for weight in scaled.weights:
            weight.grad *= scale
        plain.step()
        scaled.step(grad_scale=scale)
    for a, b in zip(plain.weights, scaled.weights, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("impl", IMPLS)
def test_a_found_inf_skips_all_but_the_average(impl, device):
    optimizer = adam_ema(weights_of(device=device), impl)
    set_grads(optimizer.weights, 0)
    optimizer.step()
    before = copy.deepcopy(optimizer.state_dict()["state"])
    weights = [weight.detach().clone() for weight in optimizer.weights]
    emas = [ema.clone() for ema in optimizer.emas]
    optimizer.weights[1].grad[3, 3] = float("inf")
    found = optimizer.find_inf()
    assert found.item() == 1.0
    optimizer.step(found_inf=found)
    for old, new in zip(before.values(), optimizer.state_dict()["state"].values(), strict=True):
        for name in ("step", "exp_avg", "exp_avg_sq"):
            torch.testing.assert_close(new[name], old[name], rtol=0, atol=0)
    for weight, old, ema, old_ema in zip(optimizer.weights, weights, optimizer.emas, emas, strict=True):
        torch.testing.assert_close(weight.detach(), old, rtol=0, atol=0)
        torch.testing.assert_close(ema, DECAY * old_ema + (1 - DECAY) * old)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan"), 3e38])
def test_find_inf(value, impl, device):
    optimizer = adam_ema(weights_of(device=device), impl)
    set_grads(optimizer.weights, 0)
    optimizer.weights[0].grad = None
    assert optimizer.find_inf().item() == 0.0
    for index in range(1, len(SHAPES)):
        set_grads(optimizer.weights, 0)
        optimizer.weights[index].grad[(-1,) * len(SHAPES[index])] = value
        assert optimizer.find_inf().item() == (0.0 if value == 3e38 else 1.0)


@pytest.mark.parametrize("impl", IMPLS)
def test_a_weight_without_gradient_is_left_alone(impl):
    optimizer = adam_ema(weights_of(), impl)
    start = optimizer.weights[2].detach().clone()
    for step in range(2):
        set_grads(optimizer.weights, step)
        optimizer.weights[2].grad = None
        optimizer.step()
    torch.testing.assert_close(optimizer.weights[2].detach(), start, rtol=0, atol=0)
    assert [optimizer.state[weight]["step"].item() for weight in optimizer.weights] == [2, 2, 0, 2, 2]


@pytest.mark.parametrize("impl", IMPLS)
def test_gradients_of_another_layout(impl):
    results = []
    for layout in (torch.channels_last, torch.contiguous_format):
        optimizer = adam_ema(weights_of(), impl)
        set_grads(optimizer.weights, 0)
        weight = optimizer.weights[2]
        weight.grad = weight.grad.contiguous(memory_format=layout)
        optimizer.step()
        results.append(weight.detach())
    torch.testing.assert_close(*results, rtol=0, atol=0)


@pytest.mark.parametrize("impl", IMPLS)
def test_grad_scaler_protocol(impl):
    """Only what concerns the optimizer: finite steps like unscaled ones, others skipped, the scale backed off."""
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    ours, plain = adam_ema(weights_of(), impl), adam_ema(weights_of(), impl)
    for factor in (1.0, float("inf"), 2.0):
        for optimizer, scaled in ((ours, True), (plain, False)):
            optimizer.zero_grad()
            loss = sum((factor * weight).sum() for weight in optimizer.weights)
            if scaled:
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
            elif factor != float("inf"):
                loss.backward()
                optimizer.step()
    assert scaler.get_scale() == 128.0
    for a, b in zip(ours.weights, plain.weights, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("impl", IMPLS)
def test_checkpoints_are_exchanged_with_adam(impl):
    """Half the steps in one optimizer and half in the other, through a state dict, either way round."""
    expected = trained_adam(torch.float64, 6)
    for ours_first in (True, False):
        weights = weights_of()
        make_ours, make_adam = lambda w: adam_ema(w, impl), lambda w: torch.optim.Adam(w, **SETTINGS)
        first = (make_ours if ours_first else make_adam)(weights)
        for step in range(3):
            set_grads(weights, step)
            first.step()
        second = (make_adam if ours_first else make_ours)(weights)
        second.load_state_dict(copy.deepcopy(first.state_dict()))
        for step in range(3, 6):
            set_grads(weights, step)
            second.step()
        for index, weight in enumerate(weights):
            torch.testing.assert_close(weight.detach().double(), expected[f"weight {index}"], rtol=1e-5, atol=1e-6)
            assert float(second.state[weight]["step"]) == 6


@pytest.mark.parametrize("impl", IMPLS)
def test_old_checkpoints_load(impl):
    """As PyTorch 1.x wrote them: integer steps, few settings, and moments laid out otherwise."""
    weights = weights_of()
    old = torch.optim.Adam(weights_of(), **SETTINGS)
    set_grads(old.param_groups[0]["params"], 0)
    old.step()
    state = copy.deepcopy(old.state_dict())
    for entry in state["state"].values():
        entry["step"] = int(entry["step"])
        entry["exp_avg"] = entry["exp_avg"].contiguous()
    group = state["param_groups"][0]
    state["param_groups"] = [{k: group[k] for k in ("lr", "betas", "eps", "weight_decay", "amsgrad", "params")}]
    optimizer = adam_ema(weights, impl)
    optimizer.load_state_dict(state)
    for weight, other in zip(weights, old.param_groups[0]["params"], strict=True):
        weight.data.copy_(other.data)
        assert optimizer.state[weight]["step"].item() == 1
        assert optimizer.state[weight]["exp_avg"].stride() == weight.stride()
        torch.testing.assert_close(optimizer.state[weight]["exp_avg"], old.state[other]["exp_avg"], rtol=0, atol=0)
    expected = trained_adam(torch.float64, 2)
    set_grads(weights, 1)
    optimizer.step()
    for index, weight in enumerate(weights):
        torch.testing.assert_close(weight.detach().double(), expected[f"weight {index}"], rtol=1e-5, atol=1e-6)


def test_weights_that_moved_are_found():
    optimizer = adam_ema(weights_of())
    set_grads(optimizer.weights, 0)
    optimizer.step()
    for weight in optimizer.weights:
        weight.data = weight.data.clone()
    got = [weight.detach() for weight in optimizer.weights]
    before = [weight.clone() for weight in got]
    optimizer.step()
    assert all((weight != old).any() for weight, old in zip(got, before, strict=True))


def test_one_launch_for_all_tensors():
    with FakeTensorMode(), record_launches() as launches:
        weights = [torch.empty(size, requires_grad=True) for size in (64, 4096, 12)]
        optimizer = adam_ema(weights)
        for weight in weights:
            weight.grad = torch.empty_like(weight)
        optimizer.step(found_inf=optimizer.find_inf())
    names = [launch.name for launch in launches]
    assert names == ["adam_nonfinite_kernel", "adam_advance_kernel", "adam_ema_kernel"]


@pytest.mark.parametrize("betas", [(0.5, 0.999), (0.0, 0.9999)], ids=str)
@pytest.mark.parametrize("done", [0, 1, 30, 100_000])
def test_corrections_have_all_their_digits(done, betas):
    """1 - beta^t, where beta^t is next to 1, in float64."""
    weight = torch.ones(8, requires_grad=True)
    weight.grad = torch.ones(8)
    optimizer = AdamEma([weight], 0.01, betas, impl="triton")
    optimizer.state[weight]["step"].fill_(done)
    with record_launches() as launches:
        optimizer.step()
    (corrections,) = (x.tensors["corrections_ptr"] for x in launches if x.name == "adam_advance_kernel")
    assert optimizer.state[weight]["step"].item() == done + 1
    assert corrections[0].tolist() == pytest.approx([1 - beta ** (done + 1) for beta in betas], rel=1e-6)


def test_bad_arguments_are_named():
    weights = weights_of()
    with pytest.raises(ValueError, match=r"emas: got 4 tensors, expected 5, as params"):
        AdamEma(weights, 0.01, emas=weights[:4])
    with pytest.raises(ValueError, match=r"emas\[1\]: got shape \(35,\), expected \[7, 5\]"):
        AdamEma(weights[:2], 0.01, emas=[weights[0].detach(), weights[1].detach().flatten()])
    with pytest.raises(ValueError, match=r"emas\[2\]: got .* expected strides"):
        AdamEma(weights, 0.01, emas=[weight.detach().contiguous() for weight in weights])
    with pytest.raises(ValueError, match=r"copies\[0\]: got torch.float32, expected torch.float16 or torch.bfloat16"):
        AdamEma(weights, 0.01, copies=[weight.detach() for weight in weights])
    with pytest.raises(ValueError, match=r"params\[0\]: got torch.float16"):
        AdamEma([weights[0].detach().half().requires_grad_()], 0.01)
    optimizer = AdamEma(weights, 0.01)
    state = torch.optim.Adam(weights, weight_decay=0.1).state_dict()
    with pytest.raises(ValueError, match=r"weight_decay: got 0.1, expected 0"):
        optimizer.load_state_dict(state)
    state = torch.optim.Adam([{"params": weights[:1]}, {"params": weights[1:]}]).state_dict()
    with pytest.raises(ValueError, match=r"param_groups: got 2, expected one group"):
        optimizer.load_state_dict(state)


@pytest.mark.parametrize("device", DEVICES)
def test_self_test_passes(device):
    with poisoned():
        _self_test(torch.device(device), torch.float32)
