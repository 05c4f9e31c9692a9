"""A trunk's layer whose features are compared: convolution, bias, ReLU, LPIPS distance to a target, and max pooling.

    y = relu(conv(x, W) + b),    d[n] = LPIPS distance of y[n] and target (``lpips_distance``),    p = max_pool2d(y, 2)

The convolution is cuDNN's; one pass over its output does the rest. Weights, biases and targets are constants, and d[n]
enters a loss by one factor only, so its gradient is computed in that same pass, up to the factor, and kept in place of
the features: with s = w e / h - ... as in ``lpips_distance``,

    dx = conv^T( [y > 0] s 2 grad_d / (H W) + [y > 0 and y is the first maximum of its window] grad_p )

Kept for backward are s, already zero where the ReLU is, and a byte a window: which pixel was its maximum, or none.

Source: ``lpips_distance``; the trunk is torchvision's VGG16. Ties and NaN in a window are decided as by
``torch.nn.functional.max_pool2d``.
Layout: maps channels-last; s in the dtype of y, times ``SLOPE_SCALE``: where features are large, float16 would lose it.
Bytes moved beside the convolutions, a map of n elements of e bytes: forward reads the map and the target (2 n e) and
writes s, p and the choices (n e + n e / 4 + n / 4); backward reads those and writes one map.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from fastgan_engine.kernels.arguments import check, check_device, check_map, check_parameter
from fastgan_engine.kernels.conv_relu import check_frozen_conv, conv_relu_reference, convolved
from fastgan_engine.kernels.dispatch import Impl, assert_near, probe, self_test, use_triton
from fastgan_engine.kernels.launch import cdiv, jit, launch, next_power_of_2, tl
from fastgan_engine.kernels.lpips_distance import (
    EPS,
    WEIGHTS_A_TILE,
    check_targets,
    lpips_distance_reference,
    lpips_slope,
    norm_of,
)

# Elements of a tile: that many pixels at the same place in their windows, times channels.
TILE = 1024
# A power of two: exact.
SLOPE_SCALE = 256.0
# The choice of a window without a positive element, which gets no gradient.
NONE = 4


def conv_tap_reference(
    x: Tensor, weight: Tensor, bias: Tensor, target: Tensor, linear: Tensor, pool: bool
) -> tuple[Tensor, Tensor | None]:
    """``conv_tap`` in plain PyTorch; its distances are in one part."""
    y, pooled = conv_features_reference(x, weight, bias, pool)
    return lpips_distance_reference(y, target, linear)[:, None], pooled


def conv_features_reference(x: Tensor, weight: Tensor, bias: Tensor, pool: bool) -> tuple[Tensor, Tensor | None]:
    """``conv_features`` in plain PyTorch."""
    y = conv_relu_reference(x, weight, bias)
    return y, F.max_pool2d(y, 2) if pool else None


@jit
def _window_of(step, width, WINDOWS: tl.constexpr, TILES: tl.constexpr):
    """Rows and columns of the first pixels of the windows of tile number ``step`` of this program."""
    window = (tl.program_id(1) * TILES + step) * WINDOWS + tl.arange(0, WINDOWS)
    columns = (width + 1) // 2
    return window // columns * 2, window % columns * 2


@jit
def _pixels(row, column, height, width, PADDED: tl.constexpr, CHANNELS: tl.constexpr):
    """Offsets of these pixels in a map of one image, [WINDOWS, PADDED], and their mask."""
    channel = tl.arange(0, PADDED)
    offset = (row * width + column)[:, None] * CHANNELS + channel[None, :]
    return offset, ((row < height) & (column < width))[:, None] & (channel < CHANNELS)[None, :]


@jit
def _pooled(row, column, height, width, PADDED: tl.constexpr, CHANNELS: tl.constexpr):
    """Offsets of these windows in the pooled map of one image, and their mask: the last half window is dropped."""
    channel = tl.arange(0, PADDED)
    offset = (row // 2 * (width // 2) + column // 2)[:, None] * CHANNELS + channel[None, :]
    return offset, ((row + 1 < height) & (column + 1 < width))[:, None] & (channel < CHANNELS)[None, :]


@jit
def _conv_tap_kernel(
    x_ptr, bias_ptr, target_ptr, linear_ptr, partial_ptr, slope_ptr, pooled_ptr, choice_ptr, targets, height, width,
    CHANNELS: tl.constexpr, PADDED: tl.constexpr, WINDOWS: tl.constexpr, TILES: tl.constexpr,
    EPS: tl.constexpr, SLOPE_SCALE: tl.constexpr, NONE: tl.constexpr,
):  # fmt: skip
    """Features in place where there is no target; else this program's share of the distance, and its slope."""
    image = tl.program_id(0).to(tl.int64)
    channel = tl.arange(0, PADDED)
    dtype: tl.constexpr = x_ptr.dtype.element_ty
    bias = tl.load(bias_ptr + channel, mask=channel < CHANNELS, other=0.0).to(tl.float32)[None, :]
    x_ptr += image * height * width * CHANNELS
    total = tl.zeros([WINDOWS], dtype=tl.float32)
    if target_ptr is not None:
        linear = tl.load(linear_ptr + channel, mask=channel < CHANNELS, other=0.0)[None, :]
        target_ptr += image % targets * height * width * CHANNELS
    if slope_ptr is not None:
        slope_ptr += image * height * width * CHANNELS
    for step in range(TILES):
        row, column = _window_of(step, width, WINDOWS, TILES)
        largest = tl.full([WINDOWS, PADDED], float("-inf"), tl.float32)
        choice = tl.zeros([WINDOWS, PADDED], dtype=tl.int32)
        for position in tl.static_range(4):
            offset, mask = _pixels(row + position // 2, column + position % 2, height, width, PADDED, CHANNELS)
            x = tl.load(x_ptr + offset, mask=mask, other=0.0).to(tl.float32)
            y = tl.maximum(x + bias, 0.0, propagate_nan=tl.PropagateNan.ALL).to(dtype).to(tl.float32)
            y = tl.where(mask, y, 0.0)
            if target_ptr is None:
                tl.store(x_ptr + offset, y.to(dtype), mask=mask)
            else:
                wanted = tl.load(target_ptr + offset, mask=mask, other=0.0).to(tl.float32)
                norm = norm_of(y)
                e = y * (1.0 / (norm + EPS)) - wanted * (1.0 / (norm_of(wanted) + EPS))
                total += tl.sum(linear * e * e, axis=1)
                if slope_ptr is not None:
                    slope = tl.where(y <= 0.0, 0.0, lpips_slope(y, norm, linear * e, EPS)) * SLOPE_SCALE
                    if dtype == tl.float16:
                        # A pixel with next to no features: its slope is beyond the range. NaN stays.
                        slope = tl.where(slope > 65504.0, 65504.0, tl.where(slope < -65504.0, -65504.0, slope))
                    tl.store(slope_ptr + offset, slope.to(dtype), mask=mask)
            larger = (y > largest) | (y != y)
            largest = tl.where(larger, y, largest)
            choice = tl.where(larger, position, choice)
        if pooled_ptr is not None:
            offset, mask = _pooled(row, column, height, width, PADDED, CHANNELS)
            offset += image * (height // 2) * (width // 2) * CHANNELS
            tl.store(pooled_ptr + offset, largest.to(dtype), mask=mask)
            if choice_ptr is not None:
                tl.store(choice_ptr + offset, tl.where(largest <= 0.0, NONE, choice).to(tl.uint8), mask=mask)
    if target_ptr is not None:
        mean = tl.sum(total) / (height * width)
        tl.store(partial_ptr + image * tl.num_programs(1) + tl.program_id(1), mean)


@jit
def _conv_tap_gradient_kernel(
    grad_ptr, slope_ptr, grad_pooled_ptr, choice_ptr, grad_x_ptr, grad_stride_n, grad_stride_part, height, width,
    CHANNELS: tl.constexpr, PADDED: tl.constexpr, WINDOWS: tl.constexpr, TILES: tl.constexpr,
    EPS: tl.constexpr, SLOPE_SCALE: tl.constexpr, NONE: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(0).to(tl.int64)
    grad = tl.load(grad_ptr + image * grad_stride_n + tl.program_id(1) * grad_stride_part)
    grad = grad.to(tl.float32) * (2.0 / SLOPE_SCALE) / (height * width)
    slope_ptr += image * height * width * CHANNELS
    grad_x_ptr += image * height * width * CHANNELS
    for step in range(TILES):
        row, column = _window_of(step, width, WINDOWS, TILES)
        if grad_pooled_ptr is not None:
            offset, mask = _pooled(row, column, height, width, PADDED, CHANNELS)
            offset += image * (height // 2) * (width // 2) * CHANNELS
            grad_pooled = tl.load(grad_pooled_ptr + offset, mask=mask, other=0.0).to(tl.float32)
            choice = tl.load(choice_ptr + offset, mask=mask, other=NONE).to(tl.int32)
        for position in tl.static_range(4):
            offset, mask = _pixels(row + position // 2, column + position % 2, height, width, PADDED, CHANNELS)
            grad_x = grad * tl.load(slope_ptr + offset, mask=mask, other=0.0).to(tl.float32)
            if grad_pooled_ptr is not None:
                grad_x += tl.where(choice == position, grad_pooled, 0.0)
            tl.store(grad_x_ptr + offset, grad_x.to(grad_x_ptr.dtype.element_ty), mask=mask)


def _tiling(y: Tensor) -> tuple[tuple[int, int], dict[str, Any]]:
    """Grid (images, parts of an image) and constants of either kernel."""
    batch, channels, height, width = y.shape
    padded = next_power_of_2(channels)
    windows = max(1, TILE // padded)
    # So many tiles a program that loading biases and weights costs little beside them.
    tiles = cdiv(channels, WEIGHTS_A_TILE)
    meta: dict[str, Any] = {"CHANNELS": channels, "PADDED": padded, "WINDOWS": windows, "TILES": tiles}
    meta |= {"EPS": EPS, "SLOPE_SCALE": SLOPE_SCALE, "NONE": NONE}
    return (batch, cdiv(cdiv(height, 2) * cdiv(width, 2), windows * tiles)), meta


def _empty_pooled(y: Tensor, dtype: torch.dtype) -> Tensor:
    batch, channels, height, width = y.shape
    shape = (batch, channels, height // 2, width // 2)
    return torch.empty(shape, dtype=dtype, device=y.device, memory_format=torch.channels_last)


def _forward(
    y: Tensor, bias: Tensor, target: Tensor | None, linear: Tensor | None, *, pool: bool, grad: bool
) -> tuple[Tensor | None, ...]:
    """Parts of the distance, slope, pooled map and choices; y: the convolution's output, without target rewritten."""
    grid, meta = _tiling(y)
    parts = None if target is None else torch.empty(grid, dtype=torch.float32, device=y.device)
    slope = torch.empty_like(y) if grad else None
    pooled = _empty_pooled(y, y.dtype) if pool else None
    choice = _empty_pooled(y, torch.uint8) if pool and grad else None
    count = 1 if target is None else target.shape[0]
    args = (bias, target, linear, parts, slope, pooled, choice)
    launch(_conv_tap_kernel, grid, y, *args, count, *y.shape[2:], **meta)
    return parts, slope, pooled, choice


def _backward(grad: Tensor, grad_pooled: Tensor | None, slope: Tensor, choice: Tensor | None) -> Tensor:
    """Gradient of the convolution's output; grad: of the parts of the distance."""
    grid, meta = _tiling(slope)
    grad_y = torch.empty_like(slope)
    if grad_pooled is not None:
        grad_pooled = grad_pooled.contiguous(memory_format=torch.channels_last)
    args = (grad, slope, grad_pooled, choice, grad_y, *grad.stride(), *slope.shape[2:])
    launch(_conv_tap_gradient_kernel, grid, *args, **meta)
    return grad_y


class _ConvTapFunction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, target: Tensor, linear: Tensor, pool: bool
    ) -> tuple[Tensor | None, ...]:
        y = convolved(x, weight)
        parts, slope, pooled, choice = _forward(y, bias, target, linear, pool=pool, grad=ctx.needs_input_grad[0])
        ctx.save_for_backward(weight, slope, choice)
        return parts, pooled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, grad_pooled: Tensor | None) -> tuple[Tensor | None, ...]:
        weight, slope, choice = ctx.saved_tensors
        grad_y = _backward(grad, None if choice is None else grad_pooled, slope, choice)
        return F.conv_transpose2d(grad_y, weight, padding=1), None, None, None, None, None


def conv_tap(
    x: Tensor, weight: Tensor, bias: Tensor, target: Tensor, linear: Tensor, *, pool: bool, impl: Impl = "auto"
) -> tuple[Tensor, Tensor | None]:
    """Distances of the features relu(conv 3x3 of x + bias) and ``target``, and the features pooled, if ``pool``.

    x: [B, I, H, W], channels-last, float32, float16 or bfloat16 (the reference also float64); weight [O, I, 3, 3] and
    bias [O] in the dtype of x; target: [T, O, H, W], channels-last, in the dtype of x: image n is compared with target
    n mod T; linear: [O], float32. All but x without gradients.

    Returns:
        The distances in parts, [B, any number], float32, whose sums over dim 1 they are; and [B, O, H // 2, W // 2], or
        None. Differentiable in x.

    Raises:
        ValueError: wrong shape, dtype, device or layout, or a gradient wanted of anything but x.
        RuntimeError: ``impl="triton"`` cannot run here.
    """
    check_frozen_conv(x, weight, bias)
    batch, channels = x.shape[0], weight.shape[0]
    check_map("target", target, shape=(None, channels, *x.shape[2:]))
    check(target.dtype == x.dtype, "target", target.dtype, f"{x.dtype}, as x")
    check_device("target", target, x)
    check_targets("target", target, batch)
    check(not target.requires_grad, "target", "a tensor that requires a gradient", "a constant")
    check_parameter("linear", linear, (channels,), x)
    check(not linear.requires_grad, "linear", "a tensor that requires a gradient", "a constant")
    if use_triton("conv_tap", impl, x):
        return _ConvTapFunction.apply(x, weight, bias, target, linear, pool)
    return conv_tap_reference(x, weight, bias, target, linear, pool)


@torch.no_grad()
def conv_features(
    x: Tensor, weight: Tensor, bias: Tensor, *, pool: bool, impl: Impl = "auto"
) -> tuple[Tensor, Tensor | None]:
    """The features of the target that ``conv_tap`` compares with, and the same pooled, if ``pool``; without gradient.

    Arguments and errors as of ``conv_tap``.
    """
    check_frozen_conv(x, weight, bias)
    if not use_triton("conv_tap", impl, x):
        return conv_features_reference(x, weight, bias, pool)
    y = convolved(x, weight)
    _, _, pooled, _ = _forward(y, bias, None, None, pool=pool, grad=False)
    return y, pooled


@self_test("conv_tap")
def _self_test(device: torch.device, dtype: torch.dtype) -> None:
    """The passes over the convolution's output: what convolves is not ours."""
    y, bias = _short(probe((4, 40, 9, 6), dtype, device)), _short(probe((40,), dtype, device))
    target, linear = probe((2, 40, 9, 6), dtype, device).abs(), probe((40,), torch.float32, device).abs()
    leaf = y.double().requires_grad_()
    features = torch.relu(leaf + bias.double()[:, None, None])
    distance, expected = lpips_distance_reference(features, target.double(), linear.double()), F.max_pool2d(features, 2)
    parts, slope, pooled, choice = _forward(y, bias, target, linear, pool=True, grad=True)
    assert parts is not None
    assert slope is not None
    grad_pooled = probe(expected.shape, dtype, device)
    torch.autograd.backward([distance.sum(), expected], [None, grad_pooled.double()])
    grad_y = _backward(torch.ones_like(parts), grad_pooled, slope, choice)
    _forward(y, bias, None, None, pool=True, grad=False)  # y: the features from here on
    assert_near(
        "conv_tap", [parts.sum(1), pooled, grad_y, y],
        [distance.detach(), expected.detach(), leaf.grad, features.detach()],
    )  # fmt: skip


def _short(x: Tensor) -> Tensor:
    """x with so few digits that sums are exact in half precision: rounding would decide on the maxima."""
    return x.mul(8).round().clamp(-31, 31).div(8)
