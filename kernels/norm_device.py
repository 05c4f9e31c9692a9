"""What the kernels of the fused norms have in common: device functions, inlined into each of them.

A program works on one chunk of one block of channels (``tiling``). It finds the results of the pass before as partial
ones, a row of channels for each chunk of a set of statistics, and combines them itself: that costs a few per cent more
bytes and saves a launch. It reads them in small tiles, which cost few registers. What is wanted of the combined results
later, and the running statistics, the first program of each column of programs writes.
"""

from fastgan_engine.kernels.launch import jit, tl

# Integers of the norms' kernels for whose values they are not compiled anew.
SIZES = (
    "units", "rows", "chunk_rows", "width", "segments_per_set", "sets", "set_chunks", "set_chunk_rows", "set_rows",
)  # fmt: skip


@jit
def is_first():
    """Whether this is the first program of its column."""
    return (tl.program_id(1) == 0) & (tl.program_id(2) == 0)


@jit
def load_row(ptr, row, channels, cols, in_cols):
    """Some channels of a row of a small table, in float32."""
    return tl.load(ptr + row * channels + cols, mask=in_cols, other=0.0).to(tl.float32)


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
def sum_partials(partial_ptr, index, partials, channels, cols, in_cols, COLS: tl.constexpr):
    """Sum of the ``index``-th ``partials`` rows of [rows, channels]."""
    READ: tl.constexpr = 1024 // COLS
    total = tl.zeros((READ, COLS), tl.float32)
    for start in range(0, partials, READ):
        j = start + tl.arange(0, READ)
        mask = (j < partials)[:, None] & in_cols[None, :]
        total += tl.load(partial_ptr + (index * partials + j)[:, None] * channels + cols[None, :], mask=mask, other=0.0)
    return tl.sum(total, axis=0)


@jit
def merge_statistics(
    partial_mean_ptr, partial_m2_ptr, index, channels, cols, in_cols, chunks, chunk_rows, rows,
    COLS: tl.constexpr,
):  # fmt: skip
    """Mean and biased variance of set ``index`` from those of its chunks (``norm_stats``)."""
    pivot = load_row(partial_mean_ptr, index * chunks, channels, cols, in_cols)
    READ: tl.constexpr = 1024 // COLS
    total = tl.zeros((READ, COLS), tl.float32)
    squares = tl.zeros((READ, COLS), tl.float32)
    for start in range(0, chunks, READ):
        j = start + tl.arange(0, READ)
        mask = (j < chunks)[:, None] & in_cols[None, :]
        offsets = (index * chunks + j)[:, None] * channels + cols[None, :]
        n = tl.minimum(chunk_rows, rows - j * chunk_rows)[:, None] * 1.0
        d = tl.where(mask, tl.load(partial_mean_ptr + offsets, mask=mask, other=0.0) - pivot[None, :], 0.0)
        total += n * d
        squares += n * d * d + tl.load(partial_m2_ptr + offsets, mask=mask, other=0.0)
    shift = tl.sum(total, axis=0) / rows
    return pivot + shift, tl.maximum(tl.sum(squares, axis=0) / rows - shift * shift, 0.0)


@jit
def _update_running(
    partial_mean_ptr, partial_m2_ptr, running_mean_ptr, running_var_ptr, mean_ptr, rstd_ptr, sigma,
    channels, cols, in_cols, sets, chunks, chunk_rows, rows, momentum, eps,
    COLS: tl.constexpr,
):  # fmt: skip
    """One set of statistics after another, as if the groups of the batch were forwarded in turn."""
    running_mean = load_row(running_mean_ptr, 0, channels, cols, in_cols)
    running_var = load_row(running_var_ptr, 0, channels, cols, in_cols)
    count = rows * 1.0
    for index in range(sets):
        mean, var = merge_statistics(
            partial_mean_ptr, partial_m2_ptr, index, channels, cols, in_cols, chunks, chunk_rows, rows, COLS
        )
        running_mean += momentum * (mean / sigma - running_mean)
        running_var += momentum * (var / (sigma * sigma) * (count / (count - 1.0)) - running_var)
        tl.store(mean_ptr + index * channels + cols, mean, mask=in_cols)
        tl.store(rstd_ptr + index * channels + cols, 1.0 / tl.sqrt(var + eps * sigma * sigma), mask=in_cols)
    tl.store(running_mean_ptr + cols, running_mean, mask=in_cols)
    tl.store(running_var_ptr + cols, running_var, mask=in_cols)


