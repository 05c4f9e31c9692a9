"""Batch norm and LeakyReLU, and the mean with a residual, in one operation: two passes over x forward, two backward.

    y = f(BN(x / sigma)),  f = LeakyReLU;   with a residual: y = (residual + f(BN(x / sigma))) / 2

Backward, with z = BN(x) = (x - mean) s + bias, s = weight / sqrt(var + eps), and g the gradient of y (halved where
there is a residual, whose gradient it then is):

    dz = g (z > 0 ? 1 : slope)
    dx = s (dz - mean(dz) - (x - mean) mean(dz (x - mean)) / (var + eps))      (eval mode: dx = s dz)

Saved for backward: x and the statistics. sigma folds a convolution's spectral norm into the norm as in ``norm_glu``;
unless sigma asks for its gradient, - eps sigma sum_c weight_c dweight_c / (var_c + eps sigma^2) is dropped: the share
eps / (var / sigma^2 + eps) of the gradient through the scale of x, which batch norm does not see otherwise.

Layout: channels-last in and out. Bytes, with C channels of e bytes and M = B H W pixels: forward reads x twice, the
residual once, and writes y (3 C M e, or 4); backward reads x and g twice and writes dx and the residual's gradient
(5 C M e, or 6).

Source: Ioffe and Szegedy, "Batch normalization", 2015; FastGAN's discriminator (arXiv 2101.04775).
"""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from fastgan_engine.kernels.arguments import check, check_device, check_map
from fastgan_engine.kernels.blocked_norm import Activation, blocked_norm, blocks_pay
from fastgan_engine.kernels.dispatch import Impl, compare_with_reference, probe, self_test, use_triton
from fastgan_engine.kernels.launch import jit, launch, tl
from fastgan_engine.kernels.norm_stats import (
    Norm,
    check_norm,
    chunk_rows_of,
    gradient_means,
    sigma_gradient,
    statistics,
)
from fastgan_engine.kernels.tiling import Tiling, tiling


def norm_lrelu_reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    *,
    residual: Tensor | None = None,
    slope: float = 0.2,
    training: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    groups: int = 1,
    sigma: Tensor | None = None,
) -> Tensor:
    """``norm_lrelu`` in plain PyTorch."""
    if sigma is not None:
        x = x / sigma.reshape(())
    parts = [
        F.batch_norm(part, running_mean, running_var, weight, bias, training, momentum, eps) for part in x.chunk(groups)
    ]
    y = F.leaky_relu(torch.cat(parts), slope)
    return y if residual is None else (residual + y) / 2


@jit
def _load_norm(mean_ptr, rstd_ptr, weight_ptr, bias_ptr, channels, cols, in_cols):
    """Mean, 1 / sqrt(var + eps) * weight, and bias of some channels; a segment is a set of statistics."""
    statistic = tl.program_id(2) * channels
    mean = tl.load(mean_ptr + statistic + cols, mask=in_cols, other=0.0)
    scale = tl.load(rstd_ptr + statistic + cols, mask=in_cols, other=0.0)
    scale *= tl.load(weight_ptr + cols, mask=in_cols, other=0.0)
    return mean[None, :], scale[None, :], tl.load(bias_ptr + cols, mask=in_cols, other=0.0)[None, :]


