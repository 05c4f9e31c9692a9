"""Kernels of ``norm_glu``: apply forward, reduce and gradient backward; the statistics are ``norm_stats``'s.

Each program walks over the rows of one chunk (``tiling``) in a block of channels of both halves, a and b, whose
columns lie half of x's channels apart. ``sigma_ptr``, ``noise_ptr``, ``gate_ptr`` may be None.
"""

from fastgan_engine.kernels.launch import jit, tl
from fastgan_engine.kernels.norm_device import (
    SIZES,
    gradient_means,
    load_row,
    noise_factor,
    norm_of_batch,
    saved_norm,
    store_gate_gradient,
)
from fastgan_engine.kernels.tiling import chunk_rows_of, columns_of, load_map


@jit
def _tile(start, count, channels, cols, in_cols, ROWS: tl.constexpr):
    """A tile's rows, which of them and of its elements there are, and the offsets of x's half a and of y."""
    r = start + tl.arange(0, ROWS)
    in_rows = r < count
    offsets = r[:, None] * channels + cols[None, :]
    return r, in_rows, in_rows[:, None] & in_cols[None, :], offsets + r[:, None] * channels, offsets


@jit
def _load_halves(x_ptr, offsets, channels, mask, noise_ptr, factor, rows, in_rows):
    """Both halves of x + factor noise in float32, for a tile; zero outside the mask but for the noise."""
    a, b = load_map(x_ptr, offsets, mask), load_map(x_ptr, offsets + channels, mask)
    if noise_ptr is not None:
        noise = factor * load_map(noise_ptr, rows, in_rows)[:, None]
        a += noise
        b += noise
    return a, b


