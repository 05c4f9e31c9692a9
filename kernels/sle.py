"""Skip-layer excitation: a gate for each image and channel of a high-resolution map, made from a low-resolution one.

    gate = W1 swish(W4 pool4(low)),   y = high * sigmoid(gate)

The multiplication, sigmoid included, is part of ``norm_glu`` and ``norm_lrelu``, which make the high-resolution maps.

pool4 is the adaptive average pool to 4 x 4, so that the 4x4 convolution W4 is a matrix product of [B, 16 C_low] with
[16 C_low, C_high], by cuBLAS. Bin i of 4 covers the rows floor(i H / 4) to ceil((i + 1) H / 4). Bins overlap where 4
does not divide H: the backward pass goes over the cells in which the set of covering bins is constant, so that each
pixel is written once. The 1x1 convolution W1 is a product of [B, C_high] with a small square matrix: for a batch of
images one pass over the matrix, with swish on the way in; one pass backward gives both gradients.

Saved for backward: the pooled map and h = W4 pool4(low); swish is computed again.

Layout: channels-last. Bytes, e an element: the pool reads low once and its backward pass writes it once (C_low h w e an
image); W1 is read once each way, and its gradient written.

Source: FastGAN (arXiv 2101.04775), section 3.1; its text says LeakyReLU, the released code, followed here, uses swish.
"""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from fastgan_engine.kernels.arguments import check, check_device, check_map, check_shape
from fastgan_engine.kernels.dispatch import Impl, compare_with_reference, probe, self_test, use_triton
from fastgan_engine.kernels.launch import cdiv, launch, next_power_of_2
from fastgan_engine.kernels.sle_kernels import (
    _excite_gradient_kernel,
    _excite_kernel,
    _pool4_gradient_kernel,
    _pool4_kernel,
)
from fastgan_engine.kernels.tiling import tiling

BINS = 4
# Elements of W1 that one program holds.
MATRIX_TILE = 4096


def sle_reference(low: Tensor, w4: Tensor, w1: Tensor) -> Tensor:
    """``sle`` in plain PyTorch."""
    hidden = F.silu(F.conv2d(F.adaptive_avg_pool2d(low, BINS), w4.to(low.dtype)))
    return F.conv2d(hidden, w1.to(low.dtype)).flatten(1)


class _Pool4(torch.autograd.Function):
    """[B, C, H, W] -> [B, 16 C], in the order of a channels-last 4 x 4 map."""

    @staticmethod
    def forward(ctx: Any, low: Tensor) -> Tensor:
        batch, channels, height, width = low.shape
        t = tiling(channels, cdiv(height, BINS) * cdiv(width, BINS), batch * BINS**2, chunked=False)
        pooled = low.new_empty((t.partials, channels))
        launch(_pool4_kernel, t.grid, low, pooled, t.units, height, width, **t.meta)
        ctx.shape, ctx.dtype = low.shape, low.dtype
        return pooled.view(batch, -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        batch, channels, height, width = ctx.shape
        cells = BINS if height % BINS == 0 and width % BINS == 0 else 2 * BINS - 1
        t = tiling(channels, cdiv(height, BINS) * cdiv(width, BINS), batch * cells**2)
        grad_low = torch.empty(ctx.shape, dtype=ctx.dtype, device=grad.device, memory_format=torch.channels_last)
        launch(
            _pool4_gradient_kernel, t.grid, grad.contiguous(), grad_low, t.units, height, width, t.chunk_rows,
            CELLS=cells, **t.meta,
        )  # fmt: skip
        return grad_low


class _Excite(torch.autograd.Function):
    """h: [B, C] and a matrix W [C, C] -> W swish(h), [B, C]."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, weight: Tensor) -> Tensor:
        h, weight = h.contiguous(), weight.contiguous()
        gate = torch.empty_like(h)
        grid, meta = _blocks(weight)
        launch(_excite_kernel, grid, h, weight, gate, *h.shape, **meta)
        ctx.save_for_backward(h, weight)
        return gate

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        h, weight = ctx.saved_tensors
        grad_h = torch.empty_like(h)
        grad_weight = torch.empty_like(weight) if ctx.needs_input_grad[1] else None
        grid, meta = _blocks(weight)
        launch(_excite_gradient_kernel, grid, grad.contiguous(), h, weight, grad_h, grad_weight, *h.shape, **meta)
        return grad_h, grad_weight


def _blocks(weight: Tensor) -> tuple[tuple[int], dict[str, int]]:
    """Grid and constants of either kernel: whole rows or columns of the matrix, as many as make a tile."""
    channels = weight.shape[0]
    padded = next_power_of_2(channels)
    block = max(1, min(padded, MATRIX_TILE // padded))
    return (cdiv(channels, block),), {"PADDED": padded, "BLOCK": block}


def sle(low: Tensor, w4: Tensor, w1: Tensor, *, impl: Impl = "auto") -> Tensor:
    """The gate of a skip-layer excitation, as the logits that ``norm_glu`` and ``norm_lrelu`` take.

    Args:
        low: [B, C_low, h, w], channels-last; float32, float16 or bfloat16.
        w4: [C_high, C_low, 4, 4]; channels-last spares a copy. Cast to the dtype of ``low`` where it differs.
        w1: [C_high, C_high, 1, 1]; likewise.

    Returns:
        [B, C_high], dtype of ``low``.

    Raises:
        ValueError: an argument has the wrong shape, dtype, device or layout.
        RuntimeError: ``impl="triton"`` cannot run here.
    """
    _check(low, w4, w1)
    if not use_triton("sle", impl, low):
        return sle_reference(low, w4, w1)
    matrix4 = w4.to(low.dtype).permute(0, 2, 3, 1).reshape(w4.shape[0], -1)
    return _Excite.apply(_Pool4.apply(low) @ matrix4.t(), w1.to(low.dtype).flatten(1))


def _check(low: Tensor, w4: Tensor, w1: Tensor) -> None:
    check_map("low", low)
    check_shape("w4", w4, (None, low.shape[1], BINS, BINS))
    check_shape("w1", w1, (w4.shape[0], w4.shape[0], 1, 1))
    for name, weight in (("w4", w4), ("w1", w1)):
        check_device(name, weight, low)
        check(weight.is_floating_point(), name, weight.dtype, "a floating dtype")


@self_test("sle")
def _self_test(device: torch.device, dtype: torch.dtype) -> None:
    """Overlapping bins, ragged tiles."""
    arguments = {
        "x": probe((1, 19, 9, 6), dtype, device),
        "w4": probe((11, 19, 4, 4), dtype, device) / 16,
        "w1": probe((11, 11, 1, 1), dtype, device) / 4,
    }

    def on_x(function: Any, x: Tensor, **rest: Tensor) -> Tensor:
        return function(x, **rest)

    compare_with_reference(
        "sle",
        partial(on_x, partial(sle, impl="triton")),
        partial(on_x, sle_reference),
        arguments,
        differentiable=("x", "w4", "w1"),
    )
