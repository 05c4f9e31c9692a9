"""Batch statistics and their gradients, shared by the fused norms: reductions in two stages, without atomics.

With the rows, segments and chunks of ``tiling``, one program reduces one chunk of one block of channels, and every
program of the pass that needs the results combines the chunks (``norm_device``):

    chunk mean m_i and squared deviations M_i about it, n_i rows     (``_norm_statistics_kernel``)
    mean = sum n_i m_i / n,  var = (sum M_i + n_i (m_i - mean)^2) / n  (``merge_statistics``)

Within a chunk the sums run over x minus the mean of the chunk's first tile, so that a mean far from zero costs no
digits. Source: Chan, Golub, LeVeque, "Algorithms for computing the sample variance", 1983.

With noise, x is x + w n. With sigma, x is a convolution by W whose normalised form is by W / sigma; then
BN_eps(x / sigma + w n) = BN_{eps sigma^2}(x + sigma w n), and the running statistics are those of the left side.

Bytes: the kernel reads x once; the pass that follows reads a few per cent more than its maps (``tiling.ROWS_A_READ``).
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from fastgan_engine.kernels.arguments import check, check_device, check_map, check_parameter, check_shape
from fastgan_engine.kernels.launch import jit, launch, tl
from fastgan_engine.kernels.norm_device import noise_factor
from fastgan_engine.kernels.tiling import chunk_rows_of, columns_of, load_map, tiling


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


class ChunkStatistics(NamedTuple):
    """Of each chunk of each set of statistics, [sets * chunks, channels]; no tensors in eval mode.

    mean, m2: mean, and sum of squared deviations about it. chunks, chunk_rows, rows: how many chunks a set has, and
    rows a chunk and a set.
    """

    mean: Tensor | None
    m2: Tensor | None
    chunks: int
    chunk_rows: int
    rows: int

    @property
    def sizes(self) -> tuple[int, int, int]:
        return self.chunks, self.chunk_rows, self.rows


@jit
def _load_noisy(x_ptr, noise_ptr, factor, offsets, mask, rows, in_rows):
    """x + factor noise in float32, for a tile; zero outside the mask but for the noise."""
    x = load_map(x_ptr, offsets, mask)
    if noise_ptr is not None:
        x += factor * load_map(noise_ptr, rows, in_rows)[:, None]
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
    cols, in_cols = columns_of(channels, COLS)
    r = tl.arange(0, ROWS)
    mask = (r < count)[:, None] & in_cols[None, :]
    x = _load_noisy(x_ptr, noise_ptr, factor, r[:, None] * channels + cols[None, :], mask, first + r, r < count)
    pivot = tl.sum(tl.where(mask, x, 0.0), axis=0) / tl.minimum(count, ROWS)
    total = tl.where(mask, x - pivot[None, :], 0.0)
    squares = total * total
    for start in range(ROWS, count, ROWS):
        r = start + tl.arange(0, ROWS)
        mask = (r < count)[:, None] & in_cols[None, :]
        x = _load_noisy(x_ptr, noise_ptr, factor, r[:, None] * channels + cols[None, :], mask, first + r, r < count)
        d = tl.where(mask, x - pivot[None, :], 0.0)
        total += d
        squares += d * d
    sum_d = tl.sum(total, axis=0)
    out = (tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)) * channels + cols
    tl.store(partial_mean_ptr + out, pivot + sum_d / count, mask=in_cols)
    tl.store(partial_m2_ptr + out, tl.sum(squares, axis=0) - sum_d * (sum_d / count), mask=in_cols)


def chunk_statistics(
    x: Tensor,
    norm: Norm,
    *,
    noise: Tensor | None = None,
    noise_weight: Tensor | None = None,
    sigma: Tensor | None = None,
) -> ChunkStatistics:
    """Statistics of the chunks of x + noise, as x is given; nothing is launched in eval mode."""
    if not norm.training:
        return ChunkStatistics(None, None, 0, 0, 0)
    batch, channels, height, width = x.shape
    t = tiling(channels, batch // norm.groups * height * width, norm.groups, shared_by=1)
    mean, m2 = x.new_empty((2, t.partials, channels), dtype=torch.float32)
    launch(
        _norm_statistics_kernel, t.grid, x, noise, noise_weight, sigma, mean, m2,
        t.units, t.rows, t.chunk_rows, **t.meta,
    )  # fmt: skip
    return ChunkStatistics(mean, m2, t.chunks, t.chunk_rows, t.rows)


def parameter_gradients(weight: Tensor, needed: bool) -> tuple[Tensor | None, Tensor | None]:
    """Where the gradients of a norm's weight and bias go, if they are needed."""
    return (torch.empty_like(weight), torch.empty_like(weight)) if needed else (None, None)


def sigma_gradient(
    norm: Norm,
    sigma: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor,
    partial_dot: Tensor,
    gradients: tuple[Tensor | None, Tensor | None],
) -> Tensor:
    """Gradient of sigma through the statistics (training: eps sigma^2) or the scale of x (eval mode), as ``sigma``.

    partial_dot: the reduce pass's sums of dz (x - mean); gradients: of the norm's weight and bias.
    """
    if norm.training:
        dot = partial_dot.view(norm.sets, -1, weight.numel()).sum(1)
        gradient = -norm.eps * sigma * (dot * rstd.pow(3) * weight).sum()
    else:
        grad_weight, grad_bias = gradients
        assert grad_weight is not None
        assert grad_bias is not None
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


def check_gate(gate: Tensor, shape: tuple[int, int], x: Tensor) -> None:
    """Checks the logits of a gate, [batch, channels].

    Raises:
        ValueError: names the argument.
    """
    check_shape("gate", gate, shape)
    check_device("gate", gate, x)
    check(gate.is_contiguous(), "gate", f"strides {gate.stride()}", "a contiguous tensor")
