"""Batch norm and LeakyReLU, the mean with a residual, a gate, and pooling, in one operation: two passes each way.

    y = f(BN(x / sigma)),  f = LeakyReLU;   with a residual: y = (residual + f(BN(x / sigma))) / 2
    with a gate: that times s_g = sigmoid(gate);   pooled: also the means of y's 2 x 2 squares

Backward, with z = BN(x) = (x - mean) s + bias, s = weight / sqrt(var + eps), and g the gradient of y, a quarter of its
square's gradient included (times s_g, and halved where there is a residual, whose gradient it then is):

    dz = g (z > 0 ? 1 : slope)
    dx = s (dz - mean(dz) - (x - mean) mean(dz (x - mean)) / (var + eps))      (eval mode: dx = s dz)
    dgate = (1 - s_g) sum over H, W of g y      (g before it is multiplied)

Saved for backward: x and the statistics; with a gate also y, which the next layer saves anyway. sigma folds a
convolution's spectral norm into the norm as in ``norm_glu``; unless sigma asks for its gradient,
- eps sigma sum_c weight_c dweight_c / (var_c + eps sigma^2) is dropped: the share eps / (var / sigma^2 + eps) of the
gradient through the scale of x, which batch norm does not see otherwise.

Layout: channels-last in and out. Bytes, with C channels of e bytes and M = B H W pixels: forward reads x twice, the
residual once, and writes y (3 C M e, or 4); backward reads x and g twice and writes dx and the residual's gradient
(5 C M e, or 6), with a gate it reads y (1 more). Pooling adds a quarter of a map forward and two backward.

Source: Ioffe and Szegedy, "Batch normalization", 2015; FastGAN's discriminator (arXiv 2101.04775).
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from fastgan_engine.kernels.arguments import check, check_device, check_map
from fastgan_engine.kernels.blocked_norm import Activation, blocked_norm, blocks_pay
from fastgan_engine.kernels.dispatch import Impl, compare_with_reference, probe, self_test, use_triton
from fastgan_engine.kernels.launch import launch
from fastgan_engine.kernels.norm_lrelu_kernels import (
    _norm_lrelu_apply_kernel,
    _norm_lrelu_gradient_kernel,
    _norm_lrelu_reduce_kernel,
)
from fastgan_engine.kernels.norm_stats import (
    Norm,
    check_gate,
    check_norm,
    chunk_statistics,
    parameter_gradients,
    sigma_gradient,
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
    gate: Tensor | None = None,
    pool: bool = False,
    slope: float = 0.2,
    training: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    groups: int = 1,
    sigma: Tensor | None = None,
) -> Any:
    """``norm_lrelu`` in plain PyTorch."""
    if sigma is not None:
        x = x / sigma.reshape(())
    parts = [
        F.batch_norm(part, running_mean, running_var, weight, bias, training, momentum, eps) for part in x.chunk(groups)
    ]
    return _finish(F.leaky_relu(torch.cat(parts), slope), residual, gate, pool)


def _finish(y: Tensor, residual: Tensor | None, gate: Tensor | None, pool: bool) -> Any:
    """What follows the LeakyReLU, in plain PyTorch."""
    if residual is not None:
        y = (residual + y) / 2
    if gate is not None:
        y = y * gate.sigmoid()[:, :, None, None]
    return (y, F.avg_pool2d(y, 2)) if pool else y


@dataclass(frozen=True)
class _After:
    """What happens to the normalised map."""

    slope: float
    pool: bool

    @property
    def parts(self) -> int:
        """Pixels of a row of the kernels' tiles: all of a pooled square's."""
        return 4 if self.pool else 1


class _NormLReLU(torch.autograd.Function):
    """Launches the kernels. The settings and buffers, which have no gradient, come first."""

    @staticmethod
    def forward(
        ctx: Any,
        norm: Norm,
        after: _After,
        running: tuple[Tensor, Tensor],
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        residual: Tensor | None,
        gate: Tensor | None,
        sigma: Tensor | None,
    ) -> Any:
        statistics = chunk_statistics(x, norm, sigma=sigma)
        mean, rstd = x.new_empty((2, norm.sets, x.shape[1]), dtype=torch.float32)
        y = torch.empty_like(x, memory_format=torch.channels_last)
        pooled = _empty_pooled(x) if after.pool else None
        t, sizes = _tiling(x, norm, gate, after)
        launch(
            _norm_lrelu_apply_kernel, t.grid, x, residual, sigma, statistics.mean, statistics.m2, *running,
            weight, bias, gate, mean, rstd, y, pooled, *sizes, norm.sets, *statistics.sizes,
            norm.momentum, norm.eps, after.slope, PARTS=after.parts, **t.meta,
        )  # fmt: skip
        ctx.set_materialize_grads(False)
        ctx.norm, ctx.after, ctx.factor = norm, after, 1.0 if residual is None else 0.5
        ctx.save_for_backward(x, mean, rstd, weight, bias, gate, None if gate is None else y, sigma)
        return (y, pooled) if after.pool else y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None, grad_pooled: Tensor | None = None) -> tuple[Tensor | None, ...]:
        x, mean, rstd, weight, bias, gate, y, sigma = ctx.saved_tensors
        norm, after = ctx.norm, ctx.after
        *_, needs_weight, needs_bias, needs_residual, needs_gate, needs_sigma = ctx.needs_input_grad
        grad = torch.zeros_like(x) if grad is None else grad.contiguous(memory_format=torch.channels_last)
        if grad_pooled is not None:
            grad_pooled = grad_pooled.contiguous(memory_format=torch.channels_last)
        t, sizes = _tiling(x, norm, gate, after)
        inputs = (grad, grad_pooled, mean, rstd, weight, bias, gate)
        meta = {"PARTS": after.parts, **t.meta}

        partial_sum, partial_dot = mean.new_empty((2, t.partials, t.channels))
        partials = partial_sum, partial_dot, None if gate is None else torch.empty_like(partial_sum)
        launch(_norm_lrelu_reduce_kernel, t.grid, x, y, *inputs, *partials, *sizes, after.slope, ctx.factor, **meta)

        grad_x = torch.empty_like(x, memory_format=torch.channels_last)
        grad_residual = torch.empty_like(grad_x) if needs_residual else None
        grad_gate = torch.empty_like(gate) if needs_gate else None
        gradients = parameter_gradients(weight, needs_weight or needs_bias or needs_sigma)
        launch(
            _norm_lrelu_gradient_kernel, t.grid, x, *inputs, *partials, *gradients, grad_gate, grad_x, grad_residual,
            *sizes, norm.sets, after.slope, ctx.factor, TRAINING=norm.training, **meta,
        )  # fmt: skip

        grad_sigma = None
        if needs_sigma:
            grad_sigma = sigma_gradient(norm, sigma, mean, rstd, weight, partial_dot, gradients)
        return None, None, None, grad_x, *gradients, grad_residual, grad_gate, grad_sigma


def _empty_pooled(x: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    shape = batch, channels, height // 2, width // 2
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


def _tiling(x: Tensor, norm: Norm, gate: Tensor | None, after: _After) -> tuple[Tiling, tuple[int, ...]]:
    """The tiling and its sizes as the kernels take them. Segments are images where there is a gate, else sets."""
    batch, channels, height, width = x.shape
    segments = norm.sets if gate is None else batch
    rows = batch * height * width // (segments * after.parts)
    per_set, accesses = segments // norm.sets, 1 if after.pool else 2
    t = tiling(channels, rows, segments, pixels=after.parts, accesses=accesses, shared_by=per_set)
    return t, (t.units, t.rows, t.chunk_rows, width, per_set)


def norm_lrelu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    *,
    residual: Tensor | None = None,
    gate: Tensor | None = None,
    pool: bool = False,
    slope: float = 0.2,
    training: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    groups: int = 1,
    sigma: Tensor | None = None,
    impl: Impl = "auto",
) -> Any:
    """``LeakyReLU(BatchNorm(x / sigma))``, as ``nn.BatchNorm2d`` and ``nn.LeakyReLU``; or its mean with ``residual``.

    Args:
        x: [B, C, H, W], channels-last; float32, float16 or bfloat16.
        weight, bias: [C], float32.
        running_mean, running_var: [C], float32; read in eval mode, updated in place in training (the batch count of
            the module is the caller's to advance).
        residual: like ``x``.
        gate: [B, C], logits of a gate for each image and channel (``sle``), by whose sigmoid the result is multiplied.
        pool: also return the means of the result's 2 x 2 squares; H and W are even.
        groups: the batch is that many equal consecutive parts, each with its own statistics; the running statistics
            are updated once per group in order, as if the parts were forwarded one after another.
        sigma: [] or [1], float32: x is divided by it, without a pass over x; its gradient is dropped unless it
            requires one (see the module).

    Returns:
        [B, C, H, W], channels-last, dtype of ``x``; with ``pool`` beside [B, C, H / 2, W / 2], likewise.

    Raises:
        ValueError: an argument has the wrong shape, dtype, device or layout.
        RuntimeError: ``impl="triton"`` cannot run here.
    """
    norm = Norm(training, momentum, eps, groups)
    check_norm(x, weight, bias, running_mean, running_var, sigma, norm)
    _check(x, residual, gate, pool)
    if use_triton("norm_lrelu", impl, x):
        running = running_mean, running_var
        return _NormLReLU.apply(norm, _After(slope, pool), running, x, weight, bias, residual, gate, sigma)
    if blocks_pay(x, impl, training):
        y = blocked_norm(
            x, weight, bias, running_mean, running_var, activation=Activation(slope), residual=residual,
            momentum=momentum, eps=eps, groups=groups, sigma=sigma,
        )  # fmt: skip
        return _finish(y, None, gate, pool)
    return norm_lrelu_reference(
        x, weight, bias, running_mean, running_var, residual=residual, gate=gate, pool=pool, slope=slope,
        training=training, momentum=momentum, eps=eps, groups=groups, sigma=sigma,
    )  # fmt: skip


def _check(x: Tensor, residual: Tensor | None, gate: Tensor | None, pool: bool) -> None:
    batch, channels, height, width = x.shape
    if residual is not None:
        check_map("residual", residual, shape=x.shape)
        check_device("residual", residual, x)
        check(residual.dtype == x.dtype, "residual", residual.dtype, x.dtype)
    if gate is not None:
        check_gate(gate, (batch, channels), x)
    if pool:
        check(height % 2 == 0 and width % 2 == 0, "x", f"shape {tuple(x.shape)}", "an even height and width to pool")


@self_test("norm_lrelu")
def _self_test(device: torch.device, dtype: torch.dtype) -> None:
    """Two groups, residual, gate, pooling and sigma, ragged tiles."""
    arguments = {
        "x": probe((4, 19, 10, 6), dtype, device),
        **{name: probe((19,), torch.float32, device) for name in ("weight", "bias", "running_mean")},
        "running_var": torch.ones(19, device=device),
        "residual": probe((4, 19, 10, 6), dtype, device).flip(0).contiguous(memory_format=torch.channels_last),
        "gate": probe((4, 19), dtype, device),
        "sigma": torch.full((1,), 1.5, device=device),
    }

    def both(function: Any, **tensors: Tensor) -> Tensor:
        return torch.cat([y.flatten() for y in function(groups=2, pool=True, **tensors)])

    compare_with_reference(
        "norm_lrelu",
        partial(both, partial(norm_lrelu, impl="triton")),
        partial(both, norm_lrelu_reference),
        arguments,
        differentiable=("x", "weight", "bias", "residual", "gate", "sigma"),
    )
