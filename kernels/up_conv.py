"""Nearest upsampling x2 and conv 3x3 (padding 1) as one transposed convolution 4x4, stride 2, padding 1.

Along one axis an output of even index sees x[p - 1], x[p], x[p] and one of odd index x[p], x[p], x[p + 1], so that the
taps that meet the same pixel add up:

    even: w0 x[p - 1] + (w1 + w2) x[p]        odd: (w0 + w1) x[p] + w2 x[p + 1]

which is a transposed convolution with the taps (w2, w1 + w2, w0 + w1, w0); in two dimensions the product of both, with
input and output channels swapped. Exact, borders included; 2.25 times fewer multiply-adds, and the upsampled map is
neither written nor kept for backward. What it costs is the assembly of the kernel, whatever the size of the map.

Layout: x and weight channels-last or contiguous; the assembled kernel is channels-last. cuDNN or oneDNN convolves.
Bytes moved by the assembly: 9 C_in C_out read, 16 C_in C_out written; its gradient the reverse.
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from fastgan_engine.kernels.arguments import MAP_DTYPES, check, check_device, check_shape
from fastgan_engine.kernels.dispatch import Impl, assert_near, self_test, use_triton
from fastgan_engine.kernels.launch import cdiv, jit, launch, tl

Method = Literal["auto", "direct", "transposed"]
METHODS: tuple[Method, ...] = ("auto", "direct", "transposed")
# "auto": from this many pixels of x in the whole batch the transposed form wins.
TRANSPOSED_FROM = 256
_transposed_from = TRANSPOSED_FROM
# Side of the tile of input and output channels in a kernel.
TILE = 32


def assemble_reference(weight: Tensor) -> Tensor:
    """The kernel [C_in, C_out, 4, 4] of the transposed convolution from the weight [C_out, C_in, 3, 3] of conv 3x3.

    Taps are summed in float32 (float64 for float64) and rounded once.
    """
    return _ReferenceFunction.apply(weight)


class _ReferenceFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        ctx.memory_format = _memory_format(weight)
        taps = _swapped(weight, torch.channels_last, torch.promote_types(weight.dtype, torch.float32))
        return _spread(_spread(taps, 2), 3).to(weight.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        taps = _collect(_collect(grad.to(torch.promote_types(grad.dtype, torch.float32)), 3), 2)
        return _swapped(taps, ctx.memory_format, grad.dtype)


def _memory_format(x: Tensor) -> torch.memory_format:
    return torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format


def _swapped(x: Tensor, memory_format: torch.memory_format, dtype: torch.dtype) -> Tensor:
    """x with its first two dimensions exchanged, laid out and typed as asked."""
    x = x.transpose(0, 1)
    out = torch.empty(x.shape, dtype=dtype, device=x.device, memory_format=memory_format)
    return out.copy_(x)


def _spread(taps: Tensor, dim: int) -> Tensor:
    """Three taps along ``dim`` -> (w2, w1 + w2, w0 + w1, w0)."""
    w0, w1, w2 = taps.unbind(dim)
    shape = [4 if d == dim else size for d, size in enumerate(taps.shape)]
    out = torch.empty(shape, dtype=taps.dtype, device=taps.device, memory_format=torch.channels_last)
    out.select(dim, 0).copy_(w2)
    torch.add(w1, w2, out=out.select(dim, 1))
    torch.add(w0, w1, out=out.select(dim, 2))
    out.select(dim, 3).copy_(w0)
    return out


def _collect(taps: Tensor, dim: int) -> Tensor:
    """The adjoint of ``_spread``: four taps -> (k2 + k3, k1 + k2, k0 + k1)."""
    k0, k1, k2, k3 = taps.unbind(dim)
    shape = [3 if d == dim else size for d, size in enumerate(taps.shape)]
    out = torch.empty(shape, dtype=taps.dtype, device=taps.device, memory_format=torch.channels_last)
    torch.add(k2, k3, out=out.select(dim, 0))
    torch.add(k1, k2, out=out.select(dim, 1))
    torch.add(k0, k1, out=out.select(dim, 2))
    return out


@jit
def _tile_of(channels_out, channels_in, stride_o, stride_i, TILE: tl.constexpr):
    """Offsets and mask of this program's tile of output and input channels."""
    o = (tl.program_id(0) * TILE + tl.arange(0, TILE)).to(tl.int64)[:, None]
    i = (tl.program_id(1) * TILE + tl.arange(0, TILE)).to(tl.int64)[None, :]
    return o * stride_o + i * stride_i, (o < channels_out) & (i < channels_in)


@jit
def _load_tap(pointer, mask):
    return tl.load(pointer, mask=mask, other=0.0).to(tl.float32)


