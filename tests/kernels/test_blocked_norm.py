"""The CPU's blocked norm against batch norm, GLU and LeakyReLU of PyTorch in fp64."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastgan_engine.kernels import blocked_norm as module
from fastgan_engine.kernels.blocked_norm import Activation, blocked_norm

GLU, LRELU = Activation(), Activation(0.2)
Inputs = dict[str, Tensor | None]


def make(
    activation: Activation, *, shape: tuple[int, int, int, int], parts: tuple[str, ...], dtype: torch.dtype
) -> Inputs:
    batch, channels, height, width = shape
    generator = torch.Generator().manual_seed(0)

    def draw(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator)

    out = activation.channels_out(channels)
    inputs: Inputs = {
        "x": (draw(*shape) * 2 + 3).to(dtype).contiguous(memory_format=torch.channels_last),
        "weight": draw(channels),
        "bias": draw(channels),
        "noise": draw(batch, 1, height, width).to(dtype) if "noise" in parts else None,
        "noise_weight": draw(1) if "noise" in parts else None,
        "gate": draw(batch, out, 1, 1).to(dtype) if "gate" in parts else None,
        "residual": draw(batch, out, height, width).to(dtype) if "residual" in parts else None,
    }
    return inputs


def expected(
    activation: Activation, inputs: Inputs, groups: int, sigma: float | None, running: tuple[Tensor, Tensor]
) -> Tensor:
    """Written out with PyTorch's own operations."""
    x, weight, bias, noise, noise_weight, gate, residual = inputs.values()
    assert x is not None
    x = x if sigma is None else x / sigma
    x = x if noise is None or noise_weight is None else x + noise * noise_weight
    v = torch.cat([F.batch_norm(part, *running, weight, bias, True, 0.1, 1e-5) for part in x.chunk(groups)])
    y = F.glu(v, 1) if activation.slope is None else F.leaky_relu(v, activation.slope)
    y = y if gate is None else y * gate
    return y if residual is None else (y + residual) / 2


def compare(activation: Activation, inputs: Inputs, groups: int, sigma: float | None, tolerance: float) -> None:
    exact = {n: None if t is None else t.detach().double().requires_grad_(n != "noise") for n, t in inputs.items()}
    found = {n: None if t is None else t.detach().clone().requires_grad_(n != "noise") for n, t in inputs.items()}
    channels = inputs["x"].shape[1]  # type: ignore[union-attr]
    running = (torch.zeros(channels, dtype=torch.float64), torch.ones(channels, dtype=torch.float64))
    running_found = (torch.zeros(channels), torch.ones(channels))
    wanted = expected(activation, exact, groups, sigma, running)
    kept = found["x"].detach().clone()  # type: ignore[union-attr]
    y = blocked_norm(
        *(found[name] for name in ("x", "weight", "bias")), *running_found,  # type: ignore[arg-type]
        activation=activation, noise=found["noise"], noise_weight=found["noise_weight"], gate=found["gate"],
        residual=found["residual"], groups=groups, sigma=None if sigma is None else torch.tensor(sigma),
    )  # fmt: skip
    assert y.is_contiguous(memory_format=torch.channels_last)
    _near(y, wanted, tolerance, "y")
    upstream = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    wanted.backward(upstream.double())
    y.backward(upstream.to(y.dtype))
    for name, tensor in exact.items():
        if tensor is not None and name != "noise":
            _near(found[name].grad, tensor.grad, tolerance, name)  # type: ignore[union-attr,arg-type]
    _near(running_found[0], running[0], 1e-5, "running_mean")
    _near(running_found[1], running[1], 1e-5, "running_var")
    assert torch.equal(kept, found["x"].detach()), "x was written to"  # type: ignore[union-attr]


def _near(got: Tensor, wanted: Tensor, tolerance: float, name: str) -> None:
    error = ((got.double() - wanted).abs().max() / wanted.abs().max().clamp(min=1e-3)).item()
    assert error <= tolerance, f"{name}: {error:.2g}"


@pytest.mark.parametrize("activation", [GLU, LRELU], ids=["glu", "lrelu"])
@pytest.mark.parametrize("sigma", [None, 1.7], ids=["plain", "folded"])
@pytest.mark.parametrize("groups", [1, 2])
def test_equals_fp64(activation: Activation, sigma: float | None, groups: int) -> None:
    for count in range(4):
        for parts in itertools.combinations(("noise", "gate", "residual"), count):
            inputs = make(activation, shape=(4, 6, 5, 7), parts=parts, dtype=torch.float32)
            compare(activation, inputs, groups, sigma, 2e-5)


@pytest.mark.parametrize("activation", [GLU, LRELU], ids=["glu", "lrelu"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_within_a_few_roundings(activation: Activation, dtype: torch.dtype) -> None:
    inputs = make(activation, shape=(4, 8, 6, 6), parts=("noise", "gate"), dtype=dtype)
    compare(activation, inputs, 2, None, 6 * torch.finfo(dtype).eps)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3, 40]))
def test_any_shape_and_block_size(batch: int, half: int, height: int, width: int, block: int) -> None:
    before = module.BLOCK_ELEMENTS
    module.BLOCK_ELEMENTS = block
    try:
        shape = (2 * batch, 2 * half, height, width + 2)  # of two values the gradient vanishes: no relative error
        compare(GLU, make(GLU, shape=shape, parts=("gate",), dtype=torch.float32), 2, None, 1e-3)
    finally:
        module.BLOCK_ELEMENTS = before


def test_large_offset_keeps_the_variance() -> None:
    """Mean 1e4 times the deviation: sums of squares in fp32 would have no digit left."""
    x = (torch.randn(4, 2, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 1e4).float()
    x = x.contiguous(memory_format=torch.channels_last)
    y = blocked_norm(x, torch.ones(2), torch.zeros(2), None, None, activation=Activation(1.0))
    wanted = F.batch_norm(x.double(), None, None, training=True)
    torch.testing.assert_close(y.double(), wanted, rtol=0, atol=2e-3)


def test_a_map_in_another_layout_is_read_rightly() -> None:
    x = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    y = blocked_norm(x, torch.ones(4), torch.zeros(4), None, None, activation=LRELU)
    _near(y, F.leaky_relu(F.batch_norm(x.double(), None, None, training=True), 0.2), 1e-5, "y")
