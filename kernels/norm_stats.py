"""Batch statistics and their gradients, shared by the fused norms: reductions in two stages, without atomics.

With the rows, segments and chunks of ``tiling``, one program reduces one chunk of one block of channels, and a second
kernel combines the chunks:

    chunk mean m_i and squared deviations M_i about it, n_i rows     (``_norm_statistics_kernel``)
    mean = sum n_i m_i / n,  var = (sum M_i + n_i (m_i - mean)^2) / n  (``_norm_finalise_kernel``)

Within a chunk the sums run over x minus the mean of the chunk's first tile, so that a mean far from zero costs no
digits. Source: Chan, Golub, LeVeque, "Algorithms for computing the sample variance", 1983.

With noise, x is x + w n. With sigma, x is a convolution by W whose normalised form is by W / sigma; then
BN_eps(x / sigma + w n) = BN_{eps sigma^2}(x + sigma w n), and the running statistics are those of the left side.

Bytes: the first kernel reads x once; the others only see partial results.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fastgan_engine.kernels.arguments import check, check_map, check_parameter
from fastgan_engine.kernels.launch import cdiv, jit, launch, next_power_of_2, tl
from fastgan_engine.kernels.tiling import TILE, tiling


@dataclass(frozen=True)
class Norm:
    """Settings of a batch norm: ``groups`` equal consecutive parts of the batch have their own statistics."""

    training: bool
    momentum: float
    eps: float
    groups: int

    @property
    def sets(self) -> int:
        """Sets of statistics in use: in eval mode all groups share the running ones."""
        return self.groups if self.training else 1


@jit
def chunk_rows_of(rows, chunk_rows):
    """First row of this program's chunk (64-bit) and the number of its rows."""
    chunk, segment = tl.program_id(1), tl.program_id(2)
    return segment.to(tl.int64) * rows + chunk * chunk_rows, tl.minimum(chunk_rows, rows - chunk * chunk_rows)


@jit
def noise_factor(noise_weight_ptr, sigma_ptr):
    """sigma w: the factor of the noise beside an unnormalised convolution."""
    factor = 0.0
    if noise_weight_ptr is not None:
        factor = tl.load(noise_weight_ptr)
        if sigma_ptr is not None:
            factor *= tl.load(sigma_ptr)
    return factor


@jit
def load_noisy(x_ptr, noise_ptr, factor, offsets, mask, rows, in_rows):
    """x + factor noise in float32, for a tile; zero outside the mask but for the noise."""
    x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    if noise_ptr is not None:
        x += factor * tl.load(noise_ptr + rows, mask=in_rows, other=0.0).to(tl.float32)[:, None]
    return x


@jit(unspecialised=("units", "rows", "chunk_rows"))
def _norm_statistics_kernel(
    x_ptr, noise_ptr, noise_weight_ptr, sigma_ptr, partial_mean_ptr, partial_m2_ptr,
    units, rows, chunk_rows,
    UNIT: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    channels = units * UNIT
    first, count = chunk_rows_of(rows, chunk_rows)
    factor = noise_factor(noise_weight_ptr, sigma_ptr)
    x_ptr += first * channels
    cols = tl.program_id(0) * COLS + tl.arange(0, COLS)
    in_cols = cols < channels
    r = tl.arange(0, ROWS)
    mask = (r < count)[:, None] & in_cols[None, :]
    x = load_noisy(x_ptr, noise_ptr, factor, r[:, None] * channels + cols[None, :], mask, first + r, r < count)
    pivot = tl.sum(tl.where(mask, x, 0.0), axis=0) / tl.minimum(count, ROWS)
    total = tl.where(mask, x - pivot[None, :], 0.0)
    squares = total * total
    for start in range(ROWS, count, ROWS):
        r = start + tl.arange(0, ROWS)
        mask = (r < count)[:, None] & in_cols[None, :]
        x = load_noisy(x_ptr, noise_ptr, factor, r[:, None] * channels + cols[None, :], mask, first + r, r < count)
        d = tl.where(mask, x - pivot[None, :], 0.0)
        total += d
        squares += d * d
    sum_d = tl.sum(total, axis=0)
    out = (tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)) * channels + cols
    tl.store(partial_mean_ptr + out, pivot + sum_d / count, mask=in_cols)
    tl.store(partial_m2_ptr + out, tl.sum(squares, axis=0) - sum_d * (sum_d / count), mask=in_cols)


