"""lrelu_pool against plain PyTorch in fp64: both results and the gradient."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgan_engine.kernels.launch import record_launches
from fastgan_engine.kernels.lrelu_pool import _self_test, lrelu_pool, lrelu_pool_reference
from tests.kernels.numerics import DEVICES, DTYPES, check_against_eager, check_wide_offsets, random_map

fused = partial(lrelu_pool, impl="triton")


def check(x, slope=0.2):
    check_against_eager(
        partial(fused, slope=slope), partial(lrelu_pool_reference, slope=slope), {"x": x}, differentiable=("x",)
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtypes(dtype, device):
    check(random_map((3, 13, 6, 10), dtype, device), slope=0.1)


@given(st.integers(1, 3), st.integers(1, 40), st.integers(1, 5), st.integers(1, 5))
@settings(max_examples=8, deadline=None)
def test_any_shape(batch, channels, height, width):
    check(random_map((batch, channels, 2 * height, 2 * width), torch.float32))


@pytest.mark.parametrize("device", DEVICES)
def test_many_chunks(monkeypatch, device):
    monkeypatch.setattr("fastgan_engine.kernels.tiling.TILE", 32)
    check(random_map((2, 6, 14, 10), torch.float32, device))


@pytest.mark.parametrize("used", [0, 1])
def test_gradient_where_one_of_two_results_is_used(used):
    x = random_map((2, 5, 4, 6), torch.float32)
    check_against_eager(lambda x: fused(x)[used], lambda x: lrelu_pool_reference(x)[used], {"x": x}, differentiable="x")


def test_one_launch_each_way_and_only_the_output_is_saved():
    x = random_map((2, 6, 4, 4), torch.float16).requires_grad_()
    saved = []
    with (
        torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t),
        record_launches() as launches,
    ):
        y, pooled = fused(x)
        (y.sum() + pooled.sum()).backward()
    assert [launch.name for launch in launches] == ["lrelu_pool_kernel", "lrelu_pool_gradient_kernel"]
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert pooled.is_contiguous(memory_format=torch.channels_last)
    assert {t.data_ptr() for t in saved} == {y.data_ptr()}


def test_offsets_beyond_32_bits(monkeypatch):
    """2^32 elements; many programs and large tiles keep the loops short."""
    monkeypatch.setattr("fastgan_engine.kernels.tiling.PROGRAMS", 1 << 14)
    monkeypatch.setattr("fastgan_engine.kernels.tiling.TILE", 1 << 16)

    def call() -> torch.Tensor:
        x = torch.empty(2**15, 2048, 8, 8, dtype=torch.float16).contiguous(memory_format=torch.channels_last)
        y, pooled = fused(x.requires_grad_())
        return y.sum() + pooled.sum()

    check_wide_offsets(call, "lrelu_pool_kernel", "lrelu_pool_gradient_kernel")


BAD = {
    "x: got shape": {"x": torch.zeros(2, 6, 4, 4)},
    "an even height and width": {"x": random_map((2, 6, 4, 3), torch.float32)},
    "slope: got 0": {"slope": 0.0},
}


@pytest.mark.parametrize("message", BAD)
def test_bad_arguments_are_named(message):
    with pytest.raises(ValueError, match=message):
        fused(**{"x": random_map((2, 6, 4, 4), torch.float32), **BAD[message]})


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_self_test_passes(dtype, device):
    _self_test(torch.device(device), dtype)
