"""Batch norm with its activation in cache-sized blocks of rows, with a hand-written backward: the CPU's fast path.

    v = batch_norm(x + noise_weight * noise)
    y = glu(v) * gate                       (G and the decoders)
    y = leaky_relu(v)  or  (residual + leaky_relu(v)) / 2     (D)

A channels-last map is a matrix [rows, channels]. Eager PyTorch walks it once for every elementary operation and keeps
the intermediates for backward; here every block of rows is loaded once, worked on in fp32 while it is in the cache, and
only x and the per-channel statistics are kept. Two passes forward, two backward. Works on any device, in any float
dtype; statistics, sums and arithmetic are fp32.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# A block of this many elements in fp32 is 1 MiB: it stays in a core's second-level cache.
BLOCK_ELEMENTS = 1 << 18


@dataclass(frozen=True)
class Activation:
    """What follows the norm: GLU where ``slope`` is None, else LeakyReLU of that slope."""

    slope: float | None = None

    def channels_out(self, channels: int) -> int:
        return channels // 2 if self.slope is None else channels

    def forward(self, v: Tensor, out: Tensor) -> Tensor:
        """v: [rows, C] or, for GLU, [rows, 2C] -> out: [rows, C]."""
        if self.slope is not None:
            return torch.ops.aten.leaky_relu.out(v, self.slope, out=out)
        a, b = v.chunk(2, dim=1)
        return torch.mul(a, torch.sigmoid(b), out=out)

    def backward(self, v: Tensor, grad: Tensor, out: Tensor) -> Tensor:
        """Gradient with respect to v of ``forward`` under ``grad`` [rows, C], into ``out``, shaped like v."""
        if self.slope is not None:
            return torch.ops.aten.leaky_relu_backward.grad_input(grad, v, self.slope, False, grad_input=out)
        a, b = v.chunk(2, dim=1)
        gate = torch.sigmoid(b)
        grad_a, grad_b = out.chunk(2, dim=1)
        torch.mul(grad, gate, out=grad_a)
        torch.mul(grad_a, a, out=grad_b)
        grad_b.addcmul_(grad_b, gate, value=-1)
        return out


@dataclass(frozen=True)
class Rows:
    """A map as segments of rows: each segment shares one set of statistics and, with a gate, one image."""

    segments: int
    groups: int
    rows: int

    def blocks(self, channels: int) -> Iterator[tuple[int, int, slice]]:
        """(segment, its statistics group, rows of it), block after block."""
        step = max(1, BLOCK_ELEMENTS // channels)
        for segment in range(self.segments):
            for start in range(0, self.rows, step):
                yield segment, segment * self.groups // self.segments, slice(start, start + step)

    def view(self, x: Tensor) -> Tensor:
        """[B, C, H, W], channels-last -> [segments, rows, C]; a copy only where x is laid out otherwise."""
        return x.permute(0, 2, 3, 1).reshape(self.segments, self.rows, x.shape[1])


@dataclass(frozen=True)
class Statistics:
    """Per-channel statistics of each group, fp32 [groups, C], and the number of values behind each."""

    mean: Tensor
    variance: Tensor
    count: int


def blocks_pay(x: Tensor, impl: str, training: bool) -> bool:
    """Whether "auto" takes this path: in training on the CPU, where nothing else fuses the chain."""
    return impl == "auto" and training and x.device.type == "cpu" and x.dtype != torch.float64


def rows_of(x: Tensor, groups: int, gate: Tensor | None) -> Rows:
    segments = x.shape[0] if gate is not None else groups
    return Rows(segments, groups, x.shape[0] * x.shape[2] * x.shape[3] // segments)


@torch.no_grad()
def statistics(x: Tensor, rows: Rows, noise: Tensor | None, noise_weight: Tensor | None) -> Statistics:
    """Mean and biased variance of x + noise_weight * noise, from sums shifted by each group's first row."""
    if noise is None or noise_weight is None:
        return _plain_statistics(x, rows.groups)
    x_rows, noise_rows = rows.view(x), rows.view(noise)
    per_group = rows.segments // rows.groups
    shift = x_rows[::per_group, 0].float()
    total = torch.zeros(rows.groups, x.shape[1], dtype=torch.float64, device=x.device)
    squares = torch.zeros_like(total)
    for segment, group, block in rows.blocks(x.shape[1]):
        value = x_rows[segment, block].float() - shift[group]
        value.addcmul_(noise_rows[segment, block].float(), noise_weight)
        total[group] += value.sum(0)
        squares[group] += value.mul_(value).sum(0)
    count = rows.rows * per_group
    mean = total / count
    variance = (squares / count - mean.square()).clamp_(min=0)
    return Statistics((mean + shift).float(), variance.float(), count)


