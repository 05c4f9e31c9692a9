"""Kernels of ``norm_glu``: apply forward, reduce and gradient backward; the statistics are ``norm_stats``'s.

Each program walks over the rows of one chunk (``tiling``) in a block of channels of both halves, a and b, whose
columns lie half of x's channels apart. ``sigma_ptr``, ``noise_ptr``, ``gate_ptr`` may be None.
"""

from fastgan_engine.kernels.launch import jit, tl
from fastgan_engine.kernels.norm_stats import chunk_rows_of, load_noisy, noise_factor


@jit
def _load_norm(mean_ptr, rstd_ptr, weight_ptr, bias_ptr, segments_per_set, channels, cols, in_cols):
    """Mean, 1 / sqrt(var + eps) * weight, and bias of channels of one half; ``channels`` is the size of a half."""
    statistic = tl.program_id(2) // segments_per_set * channels * 2
    mean = tl.load(mean_ptr + statistic + cols, mask=in_cols, other=0.0)
    scale = tl.load(rstd_ptr + statistic + cols, mask=in_cols, other=0.0)
    scale *= tl.load(weight_ptr + cols, mask=in_cols, other=0.0)
    return mean, scale, tl.load(bias_ptr + cols, mask=in_cols, other=0.0)


@jit(unspecialised=("units", "rows", "chunk_rows", "segments_per_set"))
def _norm_glu_apply_kernel(
    x_ptr, noise_ptr, noise_weight_ptr, sigma_ptr, mean_ptr, rstd_ptr, weight_ptr, bias_ptr, gate_ptr, y_ptr,
    units, rows, chunk_rows, segments_per_set,
    UNIT: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    channels = units * UNIT
    first, count = chunk_rows_of(rows, chunk_rows)
    factor = noise_factor(noise_weight_ptr, sigma_ptr)
    x_ptr += first * channels * 2
    y_ptr += first * channels
    a_cols = tl.program_id(0) * COLS + tl.arange(0, COLS)
    in_cols = a_cols < channels
    b_cols = a_cols + channels
    mean_a, scale_a, bias_a = _load_norm(
        mean_ptr, rstd_ptr, weight_ptr, bias_ptr, segments_per_set, channels, a_cols, in_cols
    )
    mean_b, scale_b, bias_b = _load_norm(
        mean_ptr, rstd_ptr, weight_ptr, bias_ptr, segments_per_set, channels, b_cols, in_cols
    )
    if gate_ptr is not None:
        gate = tl.load(gate_ptr + tl.program_id(2) * channels + a_cols, mask=in_cols, other=0.0).to(tl.float32)
    for start in range(0, count, ROWS):
        r = start + tl.arange(0, ROWS)
        mask = (r < count)[:, None] & in_cols[None, :]
        x_rows = r[:, None] * (channels * 2)
        a = load_noisy(x_ptr, noise_ptr, factor, x_rows + a_cols[None, :], mask, first + r, r < count)
        b = load_noisy(x_ptr, noise_ptr, factor, x_rows + b_cols[None, :], mask, first + r, r < count)
        a = (a - mean_a[None, :]) * scale_a[None, :] + bias_a[None, :]
        b = (b - mean_b[None, :]) * scale_b[None, :] + bias_b[None, :]
        y = a * tl.sigmoid(b)
        if gate_ptr is not None:
            y *= gate[None, :]
        tl.store(y_ptr + r[:, None] * channels + a_cols[None, :], y.to(y_ptr.dtype.element_ty), mask=mask)


@jit
def _glu_gradient(a, b, grad, scale_a, bias_a, scale_b, bias_b):
    """Gradients of the GLU's two inputs; ``a`` and ``b`` are x' minus its mean."""
    sigmoid = tl.sigmoid(b * scale_b[None, :] + bias_b[None, :])
    grad_a = grad * sigmoid
    return grad_a, grad_a * (a * scale_a[None, :] + bias_a[None, :]) * (1.0 - sigmoid)


@jit(unspecialised=("units", "rows", "chunk_rows", "segments_per_set"))
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
    a_cols = tl.program_id(0) * COLS + tl.arange(0, COLS)
    in_cols = a_cols < channels
    b_cols = a_cols + channels
    mean_a, scale_a, bias_a = _load_norm(
        mean_ptr, rstd_ptr, weight_ptr, bias_ptr, segments_per_set, channels, a_cols, in_cols
    )
    mean_b, scale_b, bias_b = _load_norm(
        mean_ptr, rstd_ptr, weight_ptr, bias_ptr, segments_per_set, channels, b_cols, in_cols
    )
    sum_a = tl.zeros((ROWS, COLS), tl.float32)
    dot_a = tl.zeros((ROWS, COLS), tl.float32)
    sum_b = tl.zeros((ROWS, COLS), tl.float32)
    dot_b = tl.zeros((ROWS, COLS), tl.float32)
    for start in range(0, count, ROWS):
        r = start + tl.arange(0, ROWS)
        mask = (r < count)[:, None] & in_cols[None, :]
        x_rows = r[:, None] * (channels * 2)
        a = load_noisy(x_ptr, noise_ptr, factor, x_rows + a_cols[None, :], mask, first + r, r < count)
        b = load_noisy(x_ptr, noise_ptr, factor, x_rows + b_cols[None, :], mask, first + r, r < count)
        a -= mean_a[None, :]
        b -= mean_b[None, :]
        # Zero outside the mask, and so is all that is summed.
        grad = tl.load(grad_ptr + r[:, None] * channels + a_cols[None, :], mask=mask, other=0.0).to(tl.float32)
        grad_a, grad_b = _glu_gradient(a, b, grad, scale_a, bias_a, scale_b, bias_b)
        sum_a += grad_a
        dot_a += grad_a * a
        sum_b += grad_b
        dot_b += grad_b * b
    total_a, total_dot_a = tl.sum(sum_a, axis=0), tl.sum(dot_a, axis=0)
    total_b, total_dot_b = tl.sum(sum_b, axis=0), tl.sum(dot_b, axis=0)
    partial = tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)
    if gate_ptr is not None:
        # sum of g a sigmoid(b), with a = (x' - mean) scale + bias
        gate_sum = total_dot_a * scale_a + total_a * bias_a
        tl.store(partial_gate_ptr + partial * channels + a_cols, gate_sum, mask=in_cols)
        gate = tl.load(gate_ptr + tl.program_id(2) * channels + a_cols, mask=in_cols, other=0.0).to(tl.float32)
        total_a *= gate
        total_dot_a *= gate
        total_b *= gate
        total_dot_b *= gate
    out = partial * channels * 2
    tl.store(partial_sum_ptr + out + a_cols, total_a, mask=in_cols)
    tl.store(partial_dot_ptr + out + a_cols, total_dot_a, mask=in_cols)
    tl.store(partial_sum_ptr + out + b_cols, total_b, mask=in_cols)
    tl.store(partial_dot_ptr + out + b_cols, total_dot_b, mask=in_cols)


