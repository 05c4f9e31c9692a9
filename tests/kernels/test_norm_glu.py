"""norm_glu against plain PyTorch in fp64: forward, every gradient, running statistics."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fastgan_engine.kernels.launch import record_launches
from fastgan_engine.kernels.norm_glu import _self_test, norm_glu, norm_glu_reference
from tests.kernels.numerics import (
    DEVICES,
    DTYPES,
    SHAPES,
    check_against_eager,
    check_wide_offsets,
    map_shapes,
    poisoned,
    random_map,
)

GRADIENTS = ("x", "weight", "bias")
BUFFERS = ("running_mean", "running_var")
fused = partial(norm_glu, impl="triton")


def arguments_for(shape, dtype=torch.float32, device="cpu", *, noise=False, gate=False, sigma=False):
    """Arguments with every value away from its default; ``shape`` is that of x."""
    batch, channels, height, width = shape
    arguments = {
        "x": random_map(shape, dtype, device, scale=2.0),
        "weight": 1 + random_map((channels,), torch.float32, device, seed=1, scale=0.3),
        "bias": random_map((channels,), torch.float32, device, seed=2),
        "running_mean": random_map((channels,), torch.float32, device, seed=3),
        "running_var": random_map((channels,), torch.float32, device, seed=4).abs() + 0.5,
    }
    if noise:
        arguments["noise"] = random_map((batch, 1, height, width), dtype, device, seed=5)
        arguments["noise_weight"] = torch.full((1,), 0.75, device=device)
    if gate:
        arguments["gate"] = random_map((batch, channels // 2, 1, 1), dtype, device, seed=6).flatten(1)
    if sigma:
        arguments["sigma"] = torch.full((1,), 2.5, device=device)
    return arguments


def check(arguments, **options):
    """The error rule for output, gradients and running statistics."""
    optional = [name for name in ("noise_weight", "gate", "sigma") if name in arguments]
    check_against_eager(
        partial(fused, **options),
        partial(norm_glu_reference, **options),
        arguments,
        differentiable=(*GRADIENTS, *optional),
        mutated=BUFFERS,
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes(shape, device):
    check(arguments_for(shape, device=device))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
@pytest.mark.parametrize("groups", [1, 2])
def test_dtypes_and_modes(groups, training, dtype, device):
    arguments = arguments_for((4, 14, 5, 3), dtype, device, noise=True, gate=True, sigma=True)
    check(arguments, groups=groups, training=training, momentum=0.3, eps=1e-3)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("extra", ["noise", "gate", "sigma"])
def test_each_option_alone(extra, device):
    check(arguments_for((4, 14, 5, 3), torch.float16, device, **{extra: True}), groups=2)


@given(map_shapes(2), st.sampled_from([1, 2]), st.booleans(), st.booleans())
@settings(max_examples=8, deadline=None)
def test_any_shape(shape, groups, noise, gate):
    batch, channels, height, width = shape
    # Normalised, two values are +1 and -1 whatever they were: the gradient is zero, and its relative error anything.
    assume(batch * height * width > 2)
    check(arguments_for((groups * batch, channels, height, width), noise=noise, gate=gate), groups=groups)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("gate", [False, True], ids=["plain", "gated"])
def test_many_chunks(gate, device):
    """More pixels than one program takes, a ragged last chunk."""
    check(arguments_for((1, 2, 131, 127), device=device, gate=gate, noise=True))


@pytest.mark.parametrize("device", DEVICES)
def test_every_program_combines_the_chunks_of_all(monkeypatch, device):
    """Several chunks an image, two images a set of statistics, more chunks than a tile has rows."""
    monkeypatch.setattr("fastgan_engine.kernels.tiling.TILE", 32)
    monkeypatch.setattr("fastgan_engine.kernels.tiling.ROWS_A_READ", 1)
    check(arguments_for((4, 6, 5, 7), device=device, noise=True, gate=True, sigma=True), groups=2)
    check(arguments_for((1, 4, 12, 9), device=device))


@pytest.mark.parametrize("device", DEVICES)
def test_statistics_keep_their_digits_far_from_zero(device):
    arguments = arguments_for((2, 4, 60, 60), device=device)
    arguments["x"] += 1000
    check(arguments)


def test_matches_the_modules_it_replaces():
    norm, glu = nn.BatchNorm2d(12).double().train(), nn.GLU(dim=1)
    x = random_map((4, 12, 5, 5), torch.float64)
    mine = nn.BatchNorm2d(12).double().train()
    y = norm_glu(x, mine.weight, mine.bias, mine.running_mean, mine.running_var, impl="reference")
    torch.testing.assert_close(y, glu(norm(x)))
    torch.testing.assert_close(mine.running_mean, norm.running_mean)
    torch.testing.assert_close(mine.running_var, norm.running_var)


def test_groups_are_batches_forwarded_in_turn():
    arguments = arguments_for((6, 8, 3, 3))
    once = {name: t.clone() for name, t in arguments.items()}
    together = fused(**once, groups=3)
    parts = []
    for part in arguments["x"].chunk(3):
        parts.append(fused(**{**arguments, "x": part}))
    torch.testing.assert_close(together, torch.cat(parts))
    for name in BUFFERS:
        torch.testing.assert_close(once[name], arguments[name])


def test_sigma_is_the_norm_of_a_normalised_convolution():
    """BN(conv(x, W / sigma) + w n): the folded form gives the same output and the same gradients, sigma's included."""
    x, w = random_map((3, 5, 6, 6), torch.float32), random_map((8, 5, 3, 3), torch.float32, seed=1)
    rest = {name: t for name, t in arguments_for((3, 8, 6, 6), noise=True).items() if name != "x"}

    def folded(w: Tensor, sigma: Tensor) -> Tensor:
        return fused(F.conv2d(x, w, padding=1), sigma=sigma, **{n: t.clone() for n, t in rest.items()})

    def exact(w: Tensor, sigma: Tensor) -> Tensor:
        doubled = {n: t.double() for n, t in rest.items()}
        return norm_glu_reference(F.conv2d(x.double(), w.double() / sigma.double(), padding=1), **doubled)

    results = []
    for function in (folded, exact):
        leaves = w.clone().requires_grad_(), torch.tensor(3.0, requires_grad=True)
        y = function(*leaves)
        y.backward(random_map(y.shape, torch.float32, seed=9).to(y.dtype))
        results.append([y.detach().double(), *(leaf.grad.double() for leaf in leaves)])
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def test_sigma_without_gradient_drops_little():
    x = random_map((4, 6, 9, 9), torch.float32)
    arguments = {**arguments_for((4, 6, 9, 9)), "x": x}
    gradients = []
    for needs_sigma in (False, True):
        w = torch.eye(6).requires_grad_()
        sigma = torch.linalg.matrix_norm(w, 2)
        mixed = torch.einsum("bchw,dc->bdhw", x, w).contiguous(memory_format=torch.channels_last)
        y = fused(**{**arguments, "x": mixed, "sigma": sigma if needs_sigma else sigma.detach()})
        y.backward(random_map(y.shape, torch.float32, seed=9))
        gradients.append(w.grad)
    dropped, exact = gradients
    assert not torch.equal(dropped, exact)
    assert (dropped - exact).norm() <= 3e-4 * exact.norm()


