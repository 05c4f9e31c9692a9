"""Spectral norm of a whole network against PyTorch's legacy hook in float64, and its kernels against the reference."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from fastgan_engine.kernels.launch import record_launches
from fastgan_engine.kernels.spectral import SpectralBatch, SpectralLayer, _self_test
from tests.kernels.numerics import DEVICES, DTYPES, check_against_eager, poisoned, random_map

LAYOUTS = [torch.channels_last, torch.contiguous_format]
# Weight shape and dim: rows that are and are not of whole 16 bytes, more than one tile either way, sizes of 1.
LAYERS = [
    ((1, 3, 1, 1), 0), ((5, 3, 3, 3), 0), ((16, 8, 1, 1), 0), ((130, 20, 3, 3), 0), ((3, 37, 4, 4), 0),
    ((7, 5, 3, 2), 0), ((33, 7, 4, 4), 1), ((3, 132, 2, 2), 1), ((1, 2, 1, 1), 1),
]  # fmt: skip


def modules(dtype=torch.float64, memory_format=torch.channels_last):
    """A few layers under the legacy hook, of one generator seed."""
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 8, 3, bias=False), nn.Conv2d(6, 5, 1, bias=False), nn.Conv2d(4, 1, 4, bias=False),
        nn.Conv2d(7, 9, (2, 3), bias=False), nn.ConvTranspose2d(5, 6, 4, bias=False),
    ]  # fmt: skip
    hooked = nn.ModuleList(nn.utils.spectral_norm(layer) for layer in layers)
    return hooked.to(dtype).to(memory_format=memory_format)


def hooked_weight(module, training):
    """The weight as the hook makes it for one forward pass."""
    module.train(training)
    for hook in module._forward_pre_hooks.values():
        hook(module, ())
    return module.weight


def grad_for(weight, seed):
    return random_map(weight.shape, weight.dtype, seed=seed)


@pytest.mark.parametrize("memory_format", LAYOUTS, ids=str)
def test_reference_equals_the_legacy_hook(memory_format):
    """Weights, vectors and gradients of three passes in training and one in evaluation; backward comes after all.

    The evaluation comes last, since the hook does not copy its vectors then.
    """
    passes = (True, True, True, False)
    theirs, ours = modules(memory_format=memory_format), modules(memory_format=memory_format)
    batch = SpectralBatch([SpectralLayer.of(module) for module in ours], impl="reference")
    expected = [[hooked_weight(module, training) for module in theirs] for training in passes]
    got = [batch.normalised(batch.step(training), torch.float64) for training in passes]
    for index, (a, b) in enumerate(zip(got, expected, strict=True)):
        for weight, wanted in zip(a, b, strict=True):
            torch.testing.assert_close(weight, wanted, rtol=1e-12, atol=0)
        for weights in (a, b):
            torch.autograd.backward(weights, [grad_for(weight, index) for weight in weights])
    for module, wanted in zip(ours, theirs, strict=True):
        assert module.weight_orig.grad.stride() == module.weight_orig.stride()
        torch.testing.assert_close(module.weight_orig.grad, wanted.weight_orig.grad, rtol=1e-11, atol=1e-13)
        for name in ("weight_u", "weight_v"):
            torch.testing.assert_close(getattr(module, name), getattr(wanted, name), rtol=1e-12, atol=1e-14)


def test_gradcheck():
    """With u and v constant and sigma = u . W v."""
    layers = [SpectralLayer.of(module) for module in modules()[1:3]]
    batch = SpectralBatch(layers, impl="reference")
    state = batch.step()
    u0, v0, u1, v1 = state.vectors.split([layer[part].numel() for layer in layers for part in (1, 2)])

    def function(*weights):
        sigmas = [
            torch.dot(u, layer.view(weight.detach()).flatten(1).mv(v))
            for layer, weight, u, v in zip(layers, weights, (u0, u1), (v0, v1), strict=True)
        ]
        moved = [layer._replace(weight=weight) for layer, weight in zip(layers, weights, strict=True)]
        moved_state = state._replace(sigma=torch.stack(sigmas))
        return tuple(SpectralBatch(moved, impl="reference").normalised(moved_state, torch.float64))

    assert torch.autograd.gradcheck(function, tuple(layer.weight for layer in layers))


def arguments_for(layers, memory_format=torch.channels_last, device="cpu"):
    """weight, u, v of each layer; the vectors of unit length, as a checkpoint has them."""
    arguments = {}
    for index, (shape, dim) in enumerate(layers):
        weight = random_map(shape, torch.float32, device, seed=index)
        sizes = (shape[dim], weight.numel() // shape[dim])
        u, v = (random_map((n,), torch.float32, device, seed=50 + index) for n in sizes)
        arguments[f"weight {index}"] = weight.contiguous(memory_format=memory_format)
        arguments[f"u {index}"], arguments[f"v {index}"] = u / u.norm(), v / v.norm()
    return arguments


def normalised_weights(arguments, dims, impl, training, dtype):
    """The op as a function of tensors: all normalised weights."""
    layers = [
        SpectralLayer(arguments[f"weight {i}"], arguments[f"u {i}"], arguments[f"v {i}"], dim)
        for i, dim in enumerate(dims)
    ]
    batch = SpectralBatch(layers, impl=impl)
    exact = layers[0].weight.dtype == torch.float64
    return tuple(batch.normalised(batch.step(training), torch.float64 if exact else dtype))


def check(layers, memory_format=torch.channels_last, device="cpu", *, training=True, dtype=torch.float32):
    def function(impl, **arguments):
        return normalised_weights(arguments, [dim for _, dim in layers], impl, training, dtype)

    arguments = arguments_for(layers, memory_format, device)
    check_against_eager(
        partial(function, "triton"), partial(function, "reference"), arguments,
        differentiable=[name for name in arguments if name.startswith("weight")],
        mutated=[name for name in arguments if name[0] in "uv"],
    )  # fmt: skip


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
def test_all_layers_at_once(training, dtype, device):
    check(LAYERS, device=device, training=training, dtype=dtype)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
def test_contiguous_weights(training, device):
    check([layer for layer in LAYERS if layer[1] == 0], torch.contiguous_format, device, training=training)


@given(
    st.lists(
        # A weight of one element is 1 or -1 when normalised: its gradient is zero, and the relative error anything.
        st.tuples(*[st.integers(1, 20)] * 2, *[st.integers(1, 4)] * 2).filter(lambda shape: max(shape) > 1),
        max_size=3,
    )
)
@settings(max_examples=6, deadline=None)
def test_any_shapes(shapes):
    check([((12, 4, 3, 3), 0), *((shape, index % 2) for index, shape in enumerate(shapes))])


@pytest.mark.parametrize("memory_format", LAYOUTS, ids=str)
def test_steps_converge_to_the_largest_singular_value(memory_format):
    convs = [module for module in modules(torch.float32, memory_format) if not isinstance(module, nn.ConvTranspose2d)]
    batch = SpectralBatch([SpectralLayer.of(module) for module in convs], impl="reference")
    for _ in range(200):
        state = batch.step()
    for sigma, module in zip(state.sigma, convs, strict=True):
        largest = torch.linalg.matrix_norm(module.weight_orig.detach().flatten(1), 2)
        assert sigma.item() == pytest.approx(largest.item(), rel=1e-4)


@pytest.mark.parametrize("impl", ["reference", "triton"])
def test_a_zero_weight_stays_finite_in_its_vectors(impl):
    layer = SpectralLayer(torch.zeros(4, 4, 3, 3), torch.ones(4) / 2, torch.ones(36) / 6)
    state = SpectralBatch([layer], impl=impl).step()
    assert state.sigma.tolist() == [0.0]
    assert state.vectors.tolist() == [0.0] * 40


def test_weights_that_moved_are_found():
    module = modules(torch.float32)[0]
    batch = SpectralBatch([SpectralLayer.of(module)], impl="triton")
    batch.step()
    module.weight_orig.data = module.weight_orig.data * 3
    before = batch.step(training=False).sigma.item()
    expected = SpectralBatch([SpectralLayer.of(module)], impl="reference").step(training=False).sigma.item()
    assert before == pytest.approx(expected, rel=1e-5)


def test_a_weight_that_begins_between_wide_accesses():
    memory = random_map((1 + 8 * 4 * 9,), torch.float32)
    weight = memory[1:].view(8, 4, 3, 3)
    sigmas = []
    for impl in ("triton", "reference"):
        batch = SpectralBatch([SpectralLayer(weight, torch.ones(8), torch.ones(36))], impl=impl)
        sigmas.append(batch.step().sigma)
        if impl == "triton":
            assert [aligned for aligned, _ in batch.plan.tiles] == [False]
    torch.testing.assert_close(*sigmas)


def test_launches_do_not_grow_with_the_layers():
    counts = set()
    with FakeTensorMode():
        for count in (1, 5):
            layers = [SpectralLayer(torch.empty(8, 4, 3, 3), torch.empty(8), torch.empty(36)) for _ in range(count)]
            for layer in layers:
                layer.weight.requires_grad_()
            batch = SpectralBatch(layers, impl="triton")
            with record_launches() as launches:
                weights = batch.normalised(batch.step(), torch.bfloat16)
                torch.autograd.backward(weights, [torch.empty_like(weight) for weight in weights])
            counts.add(len(launches))
    assert counts == {4 + 1 + 2}


def test_bad_arguments_are_named():
    weight, u, v = torch.zeros(4, 3, 3, 3), torch.zeros(4), torch.zeros(27)
    with pytest.raises(ValueError, match=r"layers: got none, expected at least one"):
        SpectralBatch([])
    with pytest.raises(ValueError, match=r"layers\[0\].u: got shape \(3,\), expected \[4\]"):
        SpectralBatch([SpectralLayer(weight, u[:3], v)])
    with pytest.raises(ValueError, match=r"layers\[1\].v: got shape \(27,\), expected \[36\]"):
        SpectralBatch([SpectralLayer(weight, u, v), SpectralLayer(weight, u[:3], v, dim=1)])
    with pytest.raises(ValueError, match=r"layers\[0\].weight: got torch.float16, expected float32"):
        SpectralBatch([SpectralLayer(weight.half(), u, v)])
    with pytest.raises(ValueError, match=r"layers\[0\].weight: got strides .* a contiguous or channels-last tensor"):
        SpectralBatch([SpectralLayer(weight.transpose(2, 3), u, v)])
    with pytest.raises(ValueError, match=r"layers\[0\].weight: got a transposed convolution that is contiguous"):
        SpectralBatch([SpectralLayer(weight, u[:3], torch.zeros(36), dim=1)], impl="triton").step()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_self_test_passes(dtype, device):
    with poisoned():
        _self_test(torch.device(device), dtype)