@jit(unspecialised=("units", "rows", "chunk_rows", "segments_per_set"))
def _norm_glu_gradient_kernel(
    x_ptr, grad_ptr, noise_ptr, noise_weight_ptr, sigma_ptr, mean_ptr, rstd_ptr, weight_ptr, bias_ptr, gate_ptr,
    mean_grad_ptr, mean_dot_ptr, grad_x_ptr, partial_noise_ptr,
    units, rows, chunk_rows, segments_per_set,
    UNIT: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """dx, and with ``partial_noise_ptr`` each program's sum of dx noise."""
    channels = units * UNIT
    first, count = chunk_rows_of(rows, chunk_rows)
    factor = noise_factor(noise_weight_ptr, sigma_ptr)
    x_ptr += first * channels * 2
    grad_x_ptr += first * channels * 2
    grad_ptr += first * channels
    a_cols = tl.program_id(0) * COLS + tl.arange(0, COLS)
    in_cols = a_cols < channels
    b_cols = a_cols + channels
    mean_a, scale_a, bias_a = _load_norm(
        mean_ptr, rstd_ptr, weight_ptr, bias_ptr, segments_per_set, channels, a_cols, in_cols
    )
    mean_b, scale_b, bias_b = _load_norm(
        mean_ptr, rstd_ptr, weight_ptr, bias_ptr, segments_per_set, channels, b_cols, in_cols
    )
    if mean_grad_ptr is not None:
        statistic = tl.program_id(2) // segments_per_set * channels * 2
        mean_grad_a = tl.load(mean_grad_ptr + statistic + a_cols, mask=in_cols, other=0.0)
        mean_grad_b = tl.load(mean_grad_ptr + statistic + b_cols, mask=in_cols, other=0.0)
        mean_dot_a = tl.load(mean_dot_ptr + statistic + a_cols, mask=in_cols, other=0.0)
        mean_dot_b = tl.load(mean_dot_ptr + statistic + b_cols, mask=in_cols, other=0.0)
    if gate_ptr is not None:
        gate = tl.load(gate_ptr + tl.program_id(2) * channels + a_cols, mask=in_cols, other=0.0).to(tl.float32)
    grad_noise = tl.zeros((ROWS,), tl.float32)
    for start in range(0, count, ROWS):
        r = start + tl.arange(0, ROWS)
        mask = (r < count)[:, None] & in_cols[None, :]
        x_rows = r[:, None] * (channels * 2)
        a = load_noisy(x_ptr, noise_ptr, factor, x_rows + a_cols[None, :], mask, first + r, r < count)
        b = load_noisy(x_ptr, noise_ptr, factor, x_rows + b_cols[None, :], mask, first + r, r < count)
        a -= mean_a[None, :]
        b -= mean_b[None, :]
        grad = tl.load(grad_ptr + r[:, None] * channels + a_cols[None, :], mask=mask, other=0.0).to(tl.float32)
        if gate_ptr is not None:
            grad *= gate[None, :]
        grad_a, grad_b = _glu_gradient(a, b, grad, scale_a, bias_a, scale_b, bias_b)
        if mean_grad_ptr is not None:
            grad_a -= mean_grad_a[None, :] + a * mean_dot_a[None, :]
            grad_b -= mean_grad_b[None, :] + b * mean_dot_b[None, :]
        grad_a *= scale_a[None, :]
        grad_b *= scale_b[None, :]
        tl.store(grad_x_ptr + x_rows + a_cols[None, :], grad_a.to(grad_x_ptr.dtype.element_ty), mask=mask)
        tl.store(grad_x_ptr + x_rows + b_cols[None, :], grad_b.to(grad_x_ptr.dtype.element_ty), mask=mask)
        if partial_noise_ptr is not None:
            noise = tl.load(noise_ptr + first + r, mask=r < count, other=0.0).to(tl.float32)
            grad_noise += noise * tl.sum(grad_a + grad_b, axis=1)
    if partial_noise_ptr is not None:
        program = (tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)) * tl.num_programs(0) + tl.program_id(0)
        tl.store(partial_noise_ptr + program, tl.sum(grad_noise, axis=0))