@jit
def norm_of_batch(
    partial_mean_ptr, partial_m2_ptr, running_mean_ptr, running_var_ptr, sigma_ptr, mean_ptr, rstd_ptr,
    weight_ptr, bias_ptr, index, channels, cols, in_cols, sets, chunks, chunk_rows, rows, momentum, eps,
    COLS: tl.constexpr,
):  # fmt: skip
    """Mean, 1 / sqrt(var + eps) * weight, and bias of some channels in set ``index``, in the forward pass.

    From the batch's statistics, or in eval mode (``partial_mean_ptr`` is None) from the running ones, which are of
    x / sigma. The first program of a column keeps mean and 1 / sqrt(var + eps) for the backward pass.
    """
    sigma = 1.0
    if sigma_ptr is not None:
        sigma = tl.load(sigma_ptr)
    if partial_mean_ptr is not None:
        mean, var = merge_statistics(
            partial_mean_ptr, partial_m2_ptr, index, channels, cols, in_cols, chunks, chunk_rows, rows, COLS
        )
        rstd = 1.0 / tl.sqrt(var + eps * sigma * sigma)
        if is_first():
            _update_running(
                partial_mean_ptr, partial_m2_ptr, running_mean_ptr, running_var_ptr, mean_ptr, rstd_ptr, sigma,
                channels, cols, in_cols, sets, chunks, chunk_rows, rows, momentum, eps, COLS,
            )  # fmt: skip
    else:
        mean = load_row(running_mean_ptr, 0, channels, cols, in_cols) * sigma
        rstd = 1.0 / (tl.sqrt(load_row(running_var_ptr, 0, channels, cols, in_cols) + eps) * sigma)
        if is_first():
            tl.store(mean_ptr + cols, mean, mask=in_cols)
            tl.store(rstd_ptr + cols, rstd, mask=in_cols)
    scale = rstd * load_row(weight_ptr, 0, channels, cols, in_cols)
    return mean, scale, load_row(bias_ptr, 0, channels, cols, in_cols)


@jit
def saved_norm(mean_ptr, rstd_ptr, weight_ptr, bias_ptr, index, channels, cols, in_cols):
    """What ``norm_of_batch`` gave, in the backward pass."""
    mean = load_row(mean_ptr, index, channels, cols, in_cols)
    scale = load_row(rstd_ptr, index, channels, cols, in_cols) * load_row(weight_ptr, 0, channels, cols, in_cols)
    return mean, scale, load_row(bias_ptr, 0, channels, cols, in_cols)


@jit
def _store_parameter_gradients(
    partial_sum_ptr, partial_dot_ptr, rstd_ptr, grad_weight_ptr, grad_bias_ptr,
    channels, cols, in_cols, sets, partials,
    COLS: tl.constexpr,
):  # fmt: skip
    if is_first():
        grad_weight = tl.zeros((COLS,), tl.float32)
        grad_bias = tl.zeros((COLS,), tl.float32)
        for index in range(sets):
            dot = sum_partials(partial_dot_ptr, index, partials, channels, cols, in_cols, COLS)
            grad_weight += dot * load_row(rstd_ptr, index, channels, cols, in_cols)
            grad_bias += sum_partials(partial_sum_ptr, index, partials, channels, cols, in_cols, COLS)
        tl.store(grad_weight_ptr + cols, grad_weight, mask=in_cols)
        tl.store(grad_bias_ptr + cols, grad_bias, mask=in_cols)


@jit
def gradient_means(
    partial_sum_ptr, partial_dot_ptr, rstd_ptr, grad_weight_ptr, grad_bias_ptr,
    index, channels, cols, in_cols, sets, partials, count,
    COLS: tl.constexpr,
):  # fmt: skip
    """Means of dz and of dz (x - mean) / (var + eps) in set ``index``, from a set's sums of dz and dz (x - mean).

    The first program of a column writes the gradients of the norm's weight and bias, which are sums over all sets.
    """
    if grad_weight_ptr is not None:
        _store_parameter_gradients(
            partial_sum_ptr, partial_dot_ptr, rstd_ptr, grad_weight_ptr, grad_bias_ptr,
            channels, cols, in_cols, sets, partials, COLS,
        )  # fmt: skip
    rstd = load_row(rstd_ptr, index, channels, cols, in_cols)
    mean_grad = sum_partials(partial_sum_ptr, index, partials, channels, cols, in_cols, COLS) / count
    mean_dot = sum_partials(partial_dot_ptr, index, partials, channels, cols, in_cols, COLS) / count
    return mean_grad, mean_dot * rstd * rstd


@jit
def store_gate_gradient(partial_gate_ptr, grad_gate_ptr, channels, cols, in_cols, COLS: tl.constexpr):
    """An image's gradient of the gate's logits, written by the first program of the image's chunks."""
    if tl.program_id(1) == 0:
        image, chunks = tl.program_id(2), tl.num_programs(1)
        gradient = sum_partials(partial_gate_ptr, image, chunks, channels, cols, in_cols, COLS)
        gradient = gradient.to(grad_gate_ptr.dtype.element_ty)
        tl.store(grad_gate_ptr + image * channels + cols, gradient, mask=in_cols)
