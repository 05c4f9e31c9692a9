"""Nearest upsampling x2 and conv 3x3 (padding 1) as one transposed convolution 4x4, stride 2, padding 1.

Along one axis an output of even index sees x[p - 1], x[p], x[p] and one of odd index x[p], x[p], x[p + 1], so that the
taps that meet the same pixel add up:

    even: w0 x[p - 1] + (w1 + w2) x[p]        odd: (w0 + w1) x[p] + w2 x[p + 1]

which is a transposed convolution with the taps (w2, w1 + w2, w0 + w1, w0); in two dimensions the product of both, with
input and output channels swapped. Exact, borders included; 2.25 times fewer multiply-adds, and the upsampled map is
neither written nor kept for backward. What it costs is the assembly of the kernel, whatever the size of the map.

The kernels of a network's layers are assembled where its weights are divided by their spectral norms, all of them in
one launch (``spectral``, ``up_conv_kernels``); here is the same in plain PyTorch, and the convolution, cuDNN's or
oneDNN's.

Layout: x and weight channels-last or contiguous; an assembled kernel is channels-last.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from fastgan_engine.kernels.arguments import MAP_DTYPES, check, check_device, check_shape
from fastgan_engine.kernels.dispatch import Impl, use_triton

# Taps along an axis: of a weight, of an assembled kernel.
WEIGHT_TAPS, KERNEL_TAPS = 3, 4
# From this many pixels of x in the whole batch the transposed form wins. Where Triton assembles: by the counted cost
# (``bench cost``). G's first one at batch 8, 128 pixels and 1024 to 1024 channels, saves 16 GFLOP an iteration and
# moves 87 MB more: even by the model, within 0.4 % of a step on every card.
TRITON_FROM = 128
# Where PyTorch assembles: timed, forward and backward in ms on one CPU thread (AVX-512, torch 2.14, channels-last):
#
#     x                   C_out   fp32, direct -> transposed    bf16
#     [8, 1024,   4,   4]  1024   326 -> 800                    377 -> 519
#     [2,  512,   8,   8]   512    54 ->  77                     88 ->  85
#     [4,  512,   8,   8]   512   102 ->  95                    168 -> 124
#     [8,  512,   8,   8]   512   193 -> 144                    327 -> 200
#     [8,  128,  32,  32]   256   382 -> 224                    669 -> 309
#     [8,   64, 128, 128]    64   960 -> 437                   1494 -> 677
REFERENCE_FROM = 256


def transposed_from(impl: Impl, like: Tensor) -> int:
    """The rule where no other is set: from how many pixels, by what assembles the kernels of weights like this one."""
    return TRITON_FROM if use_triton("spectral", impl, like) else REFERENCE_FROM


def spread(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """The kernel [C_in, C_out, 4, 4] of the transposed convolution from the weight [C_out, C_in, 3, 3] of conv 3x3.

    Taps are summed in float32 (float64 for float64) and rounded to ``dtype`` once. Without autograd: see ``collect``.
    """
    taps = _swapped(weight, torch.promote_types(weight.dtype, torch.float32))
    return _spread(_spread(taps, 2), 3).to(dtype)


def collect(grad: Tensor, dtype: torch.dtype) -> Tensor:
    """Gradient of the weight from that of the kernel, channels-last: the adjoint of ``spread``."""
    taps = _collect(_collect(grad.to(torch.promote_types(grad.dtype, torch.float32)), 3), 2)
    return _swapped(taps, dtype)


def _swapped(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x with its first two dimensions exchanged, channels-last, in ``dtype``."""
    x = x.transpose(0, 1)
    out = torch.empty(x.shape, dtype=dtype, device=x.device, memory_format=torch.channels_last)
    return out.copy_(x)


def _spread(taps: Tensor, dim: int) -> Tensor:
    """Three taps along ``dim`` -> (w2, w1 + w2, w0 + w1, w0)."""
    w0, w1, w2 = taps.unbind(dim)
    shape = [KERNEL_TAPS if d == dim else size for d, size in enumerate(taps.shape)]
    out = torch.empty(shape, dtype=taps.dtype, device=taps.device, memory_format=torch.channels_last)
    out.select(dim, 0).copy_(w2)
    torch.add(w1, w2, out=out.select(dim, 1))
    torch.add(w0, w1, out=out.select(dim, 2))
    out.select(dim, 3).copy_(w0)
    return out


def _collect(taps: Tensor, dim: int) -> Tensor:
    """The adjoint of ``_spread``: four taps -> (k2 + k3, k1 + k2, k0 + k1)."""
    k0, k1, k2, k3 = taps.unbind(dim)
    shape = [WEIGHT_TAPS if d == dim else size for d, size in enumerate(taps.shape)]
    out = torch.empty(shape, dtype=taps.dtype, device=taps.device, memory_format=torch.channels_last)
    torch.add(k2, k3, out=out.select(dim, 0))
    torch.add(k1, k2, out=out.select(dim, 1))
    torch.add(k0, k1, out=out.select(dim, 2))
    return out


def up_conv(x: Tensor, weight: Tensor) -> Tensor:
    """Nearest x2, then conv 3x3 with padding 1: [B, C_in, H, W] -> [B, C_out, 2H, 2W].

    x: float32, float16, bfloat16 or float64. weight, in the dtype of x: [C_out, C_in, 3, 3], convolved as it is, or the
    kernel [C_in, C_out, 4, 4] that ``spread`` makes of it, for the transposed form.

    Raises:
        ValueError: wrong shape, dtype or device.
    """
    check_shape("x", x, (None,) * 4)
    check(x.numel() > 0, "x", f"the empty shape {tuple(x.shape)}", "at least one element")
    check(x.dtype in MAP_DTYPES, "x", x.dtype, "float32, float16, bfloat16 or float64")
    check(weight.dtype == x.dtype, "weight", weight.dtype, f"{x.dtype}, as x")
    check_device("weight", weight, x)
    if weight.shape[-1] == KERNEL_TAPS:
        check_shape("weight", weight, (x.shape[1], None, KERNEL_TAPS, KERNEL_TAPS))
        return F.conv_transpose2d(x, weight, stride=2, padding=1)
    check_shape("weight", weight, (None, x.shape[1], WEIGHT_TAPS, WEIGHT_TAPS))
    return F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, padding=1)