def test_saves_the_input_and_no_other_map():
    arguments = arguments_for((2, 8, 16, 16), torch.float16, noise=True, gate=True)
    arguments["x"].requires_grad_()
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        fused(**arguments)
    maps = {t.data_ptr() for t in saved if t.numel() >= 2 * 16 * 16}
    assert maps == {arguments["x"].data_ptr(), arguments["noise"].data_ptr()}


def test_keeps_channels_last_and_accepts_any_gradient_layout():
    arguments = arguments_for((2, 6, 4, 4))
    arguments["x"].requires_grad_()
    y = fused(**arguments)
    assert y.is_contiguous(memory_format=torch.channels_last)
    y.sum().backward()  # an expanded gradient
    assert arguments["x"].grad.is_contiguous(memory_format=torch.channels_last)


def test_a_batch_slice_is_accepted():
    arguments = arguments_for((5, 6, 3, 3))
    whole = arguments["x"]
    sliced = fused(**{**arguments, "x": whole[1:4]})
    torch.testing.assert_close(sliced, fused(**{**arguments, "x": whole[1:4].clone()}))


def test_unneeded_gradients_are_none_and_cost_no_launch():
    arguments = arguments_for((2, 6, 4, 4), noise=True, gate=True)
    arguments["x"].requires_grad_()
    y = fused(**arguments)
    with record_launches() as launches:
        y.sum().backward()
    assert [launch.name for launch in launches] == ["norm_glu_reduce_kernel", "norm_glu_gradient_kernel"]
    assert not {"grad_weight_ptr", "grad_gate_ptr", "partial_noise_ptr"} & launches[-1].tensors.keys()
    assert all(arguments[name].grad is None for name in ("weight", "gate", "noise_weight"))


