"""Convolution 3x3 with frozen weights, bias and ReLU: a layer of a trained trunk, as a perceptual loss goes through it.

    y = relu(conv(x, W) + b),        dx = conv^T(g [y > 0], W)

cuDNN convolves, and one pass in place adds the bias and rectifies. Weight and bias get no gradient, so neither x nor y
is needed backward: a bit an element says where y was positive.

Layout: x channels-last; weight [O, I, 3, 3] channels-last or contiguous. The bits of eight channels are one byte.
Bytes moved beside the convolutions, n elements of e bytes: forward reads and writes n e, and n / 8 of bits; backward
reads the gradient and the bits and writes the convolution's gradient.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from fastgan_engine.kernels.arguments import check, check_device, check_map, check_shape
from fastgan_engine.kernels.dispatch import Impl, assert_near, probe, self_test, use_triton
from fastgan_engine.kernels.launch import cdiv, jit, launch, next_power_of_2, tl

# Channels whose bits share a byte.
BITS = 8
# Elements of a tile of pixels and channels, and of the biases that one tile pays for.
TILE, BIASES_A_TILE = 2048, 64


def conv_relu_reference(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The layer in plain PyTorch."""
    return convolved(x, weight, bias).relu_()


def convolved(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolution 3x3, padding 1; channels-last also where the library leaves that open."""
    return F.conv2d(x, weight, bias, padding=1).contiguous(memory_format=torch.channels_last)


@jit
def _tile(rows, step, GROUPS: tl.constexpr, PADDED: tl.constexpr, ROWS: tl.constexpr, STEPS: tl.constexpr):
    """Tile number ``step`` of this program, [ROWS, PADDED, 8]: its pixels and groups of 8 channels, and their masks."""
    row = (tl.program_id(0).to(tl.int64) * STEPS + step) * ROWS + tl.arange(0, ROWS)
    group = tl.arange(0, PADDED)
    mask = (row < rows)[:, None] & (group < GROUPS)[None, :]
    return row[:, None] * GROUPS + group[None, :], mask


@jit
def _conv_relu_kernel(
    x_ptr, bias_ptr, bits_ptr, rows,
    GROUPS: tl.constexpr, PADDED: tl.constexpr, ROWS: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """Bias and ReLU in place; which elements are positive into ``bits_ptr``, if there is one."""
    lane = tl.arange(0, 8)[None, None, :]
    group = tl.arange(0, PADDED)[None, :, None]
    bias = tl.load(bias_ptr + group * 8 + lane, mask=group < GROUPS, other=0.0).to(tl.float32)
    for step in range(STEPS):
        byte, mask = _tile(rows, step, GROUPS, PADDED, ROWS, STEPS)
        element = byte[:, :, None] * 8 + lane
        x = tl.load(x_ptr + element, mask=mask[:, :, None], other=0.0).to(tl.float32)
        y = tl.maximum(x + bias, 0.0, propagate_nan=tl.PropagateNan.ALL).to(x_ptr.dtype.element_ty)
        tl.store(x_ptr + element, y, mask=mask[:, :, None])
        if bits_ptr is not None:
            bits = tl.sum(tl.where(y <= 0.0, 0, 1) << lane, axis=2)
            tl.store(bits_ptr + byte, bits.to(tl.uint8), mask=mask)


@jit
def _conv_relu_gradient_kernel(
    grad_ptr, bits_ptr, grad_x_ptr, rows,
    GROUPS: tl.constexpr, PADDED: tl.constexpr, ROWS: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    lane = tl.arange(0, 8)[None, None, :]
    for step in range(STEPS):
        byte, mask = _tile(rows, step, GROUPS, PADDED, ROWS, STEPS)
        element = byte[:, :, None] * 8 + lane
        bits = tl.load(bits_ptr + byte, mask=mask, other=0).to(tl.int32)
        grad = tl.load(grad_ptr + element, mask=mask[:, :, None], other=0.0)
        grad = tl.where((bits[:, :, None] >> lane) & 1 != 0, grad, 0.0)
        tl.store(grad_x_ptr + element, grad.to(grad_x_ptr.dtype.element_ty), mask=mask[:, :, None])


def _launch(kernel: Any, y: Tensor, *others: Tensor | None) -> None:
    """``kernel`` over the pixels of the map y: [B, C, H, W]; ``others``: its further tensors."""
    batch, channels, height, width = y.shape
    groups = channels // BITS
    padded = next_power_of_2(groups)
    rows, tile_rows, steps = batch * height * width, max(1, TILE // (padded * BITS)), cdiv(channels, BIASES_A_TILE)
    grid = (cdiv(rows, tile_rows * steps),)
    launch(kernel, grid, y, *others, rows, GROUPS=groups, PADDED=padded, ROWS=tile_rows, STEPS=steps)


class _ConvReluFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        y = convolved(x, weight)
        bits = torch.empty(y.numel() // BITS, dtype=torch.uint8, device=y.device) if ctx.needs_input_grad[0] else None
        _launch(_conv_relu_kernel, y, bias, bits)
        ctx.save_for_backward(weight, bits)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        weight, bits = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        grad_y = torch.empty_like(grad)
        _launch(_conv_relu_gradient_kernel, grad, bits, grad_y)
        return F.conv_transpose2d(grad_y, weight, padding=1), None, None


def conv_relu(x: Tensor, weight: Tensor, bias: Tensor, *, impl: Impl = "auto") -> Tensor:
    """relu(conv 3x3 of x + bias), padding 1: [B, I, H, W] -> [B, O, H, W], channels-last.

    x: channels-last, float32, float16 or bfloat16 (the reference also float64); weight [O, I, 3, 3] and bias [O] in the
    dtype of x, without gradients; for Triton O is a multiple of 8. Differentiable in x.

    Raises:
        ValueError: wrong shape, dtype, device or layout, or a weight or bias that requires a gradient.
        RuntimeError: ``impl="triton"`` cannot run here.
    """
    check_frozen_conv(x, weight, bias)
    if use_triton("conv_relu", impl, x):
        check_channels(weight)
        return _ConvReluFunction.apply(x, weight, bias)
    return conv_relu_reference(x, weight, bias)


def check_frozen_conv(x: Tensor, weight: Tensor, bias: Tensor) -> None:
    """``x`` is a map, ``weight`` and ``bias`` those of a frozen convolution 3x3 of it."""
    check_map("x", x)
    check_shape("weight", weight, (None, x.shape[1], 3, 3))
    check_shape("bias", bias, (weight.shape[0],))
    for name, tensor in (("weight", weight), ("bias", bias)):
        check(tensor.dtype == x.dtype, name, tensor.dtype, f"{x.dtype}, as x")
        check_device(name, tensor, x)
        check(not tensor.requires_grad, name, "a tensor that requires a gradient", "a constant")


def check_channels(weight: Tensor) -> None:
    check(weight.shape[0] % BITS == 0, "weight", f"{weight.shape[0]} output channels", f"a multiple of {BITS}")


@self_test("conv_relu")
def _self_test(device: torch.device, dtype: torch.dtype) -> None:
    """The pass over the convolution's output: what convolves is not ours."""
    x, bias = probe((2, 72, 9, 7), dtype, device), probe((72,), dtype, device)
    got, bits = x.clone(), torch.empty(x.numel() // BITS, dtype=torch.uint8, device=device)
    _launch(_conv_relu_kernel, got, bias, bits)
    expected = torch.relu(x.double() + bias.double()[:, None, None])
    grad, grad_x = probe(x.shape, dtype, device), torch.empty_like(x)
    _launch(_conv_relu_gradient_kernel, grad, bits, grad_x)
    assert_near("conv_relu", [got, grad_x], [expected, torch.where(got > 0, grad, 0)])
