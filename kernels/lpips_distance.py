"""LPIPS distance of two feature maps: normalise, subtract, square, weight, mean.

    d[n] = mean over pixels of sum_c w_c (a_c / (|a| + eps) - b_c / (|b| + eps))^2,    |.| the norm over channels

With e = a / (|a| + eps) - b / (|b| + eps), h = |a| + eps and g the gradient of d[n] times 2 / (H W):

    da_c = g (w_c e_c / h - a_c / (|a| h^2) sum_k w_k e_k a_k),        zero where the whole pixel of a is zero

and db likewise with -g. The difference is taken as it stands: multiplied out, five channel sums would do, but where a
is close to b they cancel to nothing. Several images may share a target: image n of a is compared with n mod T of b.

Source: Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018
(arXiv 1801.03924), and its package ``lpips`` 0.1.4, which adds eps outside the square root (a zero pixel there has a
NaN gradient) and squares in the dtype of the features (in fp16 eps is 0).
Layout: a, b channels-last, arithmetic in float32; nothing is kept for backward but a and b.
Bytes moved: forward reads a and b once; backward reads both again and writes da (and db where it is asked for).
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fastgan_engine.kernels.arguments import check, check_device, check_map, check_parameter
from fastgan_engine.kernels.dispatch import Impl, assert_near, self_test, use_triton
from fastgan_engine.kernels.launch import cdiv, jit, launch, next_power_of_2, tl

EPS = 1e-10
# Elements of a tile of pixels and channels in a kernel, and of the weights that one tile pays for.
TILE, WEIGHTS_A_TILE = 2048, 128
# The reference works through the maps in blocks: on the CPU of 1 MiB in float32, which stays in a core's cache.
CPU_BLOCK, BLOCK = 1 << 18, 1 << 25


def lpips_distance_reference(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """The distance in plain PyTorch, block after block of pixels: float32 arithmetic (float64 for float64)."""
    return _ReferenceFunction.apply(a, b, weight)


class _ReferenceFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(a, b, weight)
        distance = weight.new_empty(a.shape[0] * a.shape[2] * a.shape[3])
        for rows, of_b in _blocks(a, b):
            x, y = _wide(a, rows), _wide(b, of_b)
            _, inverse_x = _norms(x)
            _, inverse_y = _norms(y)
            e = (x * inverse_x).addcmul_(y, inverse_y, value=-1)
            distance[rows] = e.square_().mv(weight)
        return distance.view(a.shape[0], -1).mean(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        a, b, weight = ctx.saved_tensors
        grad_a, grad_b = (torch.empty_like(x) if needed else None for x, needed in zip(
            (a, b), ctx.needs_input_grad, strict=False
        ))  # fmt: skip
        pixels = a.shape[2] * a.shape[3]
        per_row = (grad * (2 / pixels)).repeat_interleave(pixels)[:, None]
        for rows, of_b in _blocks(a, b):
            x, y = _wide(a, rows), _wide(b, of_b)
            norm_x, inverse_x = _norms(x)
            norm_y, inverse_y = _norms(y)
            we = (x * inverse_x).addcmul_(y, inverse_y, value=-1).mul_(weight)
            if grad_a is not None:
                _rows(grad_a)[rows] = _gradient(x, norm_x, inverse_x, we, per_row[rows])
            if grad_b is not None:
                _rows(grad_b)[of_b] = _gradient(y, norm_y, inverse_y, we, -per_row[rows])
        return grad_a, grad_b, None


def _rows(x: Tensor) -> Tensor:
    """[B, C, H, W], channels-last -> its view [B H W, C]."""
    return x.permute(0, 2, 3, 1).view(-1, x.shape[1])


def _wide(x: Tensor, rows: slice) -> Tensor:
    return _rows(x)[rows].to(torch.promote_types(x.dtype, torch.float32))


def _blocks(a: Tensor, b: Tensor) -> Iterator[tuple[slice, slice]]:
    """Rows of a, and those of b that they are compared with."""
    rows, period = a.numel() // a.shape[1], b.numel() // b.shape[1]
    step = max(1, (CPU_BLOCK if a.device.type == "cpu" else BLOCK) // a.shape[1])
    for first in range(0, rows, period):
        for start in range(0, min(period, rows - first), step):
            stop = min(start + step, period, rows - first)
            yield slice(first + start, first + stop), slice(start, stop)


def _norms(x: Tensor) -> tuple[Tensor, Tensor]:
    """|x| and 1 / (|x| + eps) of each row, [rows, 1]."""
    norm = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return norm, (norm + EPS).reciprocal_()


def _gradient(x: Tensor, norm: Tensor, inverse: Tensor, we: Tensor, grad: Tensor) -> Tensor:
    scale = torch.where(norm > 0, grad * inverse, 0)
    along = torch.linalg.vecdot(we, x, dim=1)[:, None] * inverse / norm.clamp_min(torch.finfo(norm.dtype).tiny)
    return (we * scale).addcmul_(x, along * scale, value=-1)


@jit
def _load_weight(weight_ptr, CHANNELS: tl.constexpr, PADDED: tl.constexpr):
    channel = tl.arange(0, PADDED)
    return tl.load(weight_ptr + channel, mask=channel < CHANNELS, other=0.0)[None, :]


@jit
def _load_tile(a_ptr, b_ptr, targets, pixels, tile, CHANNELS: tl.constexpr, PADDED: tl.constexpr, PIXELS: tl.constexpr):
    """Tile number ``tile``, [PIXELS, PADDED], of this program's image: offsets in a, mask, a and b."""
    image = tl.program_id(0).to(tl.int64)
    pixel = tile * PIXELS + tl.arange(0, PIXELS)
    channel = tl.arange(0, PADDED)
    mask = (pixel < pixels)[:, None] & (channel < CHANNELS)[None, :]
    offset = (image * pixels + pixel)[:, None] * CHANNELS + channel[None, :]
    offset_b = (image % targets * pixels + pixel)[:, None] * CHANNELS + channel[None, :]
    a = tl.load(a_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    b = tl.load(b_ptr + offset_b, mask=mask, other=0.0).to(tl.float32)
    return offset, mask, a, b


@jit
def norm_of(x):
    """Norms of the rows of a tile, as a column."""
    return tl.sqrt(tl.sum(x * x, axis=1))[:, None]


@jit
def _lpips_distance_fwd_kernel(
    a_ptr, b_ptr, weight_ptr, partial_ptr, targets, pixels,
    CHANNELS: tl.constexpr, PADDED: tl.constexpr, PIXELS: tl.constexpr, TILES: tl.constexpr, EPS: tl.constexpr,
):  # fmt: skip
    """The share of TILES tiles in an image's distance."""
    weight = _load_weight(weight_ptr, CHANNELS, PADDED)
    total = tl.zeros([PIXELS], dtype=tl.float32)
    for step in range(TILES):
        tile = tl.program_id(1) * TILES + step
        _, _, a, b = _load_tile(a_ptr, b_ptr, targets, pixels, tile, CHANNELS, PADDED, PIXELS)
        e = a * (1.0 / (norm_of(a) + EPS)) - b * (1.0 / (norm_of(b) + EPS))
        total += tl.sum(weight * e * e, axis=1)
    part = tl.program_id(0).to(tl.int64) * tl.num_programs(1) + tl.program_id(1)
    tl.store(partial_ptr + part, tl.sum(total) / pixels)


@jit
def _lpips_distance_bwd_kernel(
    grad_ptr, a_ptr, b_ptr, weight_ptr, grad_a_ptr, grad_b_ptr, targets, pixels,
    CHANNELS: tl.constexpr, PADDED: tl.constexpr, PIXELS: tl.constexpr, TILES: tl.constexpr, EPS: tl.constexpr,
):  # fmt: skip
    weight = _load_weight(weight_ptr, CHANNELS, PADDED)
    grad = tl.load(grad_ptr + tl.program_id(0)).to(tl.float32) * 2.0 / pixels
    for step in range(TILES):
        tile = tl.program_id(1) * TILES + step
        offset, mask, a, b = _load_tile(a_ptr, b_ptr, targets, pixels, tile, CHANNELS, PADDED, PIXELS)
        norm_a, norm_b = norm_of(a), norm_of(b)
        we = weight * (a * (1.0 / (norm_a + EPS)) - b * (1.0 / (norm_b + EPS)))
        if grad_a_ptr is not None:
            grad_a = grad * lpips_slope(a, norm_a, we, EPS)
            tl.store(grad_a_ptr + offset, grad_a.to(grad_a_ptr.dtype.element_ty), mask=mask)
        if grad_b_ptr is not None:
            grad_b = -grad * lpips_slope(b, norm_b, we, EPS)
            tl.store(grad_b_ptr + offset, grad_b.to(grad_b_ptr.dtype.element_ty), mask=mask)


@jit
def lpips_slope(x, norm, we, EPS: tl.constexpr):
    """Gradient in x of half the weighted square; ``we``: weights times the difference of the normalised maps."""
    inverse = 1.0 / (norm + EPS)
    along = tl.sum(we * x, axis=1)[:, None] * inverse / tl.where(norm > 0.0, norm, 1.0)
    return tl.where(norm > 0.0, (we - x * along) * inverse, 0.0)


def _tiling(a: Tensor) -> tuple[int, tuple[int, int], dict[str, Any]]:
    """Pixels of an image, grid and constants of either kernel."""
    batch, channels, height, width = a.shape
    padded = next_power_of_2(channels)
    pixels = max(1, TILE // padded)
    # So many tiles a program that loading the weights costs little beside them.
    tiles = cdiv(channels, WEIGHTS_A_TILE)
    meta = {"CHANNELS": channels, "PADDED": padded, "PIXELS": pixels, "TILES": tiles, "EPS": EPS}
    return height * width, (batch, cdiv(height * width, pixels * tiles)), meta


class _LpipsDistanceFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(a, b, weight)
        pixels, grid, meta = _tiling(a)
        partial = torch.empty(grid, dtype=torch.float32, device=a.device)
        launch(_lpips_distance_fwd_kernel, grid, a, b, weight, partial, b.shape[0], pixels, **meta)
        return partial.sum(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        a, b, weight = ctx.saved_tensors
        grad_a = torch.empty_like(a) if ctx.needs_input_grad[0] else None
        grad_b = torch.empty_like(b) if ctx.needs_input_grad[1] else None
        pixels, grid, meta = _tiling(a)
        args = (grad.contiguous(), a, b, weight, grad_a, grad_b, b.shape[0], pixels)
        launch(_lpips_distance_bwd_kernel, grid, *args, **meta)
        return grad_a, grad_b, None


def lpips_distance(a: Tensor, b: Tensor, weight: Tensor, *, impl: Impl = "auto") -> Tensor:
    """Distance [B] of the feature maps a: [B, C, H, W] and b: [T, C, H, W] under non-negative weights [C].

    Image n of a is compared with n mod T of b. a, b: channels-last, float32, float16 or bfloat16,
    both the same (the reference also float64); weight and the result float32. Differentiable in a and, where T is B,
    in b, not in the weight.

    Raises:
        ValueError: wrong shape, dtype, device or layout, or a weight that requires a gradient.
        RuntimeError: ``impl="triton"`` cannot run here.
    """
    check_map("a", a)
    check_map("b", b, shape=(None, *a.shape[1:]))
    check_targets("b", b, a.shape[0])
    check(b.dtype == a.dtype, "b", b.dtype, f"{a.dtype}, as a")
    check_device("b", b, a)
    check_parameter("weight", weight, (a.shape[1],), a)
    check(not weight.requires_grad, "weight", "a tensor that requires a gradient", "a constant")
    if use_triton("lpips_distance", impl, a):
        return _LpipsDistanceFunction.apply(a, b, weight)
    return lpips_distance_reference(a, b, weight)


def check_targets(argument: str, b: Tensor, batch: int) -> None:
    """No more maps ``b`` than the ``batch`` images that are compared with them; fewer only without gradient."""
    check(b.shape[0] <= batch, argument, f"{b.shape[0]} maps", f"at most {batch}")
    check(b.shape[0] == batch or not b.requires_grad, argument, "shared maps that require a gradient", "constants")


@self_test("lpips_distance")
def _self_test(device: torch.device, dtype: torch.dtype) -> None:
    generator = torch.Generator(device).manual_seed(0)
    a, b = (
        torch.randn(2, 72, 9, 7, generator=generator, device=device).relu().to(dtype, memory_format=torch.channels_last)
        for _ in range(2)
    )
    a[0, :, 0, 0] = 0
    weight = torch.rand(72, generator=generator, device=device)
    results = []
    for function, wanted in ((_LpipsDistanceFunction, dtype), (_ReferenceFunction, torch.float64)):
        leaves = [x.detach().to(wanted, copy=True).requires_grad_() for x in (a, b)]
        distance = function.apply(*leaves, weight.to(torch.promote_types(wanted, torch.float32)))
        distance.sum().backward()
        results.append([distance.detach(), *(leaf.grad for leaf in leaves)])
    assert_near("lpips_distance", *results)