@jit(unspecialised=("units", "rows", "chunk_rows"))
def _norm_lrelu_apply_kernel(
    x_ptr, residual_ptr, mean_ptr, rstd_ptr, weight_ptr, bias_ptr, y_ptr,
    units, rows, chunk_rows, slope,
    UNIT: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    channels = units * UNIT
    first, count = chunk_rows_of(rows, chunk_rows)
    base = first * channels
    cols = tl.program_id(0) * COLS + tl.arange(0, COLS)
    in_cols = cols < channels
    mean, scale, bias = _load_norm(mean_ptr, rstd_ptr, weight_ptr, bias_ptr, channels, cols, in_cols)
    for start in range(0, count, ROWS):
        r = start + tl.arange(0, ROWS)
        mask = (r < count)[:, None] & in_cols[None, :]
        offsets = r[:, None] * channels + cols[None, :]
        z = (tl.load(x_ptr + base + offsets, mask=mask, other=0.0).to(tl.float32) - mean) * scale + bias
        y = tl.where(z > 0, z, slope * z)
        if residual_ptr is not None:
            y = 0.5 * (tl.load(residual_ptr + base + offsets, mask=mask, other=0.0).to(tl.float32) + y)
        tl.store(y_ptr + base + offsets, y.to(y_ptr.dtype.element_ty), mask=mask)


@jit(unspecialised=("units", "rows", "chunk_rows"))
def _norm_lrelu_reduce_kernel(
    x_ptr, grad_ptr, mean_ptr, rstd_ptr, weight_ptr, bias_ptr, partial_sum_ptr, partial_dot_ptr,
    units, rows, chunk_rows, slope, factor,
    UNIT: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """Sums over a chunk of dz and dz (x - mean)."""
    channels = units * UNIT
    first, count = chunk_rows_of(rows, chunk_rows)
    base = first * channels
    cols = tl.program_id(0) * COLS + tl.arange(0, COLS)
    in_cols = cols < channels
    mean, scale, bias = _load_norm(mean_ptr, rstd_ptr, weight_ptr, bias_ptr, channels, cols, in_cols)
    total = tl.zeros((ROWS, COLS), tl.float32)
    dot = tl.zeros((ROWS, COLS), tl.float32)
    for start in range(0, count, ROWS):
        r = start + tl.arange(0, ROWS)
        mask = (r < count)[:, None] & in_cols[None, :]
        offsets = r[:, None] * channels + cols[None, :]
        x = tl.load(x_ptr + base + offsets, mask=mask, other=0.0).to(tl.float32) - mean
        # Zero outside the mask, and so is all that is summed.
        grad = factor * tl.load(grad_ptr + base + offsets, mask=mask, other=0.0).to(tl.float32)
        grad = tl.where(x * scale + bias > 0, grad, slope * grad)
        total += grad
        dot += grad * x
    out = (tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)) * channels + cols
    tl.store(partial_sum_ptr + out, tl.sum(total, axis=0), mask=in_cols)
    tl.store(partial_dot_ptr + out, tl.sum(dot, axis=0), mask=in_cols)


@jit(unspecialised=("units", "rows", "chunk_rows"))
def _norm_lrelu_gradient_kernel(
    x_ptr, grad_ptr, mean_ptr, rstd_ptr, weight_ptr, bias_ptr, mean_grad_ptr, mean_dot_ptr,
    grad_x_ptr, grad_residual_ptr,
    units, rows, chunk_rows, slope, factor,
    UNIT: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    channels = units * UNIT
    first, count = chunk_rows_of(rows, chunk_rows)
    base = first * channels
    cols = tl.program_id(0) * COLS + tl.arange(0, COLS)
    in_cols = cols < channels
    mean, scale, bias = _load_norm(mean_ptr, rstd_ptr, weight_ptr, bias_ptr, channels, cols, in_cols)
    if mean_grad_ptr is not None:
        statistic = tl.program_id(2) * channels
        mean_grad = tl.load(mean_grad_ptr + statistic + cols, mask=in_cols, other=0.0)
        mean_dot = tl.load(mean_dot_ptr + statistic + cols, mask=in_cols, other=0.0)
    for start in range(0, count, ROWS):
        r = start + tl.arange(0, ROWS)
        mask = (r < count)[:, None] & in_cols[None, :]
        offsets = r[:, None] * channels + cols[None, :]
        x = tl.load(x_ptr + base + offsets, mask=mask, other=0.0).to(tl.float32) - mean
        grad = factor * tl.load(grad_ptr + base + offsets, mask=mask, other=0.0).to(tl.float32)
        if grad_residual_ptr is not None:
            tl.store(grad_residual_ptr + base + offsets, grad.to(grad_residual_ptr.dtype.element_ty), mask=mask)
        grad = tl.where(x * scale + bias > 0, grad, slope * grad)
        if mean_grad_ptr is not None:
            grad -= mean_grad[None, :] + x * mean_dot[None, :]
        tl.store(grad_x_ptr + base + offsets, (grad * scale).to(grad_x_ptr.dtype.element_ty), mask=mask)


class _NormLReLU(torch.autograd.Function):
    """Launches the kernels. The settings and buffers, which have no gradient, come first."""

    @staticmethod
    def forward(
        ctx: Any,
        norm: Norm,
        slope: float,
        running: tuple[Tensor, Tensor],
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        residual: Tensor | None,
        sigma: Tensor | None,
    ) -> Tensor:
        mean, rstd = statistics(x, norm, *running, sigma=sigma)
        y = torch.empty_like(x, memory_format=torch.channels_last)
        t = _tiling(x, norm)
        launch(
            _norm_lrelu_apply_kernel, t.grid, x, residual, mean, rstd, weight, bias, y,
            t.units, t.rows, t.chunk_rows, slope, **t.meta,
        )  # fmt: skip
        ctx.norm, ctx.slope, ctx.factor = norm, slope, 1.0 if residual is None else 0.5
        ctx.save_for_backward(x, mean, rstd, weight, bias, sigma)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, rstd, weight, bias, sigma = ctx.saved_tensors
        norm: Norm = ctx.norm
        *_, needs_residual, needs_sigma = ctx.needs_input_grad
        grad = grad.contiguous(memory_format=torch.channels_last)
        t = _tiling(x, norm)
        inputs = (x, grad, mean, rstd, weight, bias)
        settings = (t.units, t.rows, t.chunk_rows, ctx.slope, ctx.factor)

        partial_sum, partial_dot = mean.new_empty((2, t.partials, t.channels))
        launch(_norm_lrelu_reduce_kernel, t.grid, *inputs, partial_sum, partial_dot, *settings, **t.meta)
        mean_grad, mean_dot, grad_weight, grad_bias = gradient_means(partial_sum, partial_dot, rstd, t.rows)

        grad_x = torch.empty_like(x, memory_format=torch.channels_last)
        grad_residual = torch.empty_like(grad_x) if needs_residual else None
        means = (mean_grad, mean_dot) if norm.training else (None, None)
        launch(_norm_lrelu_gradient_kernel, t.grid, *inputs, *means, grad_x, grad_residual, *settings, **t.meta)

        grad_sigma = None
        if needs_sigma:
            grad_sigma = sigma_gradient(norm, sigma, mean, rstd, weight, mean_dot, grad_weight, grad_bias, t.rows)
        return None, None, None, grad_x, grad_weight, grad_bias, grad_residual, grad_sigma


def _tiling(x: Tensor, norm: Norm) -> Tiling:
    batch, channels, height, width = x.shape
    return tiling(channels, batch * height * width // norm.sets, norm.sets)


def norm_lrelu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    *,
    residual: Tensor | None = None,
    slope: float = 0.2,
    training: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    groups: int = 1,
    sigma: Tensor | None = None,
    impl: Impl = "auto",
) -> Tensor:
    """``LeakyReLU(BatchNorm(x / sigma))``, as ``nn.BatchNorm2d`` and ``nn.LeakyReLU``; or its mean with ``residual``.

    Args:
        x: [B, C, H, W], channels-last; float32, float16 or bfloat16.
        weight, bias: [C], float32.
        running_mean, running_var: [C], float32; read in eval mode, updated in place in training (the batch count of
            the module is the caller's to advance).
        residual: like ``x``.
        groups: the batch is that many equal consecutive parts, each with its own statistics; the running statistics
            are updated once per group in order, as if the parts were forwarded one after another.
        sigma: [] or [1], float32: x is divided by it, without a pass over x; its gradient is dropped unless it
            requires one (see the module).

    Returns:
        [B, C, H, W], channels-last, dtype of ``x``.

    Raises:
        ValueError: an argument has the wrong shape, dtype, device or layout.
        RuntimeError: ``impl="triton"`` cannot run here.
    """
    norm = Norm(training, momentum, eps, groups)
    check_norm(x, weight, bias, running_mean, running_var, sigma, norm)
    if residual is not None:
        check_map("residual", residual, shape=x.shape)
        check_device("residual", residual, x)
        check(residual.dtype == x.dtype, "residual", residual.dtype, x.dtype)
    if use_triton("norm_lrelu", impl, x):
        return _NormLReLU.apply(norm, slope, (running_mean, running_var), x, weight, bias, residual, sigma)
    if blocks_pay(x, impl, training):
        return blocked_norm(
            x, weight, bias, running_mean, running_var, activation=Activation(slope), residual=residual,
            momentum=momentum, eps=eps, groups=groups, sigma=sigma,
        )  # fmt: skip
    return norm_lrelu_reference(
        x, weight, bias, running_mean, running_var, residual=residual, slope=slope,
        training=training, momentum=momentum, eps=eps, groups=groups, sigma=sigma,
    )  # fmt: skip


@self_test("norm_lrelu")
def _self_test(device: torch.device, dtype: torch.dtype) -> None:
    """Two groups, residual and sigma, ragged tiles."""
    arguments = {
        "x": probe((4, 19, 9, 5), dtype, device),
        **{name: probe((19,), torch.float32, device) for name in ("weight", "bias", "running_mean")},
        "running_var": torch.ones(19, device=device),
        "residual": probe((4, 19, 9, 5), dtype, device).flip(0).contiguous(memory_format=torch.channels_last),
        "sigma": torch.full((1,), 1.5, device=device),
    }
    compare_with_reference(
        "norm_lrelu",
        partial(norm_lrelu, groups=2, impl="triton"),
        partial(norm_lrelu_reference, groups=2),
        arguments,
        differentiable=("x", "weight", "bias", "residual", "sigma"),
    )
