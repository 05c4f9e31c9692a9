"""Noise, batch norm, GLU and skip-layer gate in one operation: two passes over x forward, two backward.

    y = s_g a sigmoid(b),  [a, b] = BN(x / sigma + noise_weight * noise),  s_g = sigmoid(gate)

with [a, b] the halves of the channels, and noise, gate and sigma optional. Backward, with z = BN(x') =
(x' - mean) s + bias, s = weight / sqrt(var + eps), and g the gradient of y:

    da = g s_g sigmoid(b),   db = g s_g a sigmoid(b) (1 - sigmoid(b))
    dx = s (dz - mean(dz) - (x' - mean) mean(dz (x' - mean)) / (var + eps))      (eval mode: dx = s dz)
    dnoise_weight = sum(dx noise),   dgate = s_g (1 - s_g) sum over H, W of g a sigmoid(b)

Saved for backward: x, noise, the statistics and the gate's logits; sigmoids and norm are computed again.

sigma, a convolution's spectral norm, folds the division into the norm: BN_eps(x / sigma + w n) =
BN_{eps sigma^2}(x + sigma w n), so no normalised weight is needed. Its gradient is computed only if sigma asks for one.
Without, what is dropped is, exactly, (w / sigma) dL/dw - eps sigma sum_c weight_c dweight_c / (var_c + eps sigma^2):
batch norm does not see the scale of x but for the noise beside it (w starts at 0 and stays small) and for eps. One
layer in fp64 without noise: weight gradient within 3e-4 of the exact one.

Layout: channels-last in and out. Bytes, with 2C channels of e bytes and M = B H W pixels: forward reads x twice and
writes y (5 C M e), backward reads x and g twice and writes dx (8 C M e).

Source: Ioffe and Szegedy, "Batch normalization", 2015; Dauphin et al., "Language modeling with gated convolutional
networks", 2016; FastGAN's up-blocks (arXiv 2101.04775).
"""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from fastgan_engine.kernels.arguments import check, check_device, check_map, check_parameter
from fastgan_engine.kernels.blocked_norm import Activation, blocked_norm, blocks_pay
from fastgan_engine.kernels.dispatch import Impl, compare_with_reference, probe, self_test, use_triton
from fastgan_engine.kernels.launch import launch
from fastgan_engine.kernels.norm_glu_kernels import (
    _norm_glu_apply_kernel,
    _norm_glu_gradient_kernel,
    _norm_glu_reduce_kernel,
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


def norm_glu_reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    *,
    noise: Tensor | None = None,
    noise_weight: Tensor | None = None,
    gate: Tensor | None = None,
    training: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    groups: int = 1,
    sigma: Tensor | None = None,
) -> Tensor:
    """``norm_glu`` in plain PyTorch."""
    if sigma is not None:
        x = x / sigma.reshape(())
    if noise is not None and noise_weight is not None:
        x = x + noise_weight.reshape(()) * noise.to(x.dtype)
    parts = [
        F.batch_norm(part, running_mean, running_var, weight, bias, training, momentum, eps) for part in x.chunk(groups)
    ]
    y = F.glu(torch.cat(parts), dim=1)
    return y if gate is None else y * gate.sigmoid()[:, :, None, None]


