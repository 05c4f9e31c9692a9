"""Features that are compared: one pass after a convolution against the package's distance and PyTorch's layers."""

from functools import partial

import lpips
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fastgan_engine.kernels.conv_tap import _self_test, conv_features, conv_tap
from tests.kernels.numerics import DEVICES, DTYPES, assert_as_good_as_eager, check_wide_offsets, poisoned, random_map
from tests.kernels.numerics import run as run_function
from tests.kernels.test_conv_relu import layer_of, whole

# [B, T, I, O, H, W]
SHAPES = [
    (1, 1, 1, 1, 1, 1), (1, 1, 2, 8, 2, 2), (4, 2, 3, 24, 5, 7), (3, 1, 2, 9, 1, 6), (3, 2, 5, 64, 4, 6),
    (6, 3, 2, 130, 3, 2),
]  # fmt: skip


def arguments_for(shape, dtype=torch.float32, device="cpu"):
    batch, targets, inputs, outputs, height, width = shape
    return layer_of(inputs, outputs, dtype, device) | {
        "x": whole((batch, inputs, height, width), dtype, device),
        "target": random_map((targets, outputs, height, width), dtype, device, seed=3).relu() + 0.125,
        "linear": random_map((outputs,), torch.float32, device, seed=4).abs(),
    }


def released(x, weight, bias, target, linear, pool=True):
    """PyTorch's layers and the package's arithmetic."""
    y = F.relu(F.conv2d(x, weight, bias, padding=1))
    b = target[torch.arange(len(x)) % len(target)]
    difference = (lpips.normalize_tensor(y) - lpips.normalize_tensor(b)) ** 2
    distance = F.conv2d(difference, linear.view(1, -1, 1, 1)).mean((2, 3))
    return (distance, F.max_pool2d(y, 2)) if pool else distance