def test_offsets_beyond_32_bits(monkeypatch):
    """[512, 2048, 64, 64] is 2^32 elements; large tiles keep the loops short."""
    monkeypatch.setattr("fastgan_engine.kernels.tiling.TILE", 1 << 16)

    def call() -> Tensor:
        x = torch.empty(2**9, 2048, 64, 64, dtype=torch.float16).contiguous(memory_format=torch.channels_last)
        parameters = [torch.empty(2048) for _ in range(4)]
        gate = torch.empty(2**9, 1024, dtype=torch.float16)
        return fused(x.requires_grad_(), *parameters, gate=gate, groups=2**4)

    check_wide_offsets(
        call,
        "norm_statistics_kernel",
        "norm_glu_apply_kernel",
        "norm_glu_reduce_kernel",
        "norm_glu_gradient_kernel",
    )


def test_deterministic():
    arguments = arguments_for((3, 10, 7, 7), gate=True)
    with poisoned():
        first = fused(**{n: t.clone() for n, t in arguments.items()})
        second = fused(**{n: t.clone() for n, t in arguments.items()})
    assert torch.equal(first, second)


BAD = {
    "x: got shape": {"x": torch.zeros(2, 6, 4)},
    "x: got torch.int32": {"x": torch.zeros(2, 6, 4, 4, dtype=torch.int32)},
    "x: got 5 channels": arguments_for((2, 5, 4, 4)),
    r"x: got shape \(2, 6, 4, 4\) with strides": {"x": torch.zeros(2, 6, 4, 4)},
    "x: got the empty shape": {"x": torch.zeros(0, 6, 4, 4)},
    "weight: got shape": {"weight": torch.ones(5)},
    "bias: got torch.float16": {"bias": torch.ones(6, dtype=torch.float16)},
    "running_var: got device meta": {"running_var": torch.ones(6, device="meta")},
    "gate: got shape": {"gate": torch.ones(2, 6)},
    "noise and noise_weight: got one": {"noise_weight": torch.ones(1)},
    "noise: got shape": {"noise": torch.ones(2, 6, 4, 4), "noise_weight": torch.ones(1)},
    "sigma: got shape": {"sigma": torch.ones(2)},
    "groups: got 3": {"groups": 3},
    "more than one value per channel": arguments_for((1, 6, 1, 1)),
}


@pytest.mark.parametrize("impl", ["triton", "reference"])
@pytest.mark.parametrize("message", BAD)
def test_bad_arguments_are_named(message, impl):
    with pytest.raises(ValueError, match=message):
        norm_glu(**{**arguments_for((2, 6, 4, 4)), **BAD[message]}, impl=impl)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_self_test_passes(dtype, device):
    _self_test(torch.device(device), dtype)
