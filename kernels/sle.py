"""Skip-layer excitation: a gate for each image and channel of a high-resolution map, made from a low-resolution one.

    gate = W1 swish(W4 pool4(low)),   y = high * sigmoid(gate)

The multiplication, sigmoid included, is part of ``norm_glu`` and ``norm_lrelu``, which make the high-resolution maps.

pool4 is the adaptive average pool to 4 x 4, so that the 4x4 convolution W4 is a matrix product of [B, 16 C_low] with
[16 C_low, C_high], and the 1x1 convolution W1 another: both by cuBLAS. Bin i of 4 covers the rows floor(i H / 4) to
ceil((i + 1) H / 4). Bins overlap where 4 does not divide H: the backward pass goes over the cells in which the set of
covering bins is constant, so that each pixel is written once. Swish is one small elementwise call between the products,
with no pass over a map to be fused into.

Layout: channels-last. Bytes, e an element: the pool reads low once and its backward pass writes it once (C_low h w e an
image).

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
from fastgan_engine.kernels.launch import cdiv, jit, launch, tl
from fastgan_engine.kernels.tiling import columns_of, load_map, tiling

BINS = 4


def sle_reference(low: Tensor, w4: Tensor, w1: Tensor) -> Tensor:
    """``sle`` in plain PyTorch."""
    hidden = F.silu(F.conv2d(F.adaptive_avg_pool2d(low, BINS), w4.to(low.dtype)))
    return F.conv2d(hidden, w1.to(low.dtype)).flatten(1)


@jit
def _bin_start(index, size):
    return index * size // 4


@jit
def _bin_stop(index, size):
    return ((index + 1) * size + 3) // 4


@jit(unspecialised=("units", "height", "width"))
def _pool4_kernel(
    low_ptr, pooled_ptr, units, height, width,
    UNIT: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """The pixels of one bin; ``pooled_ptr``: [image, bin, channel]."""
    channels = units * UNIT
    image, square = tl.program_id(2) // 16, tl.program_id(2) % 16
    top, left = _bin_start(square // 4, height), _bin_start(square % 4, width)
    bin_width = _bin_stop(square % 4, width) - left
    size = (_bin_stop(square // 4, height) - top) * bin_width
    low_ptr += image.to(tl.int64) * height * width * channels
    cols, in_cols = columns_of(channels, COLS)
    total = tl.zeros((ROWS, COLS), tl.float32)
    for start in range(0, size, ROWS):
        r = start + tl.arange(0, ROWS)
        pixels = (top + r // bin_width) * width + left + r % bin_width
        total += load_map(low_ptr, pixels[:, None] * channels + cols[None, :], (r < size)[:, None] & in_cols[None, :])
    mean = tl.sum(total, axis=0) / size
    tl.store(pooled_ptr + tl.program_id(2) * channels + cols, mean.to(pooled_ptr.dtype.element_ty), mask=in_cols)


@jit
def _cell(index, size, CELLS: tl.constexpr):
    """First and last of the rows whose covering bins are those of cell ``index``: the bins, or where they overlap 7.

    Even ones of 7 lie in one bin alone, odd ones between two. Below 4 rows cells coincide: they write the same values.
    """
    if CELLS == 4:
        return _bin_start(index, size), _bin_stop(index, size)
    own = index // 2
    alone = index % 2 == 0
    start = tl.where(alone, (own * size + 3) // 4, _bin_start(own + 1, size))
    return start, tl.where(alone, _bin_start(own + 1, size), _bin_stop(own, size))


@jit(unspecialised=("units", "height", "width", "chunk_rows"))
def _pool4_gradient_kernel(
    grad_ptr, grad_low_ptr, units, height, width, chunk_rows,
    CELLS: tl.constexpr, UNIT: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """One chunk of the pixels of one cell, all of which have the same gradient."""
    channels = units * UNIT
    chunk, image, cell = tl.program_id(1), tl.program_id(2) // (CELLS * CELLS), tl.program_id(2) % (CELLS * CELLS)
    top, bottom = _cell(cell // CELLS, height, CELLS)
    left, right = _cell(cell % CELLS, width, CELLS)
    cols, in_cols = columns_of(channels, COLS)
    square = tl.arange(0, 16)
    y0, y1 = _bin_start(square // 4, height), _bin_stop(square // 4, height)
    x0, x1 = _bin_start(square % 4, width), _bin_stop(square % 4, width)
    covers = (y0 <= top) & (top < y1) & (x0 <= left) & (left < x1)
    offsets = (image * 16 + square)[:, None] * channels + cols[None, :]
    grad = tl.load(grad_ptr + offsets, mask=covers[:, None] & in_cols[None, :], other=0.0).to(tl.float32)
    grad = tl.sum(grad / ((y1 - y0) * (x1 - x0))[:, None], axis=0)
    grad_low_ptr += image.to(tl.int64) * height * width * channels
    cell_width = tl.maximum(right - left, 1)
    # A cell without rows or columns is empty, also where its stop lies before its start.
    size = tl.where((bottom > top) & (right > left), (bottom - top) * cell_width, 0)
    stop = tl.minimum(size, (chunk + 1) * chunk_rows)
    for start in range(chunk * chunk_rows, stop, ROWS):
        r = start + tl.arange(0, ROWS)
        pixels = (top + r // cell_width) * width + left + r % cell_width
        mask = (r < stop)[:, None] & in_cols[None, :]
        values = tl.broadcast_to(grad[None, :], (ROWS, COLS)).to(grad_low_ptr.dtype.element_ty)
        tl.store(grad_low_ptr + pixels[:, None] * channels + cols[None, :], values, mask=mask)


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
    hidden = F.silu(_Pool4.apply(low) @ matrix4.t())
    return hidden @ w1.to(low.dtype).flatten(1).t()


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