def check(arguments, pool):
    """The error rule, with the package's arithmetic in fp64 as the truth; distances are compared as sums."""

    def summed(impl, **arguments):
        parts, pooled = conv_tap(**arguments, pool=pool, impl=impl)
        distance = parts.sum(1, keepdim=True)
        return (distance, pooled) if pool else distance

    pool = pool and min(arguments["x"].shape[2:]) > 1
    exact = {name: value.double() for name, value in arguments.items()}
    with poisoned():
        fused = run_function(partial(summed, "triton"), arguments, ["x"])
    eager = run_function(partial(summed, "reference"), arguments, ["x"])
    disturbed = {name: value * (1 + torch.finfo(torch.float32).eps) for name, value in exact.items()}
    assert_as_good_as_eager(
        fused,
        eager,
        run_function(partial(released, pool=pool), exact, ["x"], like=fused),
        [run_function(partial(released, pool=pool), disturbed, ["x"], like=fused)],
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes(shape, device):
    check(arguments_for(shape, device=device), pool=True)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("pool", [True, False], ids=["pool", "last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtypes(dtype, pool, device):
    check(arguments_for((4, 2, 3, 40, 7, 6), dtype, device), pool)


SIDES = st.integers(1, 7)


@given(st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 30), SIDES, SIDES), st.integers(0, 2))
@settings(max_examples=6, deadline=None)
def test_any_shape(shape, more):
    check(arguments_for((shape[0] + more, *shape)), pool=True)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("impl", ["reference", "triton"])
def test_windows_are_decided_as_pytorch_does(impl, dtype):
    """Ties, among them all-zero windows, and NaN: the same pixel gets the gradient."""
    values = torch.zeros(4, 12)
    values[:, :6] = torch.tensor([[3, 3, 0, 0, 1, 2], [3, 3, 0, 0, 2, 2], [0, 5, -1, 7, -1, 4], [5, 0, 7, 7, 4, -1]])
    values[1, 10] = float("nan")  # which the convolution spreads to its neighbours
    x = values[None, None].to(dtype, memory_format=torch.channels_last)
    layer = {"weight": torch.zeros(1, 1, 3, 3, dtype=dtype), "bias": torch.zeros(1, dtype=dtype)}
    layer["weight"][0, 0, 1, 1] = 1
    target, linear = torch.ones(1, 1, 4, 12, dtype=dtype), torch.zeros(1)
    results = []
    for function in (
        lambda x: conv_tap(x, **layer, target=target, linear=linear, pool=True, impl=impl)[1],
        lambda x: F.max_pool2d(F.relu(F.conv2d(x, **layer, padding=1)), 2),
    ):
        leaf = x.clone().requires_grad_()
        pooled = function(leaf)
        (grad,) = torch.autograd.grad(pooled, leaf, torch.arange(1.0, 13.0, dtype=dtype).view(1, 1, 2, 6))
        results.append((pooled.detach(), grad[..., :8]))
    assert results[0][0].isnan().any()
    assert results[0][1].count_nonzero() == 5  # of the windows that are not all zero
    torch.testing.assert_close(*results, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_features_of_targets(dtype):
    arguments = arguments_for((3, 3, 4, 24, 5, 6), dtype)
    layer = {name: arguments[name] for name in ("x", "weight", "bias")}
    with poisoned():
        y, pooled = conv_features(**layer, pool=True, impl="triton")
        last = conv_features(**layer, pool=False, impl="triton")
    exact = F.relu(F.conv2d(*(value.double() for value in layer.values()), padding=1))
    eager = conv_features(**layer, pool=True, impl="reference")
    assert_as_good_as_eager(
        {"features": y, "pooled": pooled}, dict(zip(("features", "pooled"), eager, strict=True)),
        {"features": exact, "pooled": F.max_pool2d(exact, 2)},
    )  # fmt: skip
    assert torch.equal(pooled, F.max_pool2d(y, 2))
    assert torch.equal(last[0], y)
    assert last[1] is None
    assert not y.requires_grad


@pytest.mark.parametrize("impl", ["reference", "triton"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_all_zero_features_have_a_zero_gradient(dtype, impl):
    arguments = arguments_for((2, 1, 3, 16, 4, 4), dtype)
    arguments["bias"] -= 1e3
    x = arguments.pop("x").requires_grad_()
    parts, pooled = conv_tap(x, **arguments, pool=True, impl=impl)
    (parts.sum() + pooled.float().sum()).backward()
    assert torch.equal(x.grad, torch.zeros_like(x))
    # The distance to nothing is the weighted square of the normalised target.
    target = arguments["target"].double()
    wanted = ((target / target.norm(dim=1, keepdim=True)) ** 2 * arguments["linear"][:, None, None]).sum(1).mean()
    torch.testing.assert_close(parts.sum(1).double(), wanted.expand(2), rtol=1e-5, atol=0)


def test_a_slope_beyond_float16_stays_finite():
    """Next to no features: the slope is 1 / norm, here about 1e6."""
    arguments = arguments_for((1, 1, 1, 8, 2, 2), torch.float16)
    arguments |= {"weight": torch.zeros_like(arguments["weight"]), "bias": torch.full((8,), 4e-7, dtype=torch.float16)}
    arguments["target"][:, ::2] = 0
    x = arguments.pop("x").requires_grad_()
    parts, _ = conv_tap(x, **arguments, pool=False, impl="triton")
    parts.sum().backward()
    assert x.grad.isfinite().all()


def test_slope_and_choices_are_kept_for_backward():
    arguments = arguments_for((4, 2, 3, 16, 4, 4), torch.bfloat16)
    x = arguments.pop("x").requires_grad_()
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x):
        conv_tap(x, **arguments, pool=True, impl="triton")
    kept = {x.dtype: x.numel() for x in saved if x.data_ptr() != arguments["weight"].data_ptr()}
    assert kept == {torch.bfloat16: 4 * 16 * 16, torch.uint8: 4 * 16 * 4}


def test_offsets_beyond_32_bits():
    def function():
        x = torch.empty(10, 1, 2048, 2048, dtype=torch.float16).requires_grad_()
        weight, bias, linear = torch.empty(64, 1, 3, 3).half(), torch.empty(64).half(), torch.empty(64)
        target = torch.empty(10, 64, 2048, 2048, dtype=x.dtype, memory_format=torch.channels_last)
        parts, pooled = conv_tap(x, weight, bias, target, linear, pool=True, impl="triton")
        return parts.sum() + pooled.sum()

    check_wide_offsets(function, "conv_tap_kernel", "conv_tap_gradient_kernel")


def test_bad_arguments_are_named():
    good = arguments_for((4, 2, 3, 16, 4, 4)) | {"pool": True}
    with pytest.raises(ValueError, match=r"target: got 5 maps, expected at most 4"):
        conv_tap(**good | {"target": random_map((5, 16, 4, 4), torch.float32)})
    with pytest.raises(ValueError, match=r"target: got shape \(2, 15, 4, 4\), expected \[any, 16, 4, 4\]"):
        conv_tap(**good | {"target": random_map((2, 15, 4, 4), torch.float32)})
    with pytest.raises(ValueError, match=r"target: got torch.float16, expected torch.float32, as x"):
        conv_tap(**good | {"target": good["target"].half()})
    with pytest.raises(ValueError, match=r"linear: got a tensor that requires a gradient"):
        conv_tap(**good | {"linear": nn.Parameter(good["linear"])})
    with pytest.raises(ValueError, match=r"weight: got a tensor that requires a gradient"):
        conv_tap(**good | {"weight": nn.Parameter(good["weight"])})


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_self_test_passes(dtype, device):
    with poisoned():
        _self_test(torch.device(device), dtype)