@jit
def _load_spread(pointer, stride, mask):
    """Three taps along one axis as four: w2, w1 + w2, w0 + w1, w0."""
    w0, w1, w2 = _load_tap(pointer, mask), _load_tap(pointer + stride, mask), _load_tap(pointer + 2 * stride, mask)
    return w2, w1 + w2, w0 + w1, w0


@jit
def _load_collected(pointer, stride, mask):
    """Four taps along one axis as three: k2 + k3, k1 + k2, k0 + k1."""
    k0, k1 = _load_tap(pointer, mask), _load_tap(pointer + stride, mask)
    k2, k3 = _load_tap(pointer + 2 * stride, mask), _load_tap(pointer + 3 * stride, mask)
    return k2 + k3, k1 + k2, k0 + k1


@jit
def _store_spread(pointer, stride, mask, w0, w1, w2):
    dtype: tl.constexpr = pointer.dtype.element_ty
    tl.store(pointer, w2.to(dtype), mask=mask)
    tl.store(pointer + stride, (w1 + w2).to(dtype), mask=mask)
    tl.store(pointer + 2 * stride, (w0 + w1).to(dtype), mask=mask)
    tl.store(pointer + 3 * stride, w0.to(dtype), mask=mask)


@jit
def _store_collected(pointer, stride, mask, k0, k1, k2, k3):
    dtype: tl.constexpr = pointer.dtype.element_ty
    tl.store(pointer, (k2 + k3).to(dtype), mask=mask)
    tl.store(pointer + stride, (k1 + k2).to(dtype), mask=mask)
    tl.store(pointer + 2 * stride, (k0 + k1).to(dtype), mask=mask)


@jit
def _up_conv_assemble_kernel(
    weight_ptr, kernel_ptr, channels_out, channels_in,
    stride_o, stride_i, stride_y, stride_x, kernel_stride_o, kernel_stride_i, kernel_stride_y, kernel_stride_x,
    TILE: tl.constexpr,
):  # fmt: skip
    """Spreads the taps of each row, then of each column."""
    offset, mask = _tile_of(channels_out, channels_in, stride_o, stride_i, TILE)
    weight_ptr += offset
    a0, a1, a2, a3 = _load_spread(weight_ptr, stride_x, mask)
    b0, b1, b2, b3 = _load_spread(weight_ptr + stride_y, stride_x, mask)
    c0, c1, c2, c3 = _load_spread(weight_ptr + 2 * stride_y, stride_x, mask)
    offset, mask = _tile_of(channels_out, channels_in, kernel_stride_o, kernel_stride_i, TILE)
    kernel_ptr += offset
    _store_spread(kernel_ptr, kernel_stride_y, mask, a0, b0, c0)
    _store_spread(kernel_ptr + kernel_stride_x, kernel_stride_y, mask, a1, b1, c1)
    _store_spread(kernel_ptr + 2 * kernel_stride_x, kernel_stride_y, mask, a2, b2, c2)
    _store_spread(kernel_ptr + 3 * kernel_stride_x, kernel_stride_y, mask, a3, b3, c3)


@jit
def _up_conv_collect_kernel(
    kernel_ptr, weight_ptr, channels_out, channels_in,
    kernel_stride_o, kernel_stride_i, kernel_stride_y, kernel_stride_x, stride_o, stride_i, stride_y, stride_x,
    TILE: tl.constexpr,
):  # fmt: skip
    """The adjoint: collects the taps of each row, then of each column."""
    offset, mask = _tile_of(channels_out, channels_in, kernel_stride_o, kernel_stride_i, TILE)
    kernel_ptr += offset
    a0, a1, a2 = _load_collected(kernel_ptr, kernel_stride_x, mask)
    b0, b1, b2 = _load_collected(kernel_ptr + kernel_stride_y, kernel_stride_x, mask)
    c0, c1, c2 = _load_collected(kernel_ptr + 2 * kernel_stride_y, kernel_stride_x, mask)
    d0, d1, d2 = _load_collected(kernel_ptr + 3 * kernel_stride_y, kernel_stride_x, mask)
    offset, mask = _tile_of(channels_out, channels_in, stride_o, stride_i, TILE)
    weight_ptr += offset
    _store_collected(weight_ptr, stride_y, mask, a0, b0, c0, d0)
    _store_collected(weight_ptr + stride_x, stride_y, mask, a1, b1, c1, d1)
    _store_collected(weight_ptr + 2 * stride_x, stride_y, mask, a2, b2, c2, d2)