@jit(unspecialised=("sets", "chunks", "chunk_rows", "rows"))
def _norm_finalise_kernel(
    partial_mean_ptr, partial_m2_ptr, running_mean_ptr, running_var_ptr, sigma_ptr, mean_ptr, rstd_ptr,
    channels, sets, chunks, chunk_rows, rows, momentum, eps,
    ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """One set of statistics after another, as if the groups of the batch were forwarded in turn."""
    cols = tl.program_id(0) * COLS + tl.arange(0, COLS)
    in_cols = cols < channels
    r = tl.arange(0, ROWS)
    sigma = 1.0
    if sigma_ptr is not None:
        sigma = tl.load(sigma_ptr)
    running_mean = tl.load(running_mean_ptr + cols, mask=in_cols, other=0.0)
    running_var = tl.load(running_var_ptr + cols, mask=in_cols, other=0.0)
    for index in range(sets):
        pivot = tl.load(partial_mean_ptr + index * chunks * channels + cols, mask=in_cols, other=0.0)
        total = tl.zeros((ROWS, COLS), tl.float32)
        squares = tl.zeros((ROWS, COLS), tl.float32)
        for start in range(0, chunks, ROWS):
            j = start + r
            mask = (j < chunks)[:, None] & in_cols[None, :]
            offsets = (index * chunks + j)[:, None] * channels + cols[None, :]
            n = tl.minimum(chunk_rows, rows - j * chunk_rows)[:, None] * 1.0
            d = tl.where(mask, tl.load(partial_mean_ptr + offsets, mask=mask, other=0.0) - pivot[None, :], 0.0)
            total += n * d
            squares += n * d * d + tl.load(partial_m2_ptr + offsets, mask=mask, other=0.0)
        count = rows * 1.0
        shift = tl.sum(total, axis=0) / count
        mean = pivot + shift
        var = tl.maximum(tl.sum(squares, axis=0) / count - shift * shift, 0.0)
        running_mean += momentum * (mean / sigma - running_mean)
        running_var += momentum * (var / (sigma * sigma) * (count / (count - 1.0)) - running_var)
        out = index * channels + cols
        tl.store(mean_ptr + out, mean, mask=in_cols)
        tl.store(rstd_ptr + out, 1.0 / tl.sqrt(var + eps * sigma * sigma), mask=in_cols)
    tl.store(running_mean_ptr + cols, running_mean, mask=in_cols)
    tl.store(running_var_ptr + cols, running_var, mask=in_cols)


@jit
def _norm_running_kernel(
    running_mean_ptr, running_var_ptr, sigma_ptr, mean_ptr, rstd_ptr, channels, eps, COLS: tl.constexpr
):
    """Eval mode: running statistics of x / sigma as those of x."""
    cols = tl.program_id(0) * COLS + tl.arange(0, COLS)
    in_cols = cols < channels
    sigma = 1.0
    if sigma_ptr is not None:
        sigma = tl.load(sigma_ptr)
    var = tl.load(running_var_ptr + cols, mask=in_cols, other=0.0)
    tl.store(mean_ptr + cols, tl.load(running_mean_ptr + cols, mask=in_cols, other=0.0) * sigma, mask=in_cols)
    tl.store(rstd_ptr + cols, 1.0 / (tl.sqrt(var + eps) * sigma), mask=in_cols)


@jit(unspecialised=("sets", "partials", "count"))
def _norm_gradient_finalise_kernel(
    partial_sum_ptr, partial_dot_ptr, rstd_ptr, mean_grad_ptr, mean_dot_ptr, grad_weight_ptr, grad_bias_ptr,
    channels, sets, partials, count,
    ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """Sums of dz and of dz (x - mean): per set as the means that dx needs, over all sets as parameter gradients."""
    cols = tl.program_id(0) * COLS + tl.arange(0, COLS)
    in_cols = cols < channels
    r = tl.arange(0, ROWS)
    grad_weight = tl.zeros((COLS,), tl.float32)
    grad_bias = tl.zeros((COLS,), tl.float32)
    for index in range(sets):
        total = tl.zeros((ROWS, COLS), tl.float32)
        dot = tl.zeros((ROWS, COLS), tl.float32)
        for start in range(0, partials, ROWS):
            j = start + r
            mask = (j < partials)[:, None] & in_cols[None, :]
            offsets = (index * partials + j)[:, None] * channels + cols[None, :]
            total += tl.load(partial_sum_ptr + offsets, mask=mask, other=0.0)
            dot += tl.load(partial_dot_ptr + offsets, mask=mask, other=0.0)
        out = index * channels + cols
        rstd = tl.load(rstd_ptr + out, mask=in_cols, other=0.0)
        sum_grad, sum_dot = tl.sum(total, axis=0), tl.sum(dot, axis=0) * rstd
        grad_bias += sum_grad
        grad_weight += sum_dot
        tl.store(mean_grad_ptr + out, sum_grad / count, mask=in_cols)
        tl.store(mean_dot_ptr + out, sum_dot * rstd / count, mask=in_cols)
    tl.store(grad_weight_ptr + cols, grad_weight, mask=in_cols)
    tl.store(grad_bias_ptr + cols, grad_bias, mask=in_cols)


@jit(unspecialised=("partials",))
def _segment_sum_kernel(partial_ptr, out_ptr, channels, partials, ROWS: tl.constexpr, COLS: tl.constexpr):
    segment = tl.program_id(1)
    cols = tl.program_id(0) * COLS + tl.arange(0, COLS)
    in_cols = cols < channels
    r = tl.arange(0, ROWS)
    total = tl.zeros((ROWS, COLS), tl.float32)
    for start in range(0, partials, ROWS):
        mask = (start + r < partials)[:, None] & in_cols[None, :]
        offsets = (segment * partials + start + r)[:, None] * channels + cols[None, :]
        total += tl.load(partial_ptr + offsets, mask=mask, other=0.0)
    tl.store(out_ptr + segment * channels + cols, tl.sum(total, axis=0).to(out_ptr.dtype.element_ty), mask=in_cols)


def statistics(
    x: Tensor,
    norm: Norm,
    running_mean: Tensor,
    running_var: Tensor,
    *,
    noise: Tensor | None = None,
    noise_weight: Tensor | None = None,
    sigma: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Mean and 1 / sqrt(var + eps) of x + noise: float32 [sets, channels]. Training also updates the running buffers.

    Statistics are of x as it is given, so with ``sigma`` eps is scaled; the running buffers are those of x / sigma.
    """
    batch, channels, height, width = x.shape
    mean, rstd = x.new_empty((2, norm.sets, channels), dtype=torch.float32)
    if not norm.training:
        cols = min(next_power_of_2(channels), 128)
        grid = (cdiv(channels, cols),)
        launch(_norm_running_kernel, grid, running_mean, running_var, sigma, mean, rstd, channels, norm.eps, COLS=cols)
        return mean, rstd
    t = tiling(channels, batch // norm.groups * height * width, norm.groups)
    partial_mean, partial_m2 = x.new_empty((2, t.partials, channels), dtype=torch.float32)
    launch(
        _norm_statistics_kernel, t.grid, x, noise, noise_weight, sigma, partial_mean, partial_m2,
        t.units, t.rows, t.chunk_rows, **t.meta,
    )  # fmt: skip
    launch(
        _norm_finalise_kernel, _columns(channels),
        partial_mean, partial_m2, running_mean, running_var, sigma, mean, rstd,
        channels, norm.sets, t.chunks, t.chunk_rows, t.rows, norm.momentum, norm.eps, **_tile(t.chunks),
    )  # fmt: skip
    return mean, rstd


def gradient_means(
    partial_sum: Tensor, partial_dot: Tensor, rstd: Tensor, count: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """From partial sums [partials, channels] of dz and dz (x - mean), in the order of the statistics' sets:

    mean of dz and of dz (x - mean) / (var + eps), [sets, channels], ``count`` elements each; and the gradients of the
    norm's weight and bias, [channels]. All float32.
    """
    sets, channels = rstd.shape
    partials = partial_sum.shape[0] // sets
    mean_grad, mean_dot = torch.empty_like(rstd), torch.empty_like(rstd)
    grad_weight, grad_bias = rstd.new_empty(channels), rstd.new_empty(channels)
    launch(
        _norm_gradient_finalise_kernel, _columns(channels), partial_sum, partial_dot, rstd,
        mean_grad, mean_dot, grad_weight, grad_bias, channels, sets, partials, count, **_tile(partials),
    )  # fmt: skip
    return mean_grad, mean_dot, grad_weight, grad_bias


def segment_sum(partial: Tensor, segments: int, dtype: torch.dtype) -> Tensor:
    """[segments * partials, channels], float32 -> [segments, channels]: sums over the partials of each segment."""
    partials, channels = partial.shape[0] // segments, partial.shape[1]
    out = partial.new_empty((segments, channels), dtype=dtype)
    grid = (*_columns(channels), segments)
    launch(_segment_sum_kernel, grid, partial, out, channels, partials, **_tile(partials))
    return out


def sigma_gradient(
    norm: Norm,
    sigma: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor,
    mean_dot: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    count: int,
) -> Tensor:
    """Gradient of sigma through the statistics (training: eps sigma^2) or the scale of x (eval mode), as ``sigma``."""
    if norm.training:
        gradient = -norm.eps * sigma * count * (mean_dot * rstd * weight).sum()
    else:
        gradient = -(weight * (grad_weight + mean[0] * rstd[0] * grad_bias)).sum() / sigma
    return gradient.reshape(sigma.shape)


def check_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    sigma: Tensor | None,
    norm: Norm,
) -> None:
    """Checks what every fused norm takes.

    Raises:
        ValueError: names the argument.
    """
    check_map("x", x)
    batch, channels, height, width = x.shape
    buffers = {"weight": weight, "bias": bias, "running_mean": running_mean, "running_var": running_var}
    for name, parameter in buffers.items():
        check_parameter(name, parameter, (channels,), x)
    if sigma is not None:
        check_parameter("sigma", sigma, (1,) if sigma.dim() else (), x)
    check(norm.groups >= 1 and batch % norm.groups == 0, "groups", norm.groups, f"a divisor of the batch size {batch}")
    count = batch // norm.groups * height * width
    check(not norm.training or count > 1, "x", f"shape {tuple(x.shape)}", "more than one value per channel to train on")


# Channels of one program of a finalising kernel.
_FINAL_COLS = 16


def _columns(channels: int) -> tuple[int]:
    return (cdiv(channels, _FINAL_COLS),)


def _tile(partials: int) -> dict[str, int]:
    # Two sizes only: each is one more compilation.
    return {"ROWS": 16 if partials <= 16 else TILE // _FINAL_COLS, "COLS": _FINAL_COLS}
