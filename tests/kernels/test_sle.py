"""sle against plain PyTorch in fp64: the gate's logits, and every gradient."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fastgan_engine.kernels.launch import record_launches
from fastgan_engine.kernels.sle import _Excite, _Pool4, _self_test, sle, sle_reference
from tests.kernels.numerics import DEVICES, DTYPES, check_against_eager, check_wide_offsets, random_map

fused = partial(sle, impl="triton")


def arguments_for(low, channels_high, dtype=torch.float32, device="cpu"):
    """``low``: shape [B, C_low, h, w]."""
    channels_low = low[1]
    return {
        "low": random_map(low, dtype, device, scale=3.0),
        "w4": random_map((channels_high, channels_low, 4, 4), dtype, device, seed=1, scale=0.3),
        "w1": random_map((channels_high, channels_high, 1, 1), dtype, device, seed=2, scale=0.5),
    }


def check(arguments):
    check_against_eager(fused, sle_reference, arguments, differentiable=tuple(arguments))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtypes(dtype, device):
    check(arguments_for((2, 6, 8, 8), 10, dtype, device))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", [(1, 1, 4, 4), (1, 3, 1, 1), (1, 2, 16, 4), (1, 70, 4, 8)], ids=str)
def test_shapes(shape, device):
    check(arguments_for(shape, 3, device=device))


@given(st.integers(1, 13), st.integers(1, 13), st.sampled_from([1, 17]))
@settings(max_examples=6, deadline=None)
def test_pool_of_any_map_is_adaptive_average_pooling(height, width, channels):
    low = random_map((1, channels, height, width), torch.float32)
    check_against_eager(
        lambda low: _Pool4.apply(low).view(1, 4, 4, channels).permute(0, 3, 1, 2),
        lambda low: torch.nn.functional.adaptive_avg_pool2d(low, 4),
        {"low": low},
        differentiable=("low",),
    )


@pytest.mark.parametrize("device", DEVICES)
def test_bins_of_several_tiles_and_cells_of_several_chunks(monkeypatch, device):
    monkeypatch.setattr("fastgan_engine.kernels.tiling.TILE", 16)
    check(arguments_for((1, 2, 20, 16), 3, device=device))
    check(arguments_for((1, 2, 17, 15), 3, device=device))


def test_the_logits_are_those_of_the_released_gate():
    low, w4, w1 = arguments_for((2, 6, 9, 8), 5).values()
    excite = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Conv2d(6, 5, 4), nn.SiLU(), nn.Conv2d(5, 5, 1), nn.Sigmoid())
    excite.load_state_dict({"1.weight": w4, "1.bias": torch.zeros(5), "3.weight": w1, "3.bias": torch.zeros(5)})
    for impl in ("triton", "reference"):
        torch.testing.assert_close(sle(low, w4, w1, impl=impl).sigmoid()[:, :, None, None], excite(low))


def test_weights_in_float32_are_cast_to_the_map():
    arguments = arguments_for((2, 6, 4, 4), 5, dtype=torch.float16)
    weights = {name: arguments[name].float().requires_grad_() for name in ("w4", "w1")}
    gate = fused(arguments["low"], **weights)
    assert gate.dtype == torch.float16
    gate.sum().backward()
    assert weights["w4"].grad.dtype == weights["w1"].grad.dtype == torch.float32


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("channels", [1, 3, 64, 100])
def test_swish_and_product_in_blocks(channels, device, monkeypatch):
    """Whole, ragged and single blocks; weights that want a gradient, and frozen ones."""
    monkeypatch.setattr("fastgan_engine.kernels.sle.MATRIX_TILE", 1024)
    arguments = {
        "h": random_map((3, channels), torch.float32, device, scale=3.0),
        "weight": random_map((channels, channels), torch.float32, device, seed=1),
    }
    for leaves in (("h", "weight"), ("h",)):
        check_against_eager(
            lambda h, weight: _Excite.apply(h, weight),
            lambda h, weight: F.silu(h) @ weight.t(),
            arguments,
            differentiable=leaves,
        )


def test_two_launches_of_its_own_each_way():
    arguments = arguments_for((2, 6, 8, 8), 5)
    for t in arguments.values():
        t.requires_grad_()
    with record_launches() as launches:
        fused(**arguments).sum().backward()
    names = ["pool4_kernel", "excite_kernel", "excite_gradient_kernel", "pool4_gradient_kernel"]
    assert [launch.name for launch in launches] == names


def test_offsets_beyond_32_bits():
    def pool() -> torch.Tensor:
        low = torch.empty(2**10, 2**12, 32, 32, dtype=torch.float16).contiguous(memory_format=torch.channels_last)
        return _Pool4.apply(low.requires_grad_())

    check_wide_offsets(pool, "pool4_kernel", "pool4_gradient_kernel")


BAD = {
    r"low: got shape \(2, 6, 4, 4\) with strides": {"low": torch.zeros(2, 6, 4, 4)},
    "w4: got shape": {"w4": torch.zeros(5, 6, 3, 3)},
    "w1: got shape": {"w1": torch.zeros(5, 4, 1, 1)},
    "w1: got torch.int64": {"w1": torch.zeros(5, 5, 1, 1, dtype=torch.int64)},
    "w4: got device meta": {"w4": torch.zeros(5, 6, 4, 4, device="meta")},
}


@pytest.mark.parametrize("message", BAD)
def test_bad_arguments_are_named(message):
    with pytest.raises(ValueError, match=message):
        fused(**{**arguments_for((2, 6, 4, 4), 5), **BAD[message]})


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_self_test_passes(dtype, device):
    _self_test(torch.device(device), dtype)