def _launch(kernel: Any, source: Tensor, target: Tensor) -> Tensor:
    """source, target: [C_out, C_in, taps, taps], any strides."""
    channels_out, channels_in = source.shape[:2]
    grid = (cdiv(channels_out, TILE), cdiv(channels_in, TILE))
    launch(kernel, grid, source, target, channels_out, channels_in, *source.stride(), *target.stride(), TILE=TILE)
    return target


class _AssembleFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        ctx.memory_format = _memory_format(weight)
        channels_out, channels_in = weight.shape[:2]
        kernel = torch.empty(
            channels_in, channels_out, 4, 4,
            dtype=weight.dtype, device=weight.device, memory_format=torch.channels_last,
        )  # fmt: skip
        _launch(_up_conv_assemble_kernel, weight, kernel.transpose(0, 1))
        return kernel

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        channels_in, channels_out = grad.shape[:2]
        grad_weight = torch.empty(
            channels_out, channels_in, 3, 3, dtype=grad.dtype, device=grad.device, memory_format=ctx.memory_format
        )
        return _launch(_up_conv_collect_kernel, grad.transpose(0, 1), grad_weight)


def transposed_pays(x: Tensor) -> bool:
    """The rule of ``method="auto"``: whether x: [B, C, H, W] has enough pixels to pay for the assembly.

    What is saved grows with C_in C_out B H W, the assembly with C_in C_out. Forward and backward in ms on one CPU
    thread (AVX-512, torch 2.14, channels-last), direct -> transposed:

        x                   C_out   fp32         bf16
        [8, 1024,   4,   4]  1024   326 -> 800   377 -> 519
        [2,  512,   8,   8]   512    54 ->  77    88 ->  85
        [4,  512,   8,   8]   512   102 ->  95   168 -> 124
        [8,  512,   8,   8]   512   193 -> 144   327 -> 200
        [8,  128,  32,  32]   256   382 -> 224   669 -> 309
        [8,   64, 128, 128]    64   960 -> 437  1494 -> 677
    """
    return x.shape[0] * x.shape[2] * x.shape[3] >= _transposed_from


def transpose_from(pixels: int | None) -> None:
    """Sets from how many pixels ``method="auto"`` transposes, for the whole process; None: ``TRANSPOSED_FROM``."""
    global _transposed_from
    _transposed_from = TRANSPOSED_FROM if pixels is None else pixels


def up_conv(x: Tensor, weight: Tensor, *, method: Method = "auto", impl: Impl = "auto") -> Tensor:
    """Nearest x2, then conv 3x3 with padding 1: [B, C_in, H, W] -> [B, C_out, 2H, 2W].

    x: float32, float16 or bfloat16 (float64 where the reference assembles); weight: [C_out, C_in, 3, 3] in the dtype of
    x. ``method`` chooses the convolution: "direct" as written, "transposed" as above, "auto" by ``transposed_pays``,
    which was measured on a CPU. ``impl`` chooses what assembles the transposed kernel.

    Raises:
        ValueError: wrong shape, dtype, device or method.
        RuntimeError: ``impl="triton"`` cannot run here.
    """
    check(method in METHODS, "method", repr(method), f"one of {', '.join(METHODS)}")
    check_shape("x", x, (None,) * 4)
    check(x.numel() > 0, "x", f"the empty shape {tuple(x.shape)}", "at least one element")
    check(x.dtype in MAP_DTYPES, "x", x.dtype, "float32, float16 or bfloat16 (float64 for the reference)")
    check_shape("weight", weight, (None, x.shape[1], 3, 3))
    check(weight.dtype == x.dtype, "weight", weight.dtype, f"{x.dtype}, as x")
    check_device("weight", weight, x)
    triton = use_triton("up_conv", impl, weight)
    if method == "direct" or (method == "auto" and not transposed_pays(x)):
        return F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, padding=1)
    kernel = _AssembleFunction.apply(weight) if triton else assemble_reference(weight)
    return F.conv_transpose2d(x, kernel, stride=2, padding=1)


@self_test("up_conv")
def _self_test(device: torch.device, dtype: torch.dtype) -> None:
    generator = torch.Generator(device).manual_seed(0)
    weight = torch.randn(35, 41, 3, 3, generator=generator, device=device).to(dtype)
    grad = torch.randn(41, 35, 4, 4, generator=generator, device=device).to(dtype)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        results = []
        for function, wanted in ((_AssembleFunction, dtype), (_ReferenceFunction, torch.float64)):
            leaf = weight.detach().to(wanted, memory_format=memory_format, copy=True).requires_grad_()
            kernel = function.apply(leaf)
            kernel.backward(grad.to(wanted))
            results.append((kernel.detach(), leaf.grad))
        assert_near("up_conv", *results)
