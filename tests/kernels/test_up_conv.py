"""Upsampling and conv 3x3 as a transposed convolution: exactness, and its kernel as ``spectral`` makes it."""

import itertools
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd.function import once_differentiable

from fastgan_engine.kernels.spectral import SpectralBatch, SpectralLayer
from fastgan_engine.kernels.up_conv import collect, spread, transposed_from, up_conv
from tests.kernels.numerics import DEVICES, DTYPES, check_against_eager, random_map

CHANNELS = [(1, 1), (3, 5), (32, 32), (33, 31), (2, 70)]


class Assemble(torch.autograd.Function):
    """``spread`` with ``collect`` as its gradient."""

    @staticmethod
    def forward(ctx, weight):
        return spread(weight, weight.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        return collect(grad, grad.dtype)


def plain(x, weight):
    return F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, padding=1)


def transposed(x, weight):
    return up_conv(x, Assemble.apply(weight))


def normalised(impl, dtype, **weights):
    """Kernels of the transposed convolutions of weights, divided by sigma; the vectors are fixed."""
    layers = []
    for index, weight in enumerate(weights.values()):
        outputs = weight.shape[0]
        u, v = (random_map((n,), weight.dtype, weight.device, seed=9 + index) for n in (outputs, weight[0].numel()))
        layers.append(SpectralLayer(weight, u / u.norm(), v / v.norm(), upsampled=True))
    batch = SpectralBatch(layers, impl=impl)
    wanted = torch.float64 if layers[0].weight.dtype == torch.float64 else dtype
    return tuple(batch.normalised(batch.step(), wanted))


def check(*weights, dtype=torch.float32):
    arguments = {f"weight {index}": weight for index, weight in enumerate(weights)}
    check_against_eager(
        partial(normalised, "triton", dtype), partial(normalised, "reference", dtype), arguments,
        differentiable=list(arguments),
    )  # fmt: skip


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 1, 5), (2, 7, 4, 6), (1, 4, 9, 9)], ids=str)
def test_both_forms_are_one_function(shape):
    x, weight = random_map(shape, torch.float64), random_map((5, shape[1], 3, 3), torch.float64, seed=1)
    grad = random_map((shape[0], 5, 2 * shape[2], 2 * shape[3]), torch.float64, seed=2)
    results = []
    for function in (plain, transposed, up_conv):
        leaves = x.clone().requires_grad_(), weight.clone().requires_grad_()
        y = function(*leaves)
        y.backward(grad)
        results.append((y, *(leaf.grad for leaf in leaves)))
    for result in results[1:]:
        for got, expected in zip(result, results[0], strict=True):
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-13)


def test_gradcheck():
    x, weight = random_map((1, 2, 2, 3), torch.float64), random_map((3, 2, 3, 3), torch.float64, seed=1)
    assert torch.autograd.gradcheck(transposed, (x.requires_grad_(), weight.requires_grad_()))


@pytest.mark.parametrize("impl", ["plain", "reference", "triton"])
def test_assembly_by_hand(impl):
    """Each tap of the kernel, from the sums of rows and columns written out."""
    weight = random_map((2, 3, 3, 3), torch.float32)
    rows = ([2], [1, 2], [0, 1], [0])
    kernel = Assemble.apply(weight) if impl == "plain" else normalised(impl, torch.float32, weight=weight)[0]
    scale = 1.0
    if impl != "plain":
        # The middle tap of four is one of the weight's, divided by sigma.
        scale = kernel[0, 0, 3, 3].item() / weight[0, 0, 0, 0].item()
        assert scale != 1.0
    for o, i, y, x in itertools.product(range(2), range(3), range(4), range(4)):
        expected = scale * sum(weight[o, i, a, b].item() for a, b in itertools.product(rows[y], rows[x]))
        assert kernel[i, o, y, x].item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("channels", CHANNELS, ids=str)
def test_assembly_shapes(channels, device):
    check(random_map((*channels, 3, 3), torch.float32, device))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_layers_with_and_without_wide_accesses_at_once(dtype, device):
    shapes = [(40, 16, 3, 3), (9, 6, 3, 3), (16, 72, 3, 3)]
    check(*(random_map(shape, torch.float32, device, seed=n) for n, shape in enumerate(shapes)), dtype=dtype)


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
    check_against_eager(transposed, plain, arguments, differentiable=["x", "weight"])


@pytest.mark.parametrize("function", [up_conv, transposed])
def test_layouts_are_kept(function):
    x, weight = random_map((2, 8, 4, 4), torch.float32), random_map((6, 8, 3, 3), torch.float32)
    for layout in (torch.channels_last, torch.contiguous_format):
        leaf = weight.detach().contiguous(memory_format=layout).requires_grad_()
        y = function(x, leaf)
        assert y.is_contiguous(memory_format=torch.channels_last)
        y.sum().backward()
        assert leaf.grad.is_contiguous(memory_format=layout)


def test_the_rule_is_lower_where_triton_assembles():
    weight = torch.empty(1)
    assert transposed_from("triton", weight) < transposed_from("reference", weight)


def test_bad_arguments_are_named():
    x, weight = torch.zeros(1, 3, 4, 4), torch.zeros(2, 3, 3, 3)
    with pytest.raises(ValueError, match=r"weight: got shape \(2, 4, 3, 3\), expected \[any, 3, 3, 3\]"):
        up_conv(x, torch.zeros(2, 4, 3, 3))
    with pytest.raises(ValueError, match=r"weight: got shape \(2, 3, 4, 4\), expected \[3, any, 4, 4\]"):
        up_conv(x, torch.zeros(2, 3, 4, 4))
    with pytest.raises(ValueError, match=r"weight: got torch.float16, expected torch.float32, as x"):
        up_conv(x, weight.half())
    with pytest.raises(ValueError, match=r"x: got shape \(3, 4, 4\)"):
        up_conv(x[0], weight)
    contiguous = SpectralLayer(torch.zeros(2, 3, 3, 3), torch.zeros(2), torch.zeros(27), upsampled=True)
    with pytest.raises(ValueError, match=r"layers\[0\].weight: got an up-convolution that is contiguous"):
        SpectralBatch([contiguous], impl="triton").step()
    with pytest.raises(ValueError, match=r"layers\[0\].weight: got shape \(2, 3, 4, 4\), expected \[any, any, 3, 3\]"):
        SpectralBatch([SpectralLayer(torch.zeros(2, 3, 4, 4), torch.zeros(2), torch.zeros(48), upsampled=True)])
