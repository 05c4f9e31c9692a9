"""norm_lrelu against plain PyTorch in fp64: forward, every gradient, running statistics."""

from functools import partial

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from fastgan_engine.kernels.launch import record_launches
from fastgan_engine.kernels.norm_lrelu import _self_test, norm_lrelu, norm_lrelu_reference
from tests.kernels.numerics import (
    DEVICES,
    DTYPES,
    SHAPES,
    check_against_eager,
    check_wide_offsets,
    map_shapes,
    random_map,
)

BUFFERS = ("running_mean", "running_var")
fused = partial(norm_lrelu, impl="triton")


def arguments_for(shape, dtype=torch.float32, device="cpu", *, residual=False, gate=False, sigma=False):
    """Arguments with every value away from its default."""
    channels = shape[1]
    arguments = {
        "x": random_map(shape, dtype, device, scale=2.0),
        "weight": 1 + random_map((channels,), torch.float32, device, seed=1, scale=0.3),
        "bias": random_map((channels,), torch.float32, device, seed=2),
        "running_mean": random_map((channels,), torch.float32, device, seed=3),
        "running_var": random_map((channels,), torch.float32, device, seed=4).abs() + 0.5,
    }
    if residual:
        arguments["residual"] = random_map(shape, dtype, device, seed=5)
    if gate:
        arguments["gate"] = random_map(shape[:2], dtype, device, seed=6)
    if sigma:
        arguments["sigma"] = torch.full((1,), 2.5, device=device)
    return arguments


