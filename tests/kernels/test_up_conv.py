"""Upsampling and conv 3x3 as a transposed convolution: exactness, and the kernels of its assembly."""

import itertools
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgan_engine.kernels.up_conv import (
    _AssembleFunction,
    _self_test,
    assemble_reference,
    transposed_pays,
    up_conv,
)
from tests.kernels.numerics import DEVICES, DTYPES, check_against_eager, poisoned, random_map

CHANNELS = [(1, 1), (3, 5), (32, 32), (33, 31), (2, 70)]


def plain(x, weight):
    return F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, padding=1)


def assembled(weight, impl):
    return _AssembleFunction.apply(weight) if impl == "triton" else assemble_reference(weight)


def check(weight):
    check_against_eager(
        partial(assembled, impl="triton"), partial(assembled, impl="reference"), {"weight": weight},
        differentiable=["weight"],
    )  # fmt: skip


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 1, 5), (2, 7, 4, 6), (1, 4, 9, 9)], ids=str)
def test_both_forms_are_one_function(shape):
    x, weight = random_map(shape, torch.float64), random_map((5, shape[1], 3, 3), torch.float64, seed=1)
    grad = random_map((shape[0], 5, 2 * shape[2], 2 * shape[3]), torch.float64, seed=2)
    results = []
    for function in (plain, partial(up_conv, method="transposed"), partial(up_conv, method="direct")):
        leaves = x.clone().requires_grad_(), weight.clone().requires_grad_()
        y = function(*leaves)
        y.backward(grad)
        results.append((y, *(leaf.grad for leaf in leaves)))
    for result in results[1:]:
        for got, expected in zip(result, results[0], strict=True):
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-13)


def test_gradcheck():
    x, weight = random_map((1, 2, 2, 3), torch.float64), random_map((3, 2, 3, 3), torch.float64, seed=1)
    leaves = x.requires_grad_(), weight.requires_grad_()
    assert torch.autograd.gradcheck(partial(up_conv, method="transposed"), leaves)


@pytest.mark.parametrize("impl", ["reference", "triton"])
def test_assembly_by_hand(impl):
    """Each tap of the kernel, from the sums of rows and columns written out."""
    weight = random_map((2, 3, 3, 3), torch.float32)
    rows = ([2], [1, 2], [0, 1], [0])
    kernel = assembled(weight, impl)
    for o, i, y, x in itertools.product(range(2), range(3), range(4), range(4)):
        expected = sum(weight[o, i, a, b].item() for a, b in itertools.product(rows[y], rows[x]))
        assert kernel[i, o, y, x].item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("channels", CHANNELS, ids=str)
def test_assembly_shapes(channels, device):
    check(random_map((*channels, 3, 3), torch.float32, device))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", ["channels_last", "contiguous", "sliced"])
def test_assembly_layouts_and_dtypes(layout, dtype, device):
    weight = random_map((9, 6, 3, 3), dtype, device)
    if layout == "contiguous":
        weight = weight.contiguous()
    if layout == "sliced":
        weight = random_map((9, 12, 3, 3), dtype, device)[:, ::2]
    check(weight)


@given(st.integers(1, 40), st.integers(1, 40))
@settings(max_examples=5, deadline=None)
def test_assembly_of_any_channels(channels_out, channels_in):
    check(random_map((channels_out, channels_in, 3, 3), torch.float32))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_whole_operation(dtype, device):
    """Rounding the summed taps once costs no more than the rounding of the taps themselves."""
    if device == "cpu" and dtype == torch.float16:
        pytest.skip("the CPU's float16 convolutions are slow")
    arguments = {
        "x": random_map((2, 12, 5, 4), dtype, device),
        "weight": random_map((10, 12, 3, 3), dtype, device, seed=1),
    }
    check_against_eager(
        partial(up_conv, method="transposed", impl="triton"), plain, arguments, differentiable=["x", "weight"]
    )


@pytest.mark.parametrize("impl", ["reference", "triton"])
@pytest.mark.parametrize("method", ["direct", "transposed"])
def test_layouts_are_kept(method, impl):
    x, weight = random_map((2, 8, 4, 4), torch.float32), random_map((6, 8, 3, 3), torch.float32)
    for layout in (torch.channels_last, torch.contiguous_format):
        leaf = weight.detach().contiguous(memory_format=layout).requires_grad_()
        y = up_conv(x, leaf, method=method, impl=impl)
        assert y.is_contiguous(memory_format=torch.channels_last)
        y.sum().backward()
        assert leaf.grad.is_contiguous(memory_format=layout)


def test_the_rule_counts_the_pixels_of_the_batch():
    assert not transposed_pays(torch.empty(8, 1024, 4, 4))
    assert transposed_pays(torch.empty(4, 512, 8, 8))
    assert transposed_pays(torch.empty(1, 3, 16, 16))


def test_bad_arguments_are_named():
    x, weight = torch.zeros(1, 3, 4, 4), torch.zeros(2, 3, 3, 3)
    with pytest.raises(ValueError, match=r"method: got 'fast', expected one of auto, direct, transposed"):
        up_conv(x, weight, method="fast")
    with pytest.raises(ValueError, match=r"weight: got shape \(2, 4, 3, 3\), expected \[any, 3, 3, 3\]"):
        up_conv(x, torch.zeros(2, 4, 3, 3))
    with pytest.raises(ValueError, match=r"weight: got torch.float16, expected torch.float32, as x"):
        up_conv(x, weight.half())
    with pytest.raises(ValueError, match=r"x: got shape \(3, 4, 4\)"):
        up_conv(x[0], weight)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_self_test_passes(dtype, device):
    with poisoned():
        _self_test(torch.device(device), dtype)
