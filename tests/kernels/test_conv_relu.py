"""A frozen convolution with bias and ReLU against PyTorch's own layers, and its kernels against fp64."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fastgan_engine.kernels.conv_relu import _self_test, conv_relu
from tests.kernels.numerics import DEVICES, DTYPES, check_against_eager, check_wide_offsets, poisoned, random_map

# [B, I, O, H, W]: output channels are a multiple of 8.
SHAPES = [(1, 1, 8, 1, 1), (3, 3, 24, 5, 7), (1, 2, 8, 1, 9), (2, 5, 64, 4, 3), (2, 8, 136, 3, 2)]


def whole(shape, dtype, device, *, seed=0):
    """-1, 0 or 1: convolutions of it are exact in any precision, so that no rounding decides what is positive."""
    return random_map(shape, dtype, device, seed=seed).round().clamp(-1, 1)


def layer_of(inputs, outputs, dtype, device):
    """The bias lies between whole numbers."""
    return {
        "weight": whole((outputs, inputs, 3, 3), dtype, device, seed=1),
        "bias": whole((outputs,), dtype, device, seed=2) + 0.5,
    }


def arguments_for(shape, dtype=torch.float32, device="cpu"):
    batch, inputs, outputs, height, width = shape
    return layer_of(inputs, outputs, dtype, device) | {"x": whole((batch, inputs, height, width), dtype, device)}


def check(arguments):
    check_against_eager(
        partial(conv_relu, impl="triton"), partial(conv_relu, impl="reference"), arguments, differentiable=["x"]
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes(shape, device):
    check(arguments_for(shape, device=device))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtypes(dtype, device):
    check(arguments_for((2, 3, 72, 5, 6), dtype, device))


@given(st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5), st.integers(1, 9), st.integers(1, 9)))
@settings(max_examples=6, deadline=None)
def test_any_shape(shape):
    batch, inputs, groups, height, width = shape
    check(arguments_for((batch, inputs, 8 * groups, height, width)))


@pytest.mark.parametrize("impl", ["reference", "triton"])
def test_it_is_a_layer_of_a_trunk(impl):
    """``nn.Conv2d`` and ``nn.ReLU`` in fp64, rounded once."""
    arguments = arguments_for((2, 3, 16, 5, 4))
    layer = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU()).double()
    layer[0].weight.data.copy_(arguments["weight"])
    layer[0].bias.data.copy_(arguments["bias"])
    results = []
    for function, x in (
        (partial(conv_relu, weight=arguments["weight"], bias=arguments["bias"], impl=impl), arguments["x"]),
        (layer, arguments["x"].double()),
    ):
        x = x.requires_grad_()
        y = function(x)
        results.append((y.detach(), *torch.autograd.grad(y.square().sum(), x)))
    for got, wanted in zip(*results, strict=True):
        torch.testing.assert_close(got.double(), wanted, rtol=1e-5, atol=1e-5)


def test_a_bit_an_element_is_kept_for_backward():
    arguments = arguments_for((2, 3, 16, 4, 4), torch.bfloat16)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x):
        conv_relu(**arguments | {"x": arguments["x"].requires_grad_()}, impl="triton")
    kept = [x for x in saved if x.data_ptr() != arguments["weight"].data_ptr()]
    assert [(x.dtype, x.numel()) for x in kept] == [(torch.uint8, 2 * 16 * 16 // 8)]
    assert conv_relu(**arguments | {"x": arguments["x"].detach()}, impl="triton").grad_fn is None


@pytest.mark.parametrize("impl", ["reference", "triton"])
def test_nan_is_not_lost(impl):
    arguments = arguments_for((1, 1, 8, 3, 3))
    arguments["x"][0, 0, 0, 0] = float("nan")
    y = conv_relu(**arguments, impl=impl)
    assert y[0, :, 0, 0].isnan().all()
    assert y[0, :, 2, 2].isfinite().all()


def test_offsets_beyond_32_bits():
    def function():
        x = torch.empty(9, 1, 2048, 2048, dtype=torch.float16).requires_grad_()
        return conv_relu(x, torch.empty(64, 1, 3, 3, dtype=x.dtype), torch.empty(64, dtype=x.dtype), impl="triton")

    check_wide_offsets(function, "conv_relu_kernel", "conv_relu_gradient_kernel")


def test_bad_arguments_are_named():
    good = arguments_for((2, 3, 16, 5, 4))
    with pytest.raises(ValueError, match=r"x: got shape .* expected a channels-last tensor"):
        conv_relu(**good | {"x": good["x"].contiguous()})
    with pytest.raises(ValueError, match=r"weight: got shape \(16, 3, 3, 3\), expected \[any, 2, 3, 3\]"):
        conv_relu(**good | {"x": random_map((2, 2, 5, 4), torch.float32)})
    with pytest.raises(ValueError, match=r"weight: got torch.float16, expected torch.float32, as x"):
        conv_relu(**good | {"weight": good["weight"].half()})
    with pytest.raises(ValueError, match=r"bias: got a tensor that requires a gradient"):
        conv_relu(**good | {"bias": nn.Parameter(good["bias"])})
    with pytest.raises(ValueError, match=r"weight: got 12 output channels, expected a multiple of 8"):
        conv_relu(**good | {"weight": good["weight"][:12], "bias": good["bias"][:12]}, impl="triton")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_self_test_passes(dtype, device):
    with poisoned():
        _self_test(torch.device(device), dtype)


def test_reference_is_plain_pytorch():
    good = arguments_for((1, 2, 8, 3, 3))
    assert torch.equal(
        conv_relu(**good, impl="reference"), F.relu(F.conv2d(good["x"], good["weight"], good["bias"], padding=1))
    )