def _plain_statistics(x: Tensor, groups: int) -> Statistics:
    """The same without noise, by PyTorch's own pass, which is one call and exact to fp32."""
    parts = [torch.batch_norm_update_stats(part, None, None, 0.0) for part in x.chunk(groups)]
    count = x.numel() // x.shape[1] // groups
    return Statistics(torch.stack([m for m, _ in parts]), torch.stack([v for _, v in parts]), count)


@torch.no_grad()
def update_running(
    stats: Statistics, running_mean: Tensor, running_var: Tensor, momentum: float, sigma: Tensor | None
) -> None:
    """As ``nn.BatchNorm2d``, once for each group in order; with ``sigma`` the statistics of conv / sigma."""
    mean, unbiased = stats.mean, stats.variance * (stats.count / max(stats.count - 1, 1))
    if sigma is not None:
        mean, unbiased = mean / sigma, unbiased / sigma.square()
    for group in range(mean.shape[0]):
        running_mean.lerp_(mean[group].to(running_mean.dtype), momentum)
        running_var.lerp_(unbiased[group].to(running_var.dtype), momentum)


class BlockedNorm(torch.autograd.Function):
    """The apply pass and its backward; see the module's docstring. Statistics come in, and count as functions of x."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        noise: Tensor | None,
        noise_weight: Tensor | None,
        gate: Tensor | None,
        residual: Tensor | None,
        stats: Statistics,
        epsilon: Tensor,
        activation: Activation,
        rows: Rows,
    ) -> Tensor:
        scale = weight * torch.rsqrt(stats.variance + epsilon)
        shift = bias - stats.mean * scale
        batch, _, height, width = x.shape
        channels = activation.channels_out(x.shape[1])
        y = torch.empty(rows.segments, rows.rows, channels, dtype=x.dtype, device=x.device)
        walk = _Walk(x, noise, noise_weight, scale, shift, rows)
        gate_rows = None if gate is None else gate.detach().reshape(batch, channels).float()
        residual_rows = None if residual is None else rows.view(residual)
        for segment, group, block in rows.blocks(x.shape[1]):
            out, narrow = _target(y[segment, block])
            activation.forward(walk.normalised(segment, group, block), out)
            if gate_rows is not None:
                out *= gate_rows[segment]
            if residual_rows is not None:
                out.add_(residual_rows[segment, block]).mul_(0.5)
            narrow()
        ctx.save_for_backward(x, weight, scale, shift, noise, noise_weight, gate)
        ctx.stats, ctx.epsilon, ctx.activation, ctx.rows = stats, epsilon, activation, rows
        ctx.halved = residual is not None
        return y.view(batch, height, width, channels).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale, shift, noise, noise_weight, gate = ctx.saved_tensors
        walk = _Walk(x, noise, noise_weight, scale, shift, ctx.rows)
        grad_v, sums, sums_x, grad_gate = _reduce(ctx, walk, grad, gate)
        invstd = torch.rsqrt(ctx.stats.variance + ctx.epsilon)
        grad_weight = (sums_x - ctx.stats.mean * sums) * invstd
        grad_noise_weight = _apply(ctx, walk, grad_v, sums, grad_weight * invstd)
        batch, channels, height, width = x.shape
        return (
            grad_v.view(batch, height, width, channels).permute(0, 3, 1, 2) if ctx.needs_input_grad[0] else None,
            grad_weight.sum(0).to(weight.dtype),
            sums.sum(0).to(weight.dtype),
            None,
            grad_noise_weight if noise_weight is not None else None,
            grad_gate,
            grad * 0.5 if ctx.needs_input_grad[6] else None,
            *(None,) * 4,
        )


@dataclass(frozen=True)
class _Walk:
    """Reads blocks of x (plus noise) in fp32, and normalises them."""

    x: Tensor
    noise: Tensor | None
    noise_weight: Tensor | None
    scale: Tensor
    shift: Tensor
    rows: Rows

    def raw(self, segment: int, block: slice) -> Tensor:
        value = self.rows.view(self.x)[segment, block].float()
        if self.noise is None or self.noise_weight is None:
            return value
        return torch.addcmul(value, self.rows.view(self.noise)[segment, block].float(), self.noise_weight)

    def normalised(self, segment: int, group: int, block: slice) -> Tensor:
        return torch.addcmul(self.shift[group], self.raw(segment, block), self.scale[group])


def _reduce(ctx: Any, walk: _Walk, grad: Tensor, gate: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """First backward pass: the gradient at the norm's output, its sum and its sum with x by channel, and the gate's."""
    rows, activation, x = ctx.rows, ctx.activation, walk.x
    grad_rows = rows.view(grad)
    grad_v = torch.empty(rows.segments, rows.rows, x.shape[1], dtype=x.dtype, device=x.device)
    sums = torch.zeros(rows.groups, x.shape[1], device=x.device)
    sums_x = torch.zeros_like(sums)
    gate_rows = None if gate is None else gate.reshape(rows.segments, -1).float()
    grad_gate = None if gate_rows is None else torch.zeros_like(gate_rows)
    for segment, group, block in rows.blocks(x.shape[1]):
        raw = walk.raw(segment, block)
        v = torch.addcmul(walk.shift[group], raw, walk.scale[group])
        upstream = grad_rows[segment, block].float()
        if ctx.halved:
            upstream = upstream * 0.5
        if gate_rows is not None and grad_gate is not None:
            grad_gate[segment] += (upstream * activation.forward(v, torch.empty_like(upstream))).sum(0)
            upstream = upstream * gate_rows[segment]
        back, narrow = _target(grad_v[segment, block])
        activation.backward(v, upstream, back)
        sums[group] += back.sum(0)
        sums_x[group] += (raw * back).sum(0)
        narrow()
    return grad_v, sums, sums_x, None if gate is None or grad_gate is None else grad_gate.view_as(gate).to(gate.dtype)


def _apply(ctx: Any, walk: _Walk, grad_v: Tensor, sums: Tensor, slope: Tensor) -> Tensor | None:
    """Second backward pass, in place: the gradient at x, and the noise weight's.

    dx = scale * (dv - mean(dv) - (x - mean) * slope / count), with slope = sum(dv (x - mean)) / (variance + eps).
    """
    count = ctx.stats.count
    linear = walk.scale * slope / count
    constant = walk.scale * sums / count - ctx.stats.mean * linear
    total = torch.zeros((), device=grad_v.device)
    noise_rows = None if walk.noise is None else ctx.rows.view(walk.noise)
    for segment, group, block in ctx.rows.blocks(grad_v.shape[2]):
        centred = torch.addcmul(constant[group], walk.raw(segment, block), linear[group])
        rows = grad_v[segment, block]
        back, narrow = _target(rows)
        torch.mul(rows, walk.scale[group], out=back).sub_(centred)
        if noise_rows is not None:
            total += (back.sum(1, keepdim=True) * noise_rows[segment, block]).sum()
        narrow()
    return None if walk.noise_weight is None else total.view_as(walk.noise_weight)


def _target(rows: Tensor) -> tuple[Tensor, Callable[[], object]]:
    """Where to compute the fp32 values of ``rows``, and what carries them over: nothing where ``rows`` is fp32."""
    if rows.dtype == torch.float32:
        return rows, lambda: None
    wide = torch.empty(rows.shape, device=rows.device)
    return wide, lambda: rows.copy_(wide)


def blocked_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    *,
    activation: Activation,
    noise: Tensor | None = None,
    noise_weight: Tensor | None = None,
    gate: Tensor | None = None,
    residual: Tensor | None = None,
    momentum: float = 0.1,
    eps: float = 1e-5,
    groups: int = 1,
    sigma: Tensor | None = None,
) -> Tensor:
    """Training-mode batch norm with its activation; the arguments are those of ``norm_glu`` and ``norm_lrelu``."""
    rows = rows_of(x, groups, gate)
    epsilon = torch.full((), eps, device=x.device)
    if sigma is not None:
        epsilon = epsilon * sigma.detach().square()
        noise_weight = None if noise_weight is None else noise_weight * sigma.detach()
    stats = statistics(x, rows, noise, noise_weight)
    if running_mean is not None and running_var is not None:
        update_running(stats, running_mean, running_var, momentum, sigma)
    return BlockedNorm.apply(x, weight, bias, noise, noise_weight, gate, residual, stats, epsilon, activation, rows)
