"""Kernels of ``norm_lrelu``: apply forward, reduce and gradient backward; the statistics are ``norm_stats``'s.

Each program walks over the rows of one chunk (``tiling``) in a block of channels. Where the result is pooled as well, a
row is a 2 x 2 square of pixels (``PARTS`` is 4). ``residual_ptr``, ``gate_ptr``, ``sigma_ptr``, ``pooled_ptr`` and
their gradients may be None.
"""

from fastgan_engine.kernels.launch import jit, tl
from fastgan_engine.kernels.norm_device import (
    SIZES,
    gradient_means,
    load_row,
    norm_of_batch,
    saved_norm,
    store_gate_gradient,
)
from fastgan_engine.kernels.tiling import columns_of, load_map, pixels_of, rows_in_segment, square_gradient


@jit(unspecialised=SIZES)
def _norm_lrelu_apply_kernel(
    x_ptr, residual_ptr, sigma_ptr, partial_mean_ptr, partial_m2_ptr, running_mean_ptr, running_var_ptr,
    weight_ptr, bias_ptr, gate_ptr, mean_ptr, rstd_ptr, y_ptr, pooled_ptr,
    units, rows, chunk_rows, width, segments_per_set, sets, set_chunks, set_chunk_rows, set_rows, momentum, eps, slope,
    PARTS: tl.constexpr, UNIT: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    channels = units * UNIT
    segment = tl.program_id(2)
    base = segment.to(tl.int64) * rows * channels
    cols, in_cols = columns_of(channels, COLS)
    mean, scale, bias = norm_of_batch(
        partial_mean_ptr, partial_m2_ptr, running_mean_ptr, running_var_ptr, sigma_ptr, mean_ptr, rstd_ptr,
        weight_ptr, bias_ptr, segment // segments_per_set, channels, cols, in_cols,
        sets, set_chunks, set_chunk_rows, set_rows, momentum, eps, COLS,
    )  # fmt: skip
    if gate_ptr is not None:
        gate = tl.sigmoid(load_row(gate_ptr, segment, channels, cols, in_cols))
    begin, stop = rows_in_segment(rows, chunk_rows)
    for start in range(begin, stop, ROWS):
        r = start + tl.arange(0, ROWS)
        mask = (r < stop)[:, None] & in_cols[None, :]
        total = tl.zeros((ROWS, COLS), tl.float32)
        for part in tl.static_range(PARTS):
            offsets = base * PARTS + pixels_of(r, part, width, PARTS)[:, None] * channels + cols[None, :]
            z = (load_map(x_ptr, offsets, mask) - mean[None, :]) * scale[None, :] + bias[None, :]
            y = tl.where(z > 0, z, slope * z)
            if residual_ptr is not None:
                y = 0.5 * (load_map(residual_ptr, offsets, mask) + y)
            if gate_ptr is not None:
                y *= gate[None, :]
            tl.store(y_ptr + offsets, y.to(y_ptr.dtype.element_ty), mask=mask)
            total += y
        if pooled_ptr is not None:
            offsets = base + pixels_of(r, 0, width, 1)[:, None] * channels + cols[None, :]
            tl.store(pooled_ptr + offsets, (0.25 * total).to(pooled_ptr.dtype.element_ty), mask=mask)


@jit(unspecialised=SIZES)
def _norm_lrelu_reduce_kernel(
    x_ptr, y_ptr, grad_ptr, grad_pooled_ptr, mean_ptr, rstd_ptr, weight_ptr, bias_ptr, gate_ptr,
    partial_sum_ptr, partial_dot_ptr, partial_gate_ptr,
    units, rows, chunk_rows, width, segments_per_set, slope, factor,
    PARTS: tl.constexpr, UNIT: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """Sums over a chunk of dz and dz (x - mean); the gate, constant over it, and ``factor`` multiply at the end."""
    channels = units * UNIT
    segment = tl.program_id(2)
    base = segment.to(tl.int64) * rows * channels
    cols, in_cols = columns_of(channels, COLS)
    mean, scale, bias = saved_norm(
        mean_ptr, rstd_ptr, weight_ptr, bias_ptr, segment // segments_per_set, channels, cols, in_cols
    )
    total = tl.zeros((ROWS, COLS), tl.float32)
    dot = tl.zeros((ROWS, COLS), tl.float32)
    gated = tl.zeros((ROWS, COLS), tl.float32)
    begin, stop = rows_in_segment(rows, chunk_rows)
    for start in range(begin, stop, ROWS):
        r = start + tl.arange(0, ROWS)
        mask = (r < stop)[:, None] & in_cols[None, :]
        pooled = square_gradient(grad_pooled_ptr, r, base, channels, cols, mask, ROWS, COLS)
        for part in tl.static_range(PARTS):
            offsets = base * PARTS + pixels_of(r, part, width, PARTS)[:, None] * channels + cols[None, :]
            x = load_map(x_ptr, offsets, mask) - mean[None, :]
            # Zero outside the mask, and so is all that is summed.
            grad = load_map(grad_ptr, offsets, mask) + pooled
            if gate_ptr is not None:
                gated += grad * load_map(y_ptr, offsets, mask)
            grad = tl.where(x * scale[None, :] + bias[None, :] > 0, grad, slope * grad)
            total += grad
            dot += grad * x
    sum_grad, sum_dot = tl.sum(total, axis=0) * factor, tl.sum(dot, axis=0) * factor
    out = (segment * tl.num_programs(1) + tl.program_id(1)) * channels + cols
    if gate_ptr is not None:
        gate = tl.sigmoid(load_row(gate_ptr, segment, channels, cols, in_cols))
        tl.store(partial_gate_ptr + out, tl.sum(gated, axis=0) * (1.0 - gate), mask=in_cols)
        sum_grad *= gate
        sum_dot *= gate
    tl.store(partial_sum_ptr + out, sum_grad, mask=in_cols)
    tl.store(partial_dot_ptr + out, sum_dot, mask=in_cols)


@jit(unspecialised=SIZES)
def _norm_lrelu_gradient_kernel(
    x_ptr, grad_ptr, grad_pooled_ptr, mean_ptr, rstd_ptr, weight_ptr, bias_ptr, gate_ptr,
    partial_sum_ptr, partial_dot_ptr, partial_gate_ptr, grad_weight_ptr, grad_bias_ptr, grad_gate_ptr,
    grad_x_ptr, grad_residual_ptr,
    units, rows, chunk_rows, width, segments_per_set, sets, slope, factor,
    TRAINING: tl.constexpr,
    PARTS: tl.constexpr, UNIT: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    channels = units * UNIT
    segment, chunks = tl.program_id(2), tl.num_programs(1)
    base = segment.to(tl.int64) * rows * channels
    cols, in_cols = columns_of(channels, COLS)
    index = segment // segments_per_set
    mean, scale, bias = saved_norm(mean_ptr, rstd_ptr, weight_ptr, bias_ptr, index, channels, cols, in_cols)
    mean_grad, mean_dot = gradient_means(
        partial_sum_ptr, partial_dot_ptr, rstd_ptr, grad_weight_ptr, grad_bias_ptr, index, channels, cols, in_cols,
        sets, segments_per_set * chunks, segments_per_set * rows * PARTS, COLS,
    )  # fmt: skip
    if gate_ptr is not None:
        factor = factor * tl.sigmoid(load_row(gate_ptr, segment, channels, cols, in_cols))[None, :]
        if grad_gate_ptr is not None:
            store_gate_gradient(partial_gate_ptr, grad_gate_ptr, channels, cols, in_cols, COLS)
    begin, stop = rows_in_segment(rows, chunk_rows)
    for start in range(begin, stop, ROWS):
        r = start + tl.arange(0, ROWS)
        mask = (r < stop)[:, None] & in_cols[None, :]
        pooled = square_gradient(grad_pooled_ptr, r, base, channels, cols, mask, ROWS, COLS)
        for part in tl.static_range(PARTS):
            offsets = base * PARTS + pixels_of(r, part, width, PARTS)[:, None] * channels + cols[None, :]
            x = load_map(x_ptr, offsets, mask) - mean[None, :]
            grad = (load_map(grad_ptr, offsets, mask) + pooled) * factor
            if grad_residual_ptr is not None:
                tl.store(grad_residual_ptr + offsets, grad.to(grad_residual_ptr.dtype.element_ty), mask=mask)
            grad = tl.where(x * scale[None, :] + bias[None, :] > 0, grad, slope * grad)
            if TRAINING:
                grad -= mean_grad[None, :] + x * mean_dot[None, :]
            grad *= scale[None, :]
            tl.store(grad_x_ptr + offsets, grad.to(grad_x_ptr.dtype.element_ty), mask=mask)
