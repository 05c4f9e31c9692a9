"""The LPIPS distance against the released package in float64, and its kernels against the reference."""

from functools import partial

import lpips
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgan_engine.kernels import lpips_distance as module
from fastgan_engine.kernels.lpips_distance import _self_test, lpips_distance
from tests.kernels.numerics import DEVICES, DTYPES, check_against_eager, poisoned, random_map

SHAPES = [(1, 1, 1, 1), (3, 5, 3, 2), (2, 34, 5, 7), (1, 64, 4, 9), (2, 130, 3, 3), (1, 512, 2, 3)]


def released(a, b, weight):
    """The package's arithmetic: ``normalize_tensor``, difference, square, 1x1 conv, spatial mean."""
    difference = (lpips.normalize_tensor(a) - lpips.normalize_tensor(b)) ** 2
    linear = torch.nn.functional.conv2d(difference, weight.view(1, -1, 1, 1))
    return lpips.spatial_average(linear, keepdim=False)[:, 0]


def arguments_for(shape, dtype=torch.float32, device="cpu"):
    a, b = (random_map(shape, dtype, device, seed=seed).relu() for seed in range(2))
    weight = random_map((shape[1],), torch.float32, device, seed=2).abs()
    # No pixel is wholly zero: there the gradients are defined otherwise than by the formula.
    return {"a": a + 0.125, "b": b + 0.125, "weight": weight}


def check(arguments, differentiable=("a", "b")):
    check_against_eager(
        partial(lpips_distance, impl="triton"),
        partial(lpips_distance, impl="reference"),
        arguments,
        differentiable=differentiable,
    )


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_reference_equals_the_released_package(shape):
    arguments = {name: value.double() for name, value in arguments_for(shape).items()}
    grad = torch.rand(shape[0], dtype=torch.float64)
    results = []
    for function in (partial(lpips_distance, impl="reference"), released):
        a, b = (arguments[name].clone().requires_grad_() for name in "ab")
        distance = function(a, b, arguments["weight"])
        distance.backward(grad)
        results.append((distance, a.grad, b.grad))
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-13)


def test_reference_in_several_blocks(monkeypatch):
    arguments = {name: value.double() for name, value in arguments_for((2, 34, 5, 7)).items()}
    whole = lpips_distance(**arguments, impl="reference")
    monkeypatch.setattr(module, "CPU_BLOCK", 100)
    a = arguments["a"].requires_grad_()
    parts = lpips_distance(**arguments, impl="reference")
    torch.testing.assert_close(parts, whole, rtol=1e-13, atol=0)
    parts.sum().backward()
    (expected,) = torch.autograd.grad(released(**arguments).sum(), a)
    torch.testing.assert_close(a.grad, expected, rtol=1e-11, atol=1e-13)


def test_gradcheck():
    arguments = {name: value.double() for name, value in arguments_for((2, 5, 2, 3)).items()}
    a, b = (arguments[name].requires_grad_() for name in "ab")
    assert torch.autograd.gradcheck(lambda a, b: lpips_distance(a, b, arguments["weight"], impl="reference"), (a, b))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes(shape, device):
    check(arguments_for(shape, device=device))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("differentiable", ["a", "b", "ab"])
def test_dtypes_and_gradients(differentiable, dtype, device):
    check(arguments_for((2, 70, 5, 9), dtype, device), differentiable=tuple(differentiable))


@given(st.tuples(st.integers(1, 3), st.integers(1, 70), st.integers(1, 9), st.integers(1, 9)))
@settings(max_examples=8, deadline=None)
def test_any_shape(shape):
    check(arguments_for(shape))


@pytest.mark.parametrize("device", DEVICES)
def test_batch_slices(device):
    arguments = arguments_for((6, 10, 3, 3), device=device)
    check({"a": arguments["a"][1:3], "b": arguments["b"][4:], "weight": arguments["weight"]})


