"""LeakyReLU and the means of its 2 x 2 squares, in one pass: D's first map, which two convolutions read.

    y = x > 0 ? x : slope x,   pooled = mean of each 2 x 2 square of y
    dx = (dy + a quarter of the gradient of its square's mean) (y > 0 ? 1 : slope)

Saved for backward: y, which the next layer saves anyway; it has the sign of x (slope > 0). Behind a batch norm the same
is done by ``norm_lrelu``.

Layout: channels-last in and out. Bytes, with N elements of e bytes: forward reads x and writes y and pooled (2.25 N e),
backward reads y and both gradients and writes dx (3.25 N e).

Source: FastGAN's discriminator (arXiv 2101.04775), whose down-blocks pool their input on the direct path.
"""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from fastgan_engine.kernels.arguments import check, check_map
from fastgan_engine.kernels.dispatch import Impl, compare_with_reference, probe, self_test, use_triton
from fastgan_engine.kernels.launch import jit, launch, tl
from fastgan_engine.kernels.tiling import (
    Tiling,
    columns_of,
    load_map,
    pixels_of,
    rows_in_segment,
    square_gradient,
    tiling,
)

PARTS = 4


def lrelu_pool_reference(x: Tensor, *, slope: float = 0.2) -> tuple[Tensor, Tensor]:
    """``lrelu_pool`` in plain PyTorch."""
    y = F.leaky_relu(x, slope)
    return y, F.avg_pool2d(y, 2)


@jit(unspecialised=("units", "rows", "chunk_rows", "width"))
def _lrelu_pool_kernel(
    x_ptr, y_ptr, pooled_ptr, units, rows, chunk_rows, width, slope,
    PARTS: tl.constexpr, UNIT: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    channels = units * UNIT
    base = tl.program_id(2).to(tl.int64) * rows * channels
    cols, in_cols = columns_of(channels, COLS)
    begin, stop = rows_in_segment(rows, chunk_rows)
    for start in range(begin, stop, ROWS):
        r = start + tl.arange(0, ROWS)
        mask = (r < stop)[:, None] & in_cols[None, :]
        total = tl.zeros((ROWS, COLS), tl.float32)
        for part in tl.static_range(PARTS):
            offsets = base * PARTS + pixels_of(r, part, width, PARTS)[:, None] * channels + cols[None, :]
            x = load_map(x_ptr, offsets, mask)
            y = tl.where(x > 0, x, slope * x)
            tl.store(y_ptr + offsets, y.to(y_ptr.dtype.element_ty), mask=mask)
            total += y
        offsets = base + pixels_of(r, 0, width, 1)[:, None] * channels + cols[None, :]
        tl.store(pooled_ptr + offsets, (0.25 * total).to(pooled_ptr.dtype.element_ty), mask=mask)


@jit(unspecialised=("units", "rows", "chunk_rows", "width"))
def _lrelu_pool_gradient_kernel(
    y_ptr, grad_ptr, grad_pooled_ptr, grad_x_ptr, units, rows, chunk_rows, width, slope,
    PARTS: tl.constexpr, UNIT: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    channels = units * UNIT
    base = tl.program_id(2).to(tl.int64) * rows * channels
    cols, in_cols = columns_of(channels, COLS)
    begin, stop = rows_in_segment(rows, chunk_rows)
    for start in range(begin, stop, ROWS):
        r = start + tl.arange(0, ROWS)
        mask = (r < stop)[:, None] & in_cols[None, :]
        pooled = square_gradient(grad_pooled_ptr, r, base, channels, cols, mask, ROWS, COLS)
        for part in tl.static_range(PARTS):
            offsets = base * PARTS + pixels_of(r, part, width, PARTS)[:, None] * channels + cols[None, :]
            grad = load_map(grad_ptr, offsets, mask) + pooled
            grad = tl.where(load_map(y_ptr, offsets, mask) > 0, grad, slope * grad)
            tl.store(grad_x_ptr + offsets, grad.to(grad_x_ptr.dtype.element_ty), mask=mask)


class _LReLUPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: float) -> tuple[Tensor, Tensor]:
        batch, channels, height, width = x.shape
        y = torch.empty_like(x, memory_format=torch.channels_last)
        half = batch, channels, height // 2, width // 2
        pooled = torch.empty(half, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
        t = _tiling(x)
        launch(
            _lrelu_pool_kernel, t.grid, x, y, pooled, t.units, t.rows, t.chunk_rows, width, slope,
            PARTS=PARTS, **t.meta,
        )  # fmt: skip
        ctx.slope = slope
        ctx.save_for_backward(y)
        return y, pooled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, grad_pooled: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        grad, grad_pooled = (g.contiguous(memory_format=torch.channels_last) for g in (grad, grad_pooled))
        grad_x = torch.empty_like(y, memory_format=torch.channels_last)
        t = _tiling(y)
        launch(
            _lrelu_pool_gradient_kernel, t.grid, y, grad, grad_pooled, grad_x,
            t.units, t.rows, t.chunk_rows, y.shape[3], ctx.slope, PARTS=PARTS, **t.meta,
        )  # fmt: skip
        return grad_x, None


def _tiling(x: Tensor) -> Tiling:
    batch, channels, height, width = x.shape
    return tiling(channels, batch * height * width // PARTS, 1, accesses=1)


def lrelu_pool(x: Tensor, *, slope: float = 0.2, impl: Impl = "auto") -> tuple[Tensor, Tensor]:
    """LeakyReLU of a map, and its 2 x 2 average pooling.

    Args:
        x: [B, C, H, W], channels-last; float32, float16 or bfloat16; H and W are even.
        slope: above 0.

    Returns:
        [B, C, H, W] and [B, C, H / 2, W / 2], channels-last, dtype of ``x``.

    Raises:
        ValueError: an argument has the wrong shape, dtype or layout, or the wrong value.
        RuntimeError: ``impl="triton"`` cannot run here.
    """
    check_map("x", x)
    height, width = x.shape[2:]
    check(height % 2 == 0 and width % 2 == 0, "x", f"shape {tuple(x.shape)}", "an even height and width")
    check(slope > 0, "slope", slope, "more than 0")
    if use_triton("lrelu_pool", impl, x):
        return _LReLUPool.apply(x, slope)
    return lrelu_pool_reference(x, slope=slope)


@self_test("lrelu_pool")
def _self_test(device: torch.device, dtype: torch.dtype) -> None:
    """Ragged tiles."""

    def both(function: Any, x: Tensor) -> Tensor:
        return torch.cat([y.flatten() for y in function(x)])

    compare_with_reference(
        "lrelu_pool",
        partial(both, partial(lrelu_pool, impl="triton")),
        partial(both, lrelu_pool_reference),
        {"x": probe((3, 19, 10, 6), dtype, device)},
        differentiable=("x",),
    )