def check(arguments, **options):
    """The error rule for output, gradients and running statistics."""
    optional = [name for name in ("residual", "gate", "sigma") if name in arguments]
    check_against_eager(
        partial(fused, **options),
        partial(norm_lrelu_reference, **options),
        arguments,
        differentiable=("x", "weight", "bias", *optional),
        mutated=BUFFERS,
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes(shape, device):
    check(arguments_for(shape, device=device, residual=True, gate=True))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", [(1, 1, 2, 2), (3, 10, 2, 14), (2, 34, 6, 4), (1, 130, 4, 2)], ids=str)
def test_pooled_shapes(shape, device):
    check(arguments_for(shape, device=device, residual=True, gate=True), pool=True)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
@pytest.mark.parametrize("groups", [1, 2])
def test_dtypes_and_modes(groups, training, dtype, device):
    arguments = arguments_for((4, 13, 6, 2), dtype, device, residual=True, gate=True, sigma=True)
    check(arguments, groups=groups, training=training, momentum=0.3, eps=1e-3, slope=0.1, pool=True)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("extra", ["residual", "gate", "sigma"])
def test_each_option_alone(extra, device):
    check(arguments_for((4, 13, 5, 3), torch.float16, device, **{extra: True}), groups=2)


@given(map_shapes(), st.sampled_from([1, 2]), st.booleans(), st.booleans())
@settings(max_examples=8, deadline=None)
def test_any_shape(shape, groups, residual, gate):
    batch, channels, height, width = shape
    # Normalised, two values are +1 and -1 whatever they were: the gradient is zero, and its relative error anything.
    assume(batch * height * width > 2)
    shape = (groups * batch, channels, height, width)
    check(arguments_for(shape, residual=residual, gate=gate), groups=groups)


@pytest.mark.parametrize("device", DEVICES)
def test_many_chunks(device):
    check(arguments_for((1, 2, 131, 127), device=device))


@pytest.mark.parametrize("device", DEVICES)
def test_every_program_combines_the_chunks_of_all(monkeypatch, device):
    """Several chunks an image, two images a set of statistics, more chunks than a tile has rows."""
    monkeypatch.setattr("fastgan_engine.kernels.tiling.TILE", 32)
    monkeypatch.setattr("fastgan_engine.kernels.tiling.ROWS_A_READ", 1)
    check(arguments_for((4, 6, 4, 10), device=device, residual=True, gate=True), groups=2, pool=True)
    check(arguments_for((1, 4, 12, 9), device=device))


@pytest.mark.parametrize("device", DEVICES)
def test_statistics_keep_their_digits_far_from_zero(device):
    arguments = arguments_for((2, 4, 60, 60), device=device)
    arguments["x"] += 1000
    check(arguments, pool=True)


@pytest.mark.parametrize("used", [0, 1])
def test_gradients_where_one_of_two_results_is_used(used):
    """Of the map alone, and of its pooled form alone."""
    arguments = arguments_for((2, 5, 4, 6), residual=True, gate=True)
    check_against_eager(
        lambda **tensors: fused(**tensors, pool=True)[used],
        lambda **tensors: norm_lrelu_reference(**tensors, pool=True)[used],
        arguments,
        differentiable=("x", "weight", "bias", "residual", "gate"),
    )


def test_matches_the_modules_it_replaces():
    norm, mine, act = nn.BatchNorm2d(5).double(), nn.BatchNorm2d(5).double(), nn.LeakyReLU(0.2)
    x, residual = random_map((4, 5, 3, 3), torch.float64), random_map((4, 5, 3, 3), torch.float64, seed=1)
    y = norm_lrelu(x, mine.weight, mine.bias, mine.running_mean, mine.running_var, residual=residual, impl="reference")
    torch.testing.assert_close(y, (act(norm(x)) + residual) / 2)
    torch.testing.assert_close(mine.running_var, norm.running_var)


@pytest.mark.parametrize("gate", [False, True], ids=["plain", "gated"])
def test_saves_the_input_and_where_there_is_a_gate_the_output(gate):
    arguments = arguments_for((2, 8, 16, 16), torch.float16, residual=True, gate=gate)
    arguments["x"].requires_grad_()
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        y = fused(**arguments)
    maps = {arguments["x"].data_ptr(), y.data_ptr()} if gate else {arguments["x"].data_ptr()}
    assert {t.data_ptr() for t in saved if t.numel() > 100} == maps


def test_two_launches_each_way_and_none_for_what_nobody_asked():
    arguments = arguments_for((2, 8, 4, 4), residual=True)
    arguments["x"].requires_grad_()
    with record_launches() as launches:
        fused(**arguments).sum().backward()
    assert [launch.name for launch in launches] == [
        "norm_statistics_kernel",
        "norm_lrelu_apply_kernel",
        "norm_lrelu_reduce_kernel",
        "norm_lrelu_gradient_kernel",
    ]
    assert launches[-1].tensors.keys() >= {"grad_x_ptr"}
    assert not {"grad_residual_ptr", "grad_weight_ptr", "grad_gate_ptr"} & launches[-1].tensors.keys()


@pytest.mark.parametrize("pool", [False, True], ids=["plain", "pooled"])
def test_offsets_beyond_32_bits(pool, monkeypatch):
    """[512, 2048, 64, 64] is 2^32 elements; large tiles keep the loops short."""
    monkeypatch.setattr("fastgan_engine.kernels.tiling.TILE", 1 << 16)

    def call() -> torch.Tensor:
        x = torch.empty(2**9, 2048, 64, 64, dtype=torch.float16).contiguous(memory_format=torch.channels_last)
        parameters = [torch.empty(2048) for _ in range(4)]
        gate = torch.empty(2**9, 2048, dtype=torch.float16)
        options = {"residual": torch.empty_like(x), "gate": gate, "pool": pool, "groups": 2**4}
        y = fused(x.requires_grad_(), *parameters, **options)
        return torch.stack([part.sum() for part in y]) if pool else y

    check_wide_offsets(call, "norm_lrelu_apply_kernel", "norm_lrelu_reduce_kernel", "norm_lrelu_gradient_kernel")


BAD = {
    r"x: got shape \(2, 6, 4, 4\) with strides": {"x": torch.zeros(2, 6, 4, 4)},
    "running_mean: got shape": {"running_mean": torch.ones(5)},
    "residual: got shape": {"residual": random_map((2, 6, 4, 2), torch.float32)},
    "residual: got torch.float16": {"residual": random_map((2, 6, 4, 4), torch.float16)},
    "gate: got shape": {"gate": torch.zeros(2, 5)},
    r"x: got shape \(2, 6, 3, 4\), expected an even height": {**arguments_for((2, 6, 3, 4)), "pool": True},
    "groups: got 3": {"groups": 3},
}


@pytest.mark.parametrize("message", BAD)
def test_bad_arguments_are_named(message):
    with pytest.raises(ValueError, match=message):
        fused(**{**arguments_for((2, 6, 4, 4)), **BAD[message]})


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_self_test_passes(dtype, device):
    _self_test(torch.device(device), dtype)