@jit(unspecialised=SIZES)
def _norm_glu_apply_kernel(
    x_ptr, noise_ptr, noise_weight_ptr, sigma_ptr, partial_mean_ptr, partial_m2_ptr, running_mean_ptr, running_var_ptr,
    weight_ptr, bias_ptr, gate_ptr, mean_ptr, rstd_ptr, y_ptr,
    units, rows, chunk_rows, segments_per_set, sets, set_chunks, set_chunk_rows, set_rows, momentum, eps,
    UNIT: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    channels = units * UNIT
    first, count = chunk_rows_of(rows, chunk_rows)
    factor = noise_factor(noise_weight_ptr, sigma_ptr)
    x_ptr += first * channels * 2
    y_ptr += first * channels
    cols, in_cols = columns_of(channels, COLS)
    index = tl.program_id(2) // segments_per_set
    mean_a, scale_a, bias_a = norm_of_batch(
        partial_mean_ptr, partial_m2_ptr, running_mean_ptr, running_var_ptr, sigma_ptr, mean_ptr, rstd_ptr,
        weight_ptr, bias_ptr, index, channels * 2, cols, in_cols,
        sets, set_chunks, set_chunk_rows, set_rows, momentum, eps, COLS,
    )  # fmt: skip
    mean_b, scale_b, bias_b = norm_of_batch(
        partial_mean_ptr, partial_m2_ptr, running_mean_ptr, running_var_ptr, sigma_ptr, mean_ptr, rstd_ptr,
        weight_ptr, bias_ptr, index, channels * 2, cols + channels, in_cols,
        sets, set_chunks, set_chunk_rows, set_rows, momentum, eps, COLS,
    )  # fmt: skip
    if gate_ptr is not None:
        gate = tl.sigmoid(load_row(gate_ptr, tl.program_id(2), channels, cols, in_cols))
    for start in range(0, count, ROWS):
        r, in_rows, mask, x_offsets, y_offsets = _tile(start, count, channels, cols, in_cols, ROWS)
        a, b = _load_halves(x_ptr, x_offsets, channels, mask, noise_ptr, factor, first + r, in_rows)
        a = (a - mean_a[None, :]) * scale_a[None, :] + bias_a[None, :]
        b = (b - mean_b[None, :]) * scale_b[None, :] + bias_b[None, :]
        y = a * tl.sigmoid(b)
        if gate_ptr is not None:
            y *= gate[None, :]
        tl.store(y_ptr + y_offsets, y.to(y_ptr.dtype.element_ty), mask=mask)


@jit
def _glu_gradient(a, b, grad, scale_a, bias_a, scale_b, bias_b):
    """Gradients of the GLU's two inputs; ``a`` and ``b`` are x' minus its mean."""
    sigmoid = tl.sigmoid(b * scale_b[None, :] + bias_b[None, :])
    grad_a = grad * sigmoid
    return grad_a, grad_a * (a * scale_a[None, :] + bias_a[None, :]) * (1.0 - sigmoid)


@jit(unspecialised=SIZES)
def _norm_glu_reduce_kernel(
    x_ptr, grad_ptr, noise_ptr, noise_weight_ptr, sigma_ptr, mean_ptr, rstd_ptr, weight_ptr, bias_ptr, gate_ptr,
    partial_sum_ptr, partial_dot_ptr, partial_gate_ptr,
    units, rows, chunk_rows, segments_per_set,
    UNIT: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """Sums over a chunk of dz and dz (x' - mean) for both halves; the gate, constant over it, multiplies at the end."""
    channels = units * UNIT
    first, count = chunk_rows_of(rows, chunk_rows)
    factor = noise_factor(noise_weight_ptr, sigma_ptr)
    x_ptr += first * channels * 2
    grad_ptr += first * channels
    cols, in_cols = columns_of(channels, COLS)
    index = tl.program_id(2) // segments_per_set
    mean_a, scale_a, bias_a = saved_norm(
        mean_ptr, rstd_ptr, weight_ptr, bias_ptr, index, channels * 2, cols, in_cols
    )  # fmt: skip
    mean_b, scale_b, bias_b = saved_norm(
        mean_ptr, rstd_ptr, weight_ptr, bias_ptr, index, channels * 2, cols + channels, in_cols
    )
    sum_a = tl.zeros((ROWS, COLS), tl.float32)
    dot_a = tl.zeros((ROWS, COLS), tl.float32)
    sum_b = tl.zeros((ROWS, COLS), tl.float32)
    dot_b = tl.zeros((ROWS, COLS), tl.float32)
    for start in range(0, count, ROWS):
        r, in_rows, mask, x_offsets, y_offsets = _tile(start, count, channels, cols, in_cols, ROWS)
        a, b = _load_halves(x_ptr, x_offsets, channels, mask, noise_ptr, factor, first + r, in_rows)
        a -= mean_a[None, :]
        b -= mean_b[None, :]
        # Zero outside the mask, and so is all that is summed.
        grad = load_map(grad_ptr, y_offsets, mask)
        grad_a, grad_b = _glu_gradient(a, b, grad, scale_a, bias_a, scale_b, bias_b)
        sum_a += grad_a
        dot_a += grad_a * a
        sum_b += grad_b
        dot_b += grad_b * b
    total_a, total_dot_a = tl.sum(sum_a, axis=0), tl.sum(dot_a, axis=0)
    total_b, total_dot_b = tl.sum(sum_b, axis=0), tl.sum(dot_b, axis=0)
    partial = tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)
    if gate_ptr is not None:
        gate = tl.sigmoid(load_row(gate_ptr, tl.program_id(2), channels, cols, in_cols))
        total_a *= gate
        total_dot_a *= gate
        total_b *= gate
        total_dot_b *= gate
        # Sum of g gate a sigmoid(b), with a = (x' - mean) scale + bias: by 1 - gate the logit's gradient.
        grad_gate = (total_dot_a * scale_a + total_a * bias_a) * (1.0 - gate)
        tl.store(partial_gate_ptr + partial * channels + cols, grad_gate, mask=in_cols)
    out = partial * channels * 2 + cols
    tl.store(partial_sum_ptr + out, total_a, mask=in_cols)
    tl.store(partial_dot_ptr + out, total_dot_a, mask=in_cols)
    tl.store(partial_sum_ptr + out + channels, total_b, mask=in_cols)
    tl.store(partial_dot_ptr + out + channels, total_dot_b, mask=in_cols)


@jit(unspecialised=SIZES)
def _norm_glu_gradient_kernel(
    x_ptr, grad_ptr, noise_ptr, noise_weight_ptr, sigma_ptr, mean_ptr, rstd_ptr, weight_ptr, bias_ptr, gate_ptr,
    partial_sum_ptr, partial_dot_ptr, partial_gate_ptr, grad_weight_ptr, grad_bias_ptr, grad_gate_ptr,
    grad_x_ptr, partial_noise_ptr,
    units, rows, chunk_rows, segments_per_set, sets,
    TRAINING: tl.constexpr, UNIT: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """dx and the gradients of parameters and gate; with ``partial_noise_ptr`` each program's sum of dx noise."""
    channels = units * UNIT
    first, count = chunk_rows_of(rows, chunk_rows)
    factor = noise_factor(noise_weight_ptr, sigma_ptr)
    x_ptr += first * channels * 2
    grad_x_ptr += first * channels * 2
    grad_ptr += first * channels
    cols, in_cols = columns_of(channels, COLS)
    chunks = tl.num_programs(1)
    index, partials, set_rows = tl.program_id(2) // segments_per_set, segments_per_set * chunks, segments_per_set * rows
    mean_a, scale_a, bias_a = saved_norm(
        mean_ptr, rstd_ptr, weight_ptr, bias_ptr, index, channels * 2, cols, in_cols
    )  # fmt: skip
    mean_b, scale_b, bias_b = saved_norm(
        mean_ptr, rstd_ptr, weight_ptr, bias_ptr, index, channels * 2, cols + channels, in_cols
    )
    mean_grad_a, mean_dot_a = gradient_means(
        partial_sum_ptr, partial_dot_ptr, rstd_ptr, grad_weight_ptr, grad_bias_ptr,
        index, channels * 2, cols, in_cols, sets, partials, set_rows, COLS,
    )  # fmt: skip
    mean_grad_b, mean_dot_b = gradient_means(
        partial_sum_ptr, partial_dot_ptr, rstd_ptr, grad_weight_ptr, grad_bias_ptr,
        index, channels * 2, cols + channels, in_cols, sets, partials, set_rows, COLS,
    )  # fmt: skip
    if gate_ptr is not None:
        gate = tl.sigmoid(load_row(gate_ptr, tl.program_id(2), channels, cols, in_cols))
        if grad_gate_ptr is not None:
            store_gate_gradient(partial_gate_ptr, grad_gate_ptr, channels, cols, in_cols, COLS)
    grad_noise = tl.zeros((ROWS,), tl.float32)
    for start in range(0, count, ROWS):
        r, in_rows, mask, x_offsets, y_offsets = _tile(start, count, channels, cols, in_cols, ROWS)
        a, b = _load_halves(x_ptr, x_offsets, channels, mask, noise_ptr, factor, first + r, in_rows)
        a -= mean_a[None, :]
        b -= mean_b[None, :]
        grad = load_map(grad_ptr, y_offsets, mask)
        if gate_ptr is not None:
            grad *= gate[None, :]
        grad_a, grad_b = _glu_gradient(a, b, grad, scale_a, bias_a, scale_b, bias_b)
        if TRAINING:
            grad_a -= mean_grad_a[None, :] + a * mean_dot_a[None, :]
            grad_b -= mean_grad_b[None, :] + b * mean_dot_b[None, :]
        grad_a *= scale_a[None, :]
        grad_b *= scale_b[None, :]
        tl.store(grad_x_ptr + x_offsets, grad_a.to(grad_x_ptr.dtype.element_ty), mask=mask)
        tl.store(grad_x_ptr + x_offsets + channels, grad_b.to(grad_x_ptr.dtype.element_ty), mask=mask)
        if partial_noise_ptr is not None:
            grad_noise += load_map(noise_ptr, first + r, in_rows) * tl.sum(grad_a + grad_b, axis=1)
    if partial_noise_ptr is not None:
        program = (tl.program_id(2) * chunks + tl.program_id(1)) * tl.num_programs(0) + tl.program_id(0)
        tl.store(partial_noise_ptr + program, tl.sum(grad_noise, axis=0))