class _NormGLU(torch.autograd.Function):
    """Launches the kernels. The settings and buffers, which have no gradient, come first."""

    @staticmethod
    def forward(
        ctx: Any,
        norm: Norm,
        running: tuple[Tensor, Tensor],
        noise: Tensor | None,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        noise_weight: Tensor | None,
        gate: Tensor | None,
        sigma: Tensor | None,
    ) -> Tensor:
        batch, channels, height, width = x.shape
        statistics = chunk_statistics(x, norm, noise=noise, noise_weight=noise_weight, sigma=sigma)
        mean, rstd = x.new_empty((2, norm.sets, channels), dtype=torch.float32)
        y = torch.empty(
            (batch, channels // 2, height, width), dtype=x.dtype, device=x.device, memory_format=torch.channels_last
        )
        t = _tiling(x, norm, gate)
        launch(
            _norm_glu_apply_kernel, t.grid, x, noise, noise_weight, sigma, statistics.mean, statistics.m2, *running,
            weight, bias, gate, mean, rstd, y,
            t.units, t.rows, t.chunk_rows, t.segments // norm.sets, norm.sets, *statistics.sizes,
            norm.momentum, norm.eps, **t.meta,
        )  # fmt: skip
        ctx.norm = norm
        ctx.save_for_backward(x, noise, mean, rstd, weight, bias, noise_weight, gate, sigma)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, noise, mean, rstd, weight, bias, noise_weight, gate, sigma = ctx.saved_tensors
        norm: Norm = ctx.norm
        *_, needs_weight, needs_bias, needs_noise, needs_gate, needs_sigma = ctx.needs_input_grad
        grad = grad.contiguous(memory_format=torch.channels_last)
        t = _tiling(x, norm, gate)
        inputs = (x, grad, noise, noise_weight, sigma, mean, rstd, weight, bias, gate)
        sizes = (t.units, t.rows, t.chunk_rows, t.segments // norm.sets)

        partial_sum, partial_dot = mean.new_empty((2, t.partials, 2 * t.channels))
        partial_gate = None if gate is None else mean.new_empty((t.partials, t.channels))
        partials = partial_sum, partial_dot, partial_gate
        launch(_norm_glu_reduce_kernel, t.grid, *inputs, *partials, *sizes, **t.meta)

        grad_x = torch.empty_like(x, memory_format=torch.channels_last)
        gradients = parameter_gradients(weight, needs_weight or needs_bias or needs_sigma)
        grad_gate = torch.empty_like(gate) if needs_gate else None
        with_noise = noise is not None and (needs_noise or needs_sigma)
        partial_noise = mean.new_empty(t.grid) if with_noise else None
        launch(
            _norm_glu_gradient_kernel, t.grid, *inputs, *partials, *gradients, grad_gate, grad_x, partial_noise,
            *sizes, norm.sets, TRAINING=norm.training, **t.meta,
        )  # fmt: skip

        grad_noise = grad_sigma = None
        if needs_sigma:
            grad_sigma = sigma_gradient(norm, sigma, mean, rstd, weight, partial_dot, gradients)
        if partial_noise is not None:
            # of the factor w, or sigma w, in x' = x + sigma w n
            grad_factor = partial_noise.sum()
            grad_noise = (grad_factor if sigma is None else grad_factor * sigma).reshape(noise_weight.shape)
            if needs_sigma:
                grad_sigma = grad_sigma + (grad_factor * noise_weight).reshape(sigma.shape)
        return None, None, None, grad_x, *gradients, grad_noise, grad_gate, grad_sigma


def _tiling(x: Tensor, norm: Norm, gate: Tensor | None) -> Tiling:
    """Segments are the sets of statistics; images where a gate is to be multiplied, or its gradient summed."""
    batch, channels, height, width = x.shape
    segments = norm.sets if gate is None else batch
    rows = batch * height * width // segments
    return tiling(channels // 2, rows, segments, accesses=1, shared_by=segments // norm.sets)


def norm_glu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    *,
    noise: Tensor | None = None,
    noise_weight: Tensor | None = None,
    gate: Tensor | None = None,
    training: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    groups: int = 1,
    sigma: Tensor | None = None,
    impl: Impl = "auto",
) -> Tensor:
    """``sigmoid(gate) * GLU(BatchNorm(x / sigma + noise_weight * noise))``, as ``nn.BatchNorm2d`` and ``nn.GLU``.

    Args:
        x: [B, 2C, H, W], channels-last; float32, float16 or bfloat16.
        weight, bias: [2C], float32.
        running_mean, running_var: [2C], float32; read in eval mode, updated in place in training (the batch count of
            the module is the caller's to advance).
        noise: [B, 1, H, W], any of the dtypes that ``x`` may have; without gradient.
        noise_weight: [1], float32; given exactly if ``noise`` is.
        gate: [B, C], logits of a gate for each image and channel (``sle``).
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
    _check(x, noise, noise_weight, gate)
    if use_triton("norm_glu", impl, x):
        return _NormGLU.apply(norm, (running_mean, running_var), noise, x, weight, bias, noise_weight, gate, sigma)
    if blocks_pay(x, impl, training):
        return blocked_norm(
            x, weight, bias, running_mean, running_var, activation=Activation(), noise=noise,
            noise_weight=noise_weight, gate=None if gate is None else gate.sigmoid(),
            momentum=momentum, eps=eps, groups=groups, sigma=sigma,
        )  # fmt: skip
    return norm_glu_reference(
        x, weight, bias, running_mean, running_var, noise=noise, noise_weight=noise_weight, gate=gate,
        training=training, momentum=momentum, eps=eps, groups=groups, sigma=sigma,
    )  # fmt: skip


def _check(x: Tensor, noise: Tensor | None, noise_weight: Tensor | None, gate: Tensor | None) -> None:
    batch, channels, height, width = x.shape
    check(channels % 2 == 0, "x", f"{channels} channels", "an even number")
    if noise is not None and noise_weight is not None:
        check_map("noise", noise, shape=(batch, 1, height, width))
        check_device("noise", noise, x)
        check(not noise.requires_grad, "noise", "a tensor that requires a gradient", "one that does not")
        check_parameter("noise_weight", noise_weight, (1,), x)
    else:
        check(noise is noise_weight, "noise and noise_weight", "one of them", "both or none")
    if gate is not None:
        check_gate(gate, (batch, channels // 2), x)


@self_test("norm_glu")
def _self_test(device: torch.device, dtype: torch.dtype) -> None:
    """Two groups, noise, gate and sigma, ragged tiles."""
    arguments = {
        "x": probe((4, 2 * 19, 9, 5), dtype, device),
        **{name: probe((38,), torch.float32, device) for name in ("weight", "bias", "running_mean")},
        "running_var": torch.ones(38, device=device),
        "noise": probe((4, 1, 9, 5), dtype, device),
        "noise_weight": torch.full((1,), 0.5, device=device),
        "gate": probe((4, 19), dtype, device),
        "sigma": torch.full((1,), 1.5, device=device),
    }
    compare_with_reference(
        "norm_glu",
        partial(norm_glu, groups=2, impl="triton"),
        partial(norm_glu_reference, groups=2),
        arguments,
        differentiable=("x", "weight", "bias", "noise_weight", "gate", "sigma"),
    )