@pytest.mark.parametrize("impl", ["reference", "triton"])
@pytest.mark.parametrize("targets", [1, 3, 4])
def test_images_that_share_targets(targets, impl):
    """Image n is compared with n mod T: the same as with the targets repeated."""
    arguments = arguments_for((6, 10, 3, 5))
    shared = arguments | {"b": arguments["b"][:targets]}
    repeated = arguments | {"b": arguments["b"][torch.arange(6) % targets]}
    results = []
    for some in (shared, repeated):
        a = some["a"].clone().requires_grad_()
        distance = lpips_distance(a, some["b"], some["weight"], impl=impl)
        results.append((distance.detach(), *torch.autograd.grad(distance.square().sum(), a)))
    torch.testing.assert_close(*results, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("impl", ["reference", "triton"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_all_zero_features_have_a_zero_gradient(dtype, impl):
    arguments = arguments_for((2, 10, 3, 3), dtype)
    a, b = arguments["a"], arguments["b"]
    a[0, :, 1, 1] = 0
    b[1, :, 2, 0] = 0
    a[1, :, 0, 0] = b[1, :, 0, 0] = 0
    a.requires_grad_()
    b.requires_grad_()
    distance = lpips_distance(a, b, arguments["weight"], impl=impl)
    distance.sum().backward()
    for x in (distance, a.grad, b.grad):
        assert x.isfinite().all()
    assert (a.grad[0, :, 1, 1] == 0).all()
    assert (b.grad[1, :, 2, 0] == 0).all()
    # Where only one side is zero, the distance of the pixel is that to nothing: the weighted square of the other.
    with torch.no_grad():
        pixel = b[:1, :, 1:2, 1:2].float()
        alone = lpips_distance(torch.zeros_like(pixel), pixel, arguments["weight"], impl=impl)
    expected = (arguments["weight"] * pixel.flatten() ** 2).sum() / (pixel**2).sum()
    torch.testing.assert_close(alone[0], expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("impl", ["reference", "triton"])
def test_equal_features_are_at_distance_zero(impl):
    """But for the rounding of one product of the two, since the other is part of a fused multiply-add."""
    arguments = arguments_for((2, 10, 3, 3))
    a, weight = arguments["a"].requires_grad_(), arguments["weight"]
    distance = lpips_distance(a, a.detach().clone(), weight, impl=impl)
    distance.sum().backward()
    rounding = torch.finfo(torch.float32).eps
    assert (distance <= rounding**2 * weight.sum()).all()
    assert (a.grad.abs() <= rounding * weight.max() / a.detach().norm(dim=1).min()).all()


def test_only_the_features_are_kept_for_backward():
    arguments = arguments_for((2, 10, 3, 3), torch.bfloat16)
    inputs = {value.data_ptr() for value in arguments.values()}
    for impl in ("reference", "triton"):
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x, saved=saved: saved.append(x.data_ptr()) or x, lambda x: x
        ):
            lpips_distance(arguments["a"].requires_grad_(), arguments["b"], arguments["weight"], impl=impl)
        assert set(saved) == inputs


def test_bad_arguments_are_named():
    good = arguments_for((2, 10, 3, 3))
    with pytest.raises(ValueError, match=r"a: got shape .* expected a channels-last tensor"):
        lpips_distance(good["a"].contiguous(), good["b"], good["weight"])
    with pytest.raises(ValueError, match=r"b: got shape \(2, 9, 3, 3\), expected \[any, 10, 3, 3\]"):
        lpips_distance(good["a"], random_map((2, 9, 3, 3), torch.float32), good["weight"])
    with pytest.raises(ValueError, match=r"b: got 3 maps, expected at most 2"):
        lpips_distance(good["a"], random_map((3, 10, 3, 3), torch.float32), good["weight"])
    with pytest.raises(ValueError, match=r"b: got shared maps that require a gradient, expected constants"):
        lpips_distance(good["a"], good["b"][:1].clone().requires_grad_(), good["weight"])
    with pytest.raises(ValueError, match=r"b: got torch.float16, expected torch.float32, as a"):
        lpips_distance(good["a"], good["b"].half(), good["weight"])
    with pytest.raises(ValueError, match=r"weight: got shape \(9,\), expected \[10\]"):
        lpips_distance(good["a"], good["b"], good["weight"][:9])
    with pytest.raises(ValueError, match=r"weight: got a tensor that requires a gradient"):
        lpips_distance(good["a"], good["b"], good["weight"].requires_grad_())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_self_test_passes(dtype, device):
    with poisoned():
        _self_test(torch.device(device), dtype)
