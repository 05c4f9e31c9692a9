"""Kernels of ``spectral``: each runs over all layers of a network at once, as its tables tell (``spectral_plan``).

Every weight is a matrix as it lies in memory, [rows, cols] with adjoining columns: of a convolution the rows are
outputs (u) and the columns inputs and taps (v); of a channels-last transposed convolution the reverse (``transposed``).

No atomics: partial sums are added in a fixed order.
"""

from fastgan_engine.kernels.launch import jit, tl
from fastgan_engine.kernels.tables import pointer_at
from fastgan_engine.kernels.up_conv_kernels import sum_of


@jit
def _tile_of(tiles_ptr, rows_ptr, cols_ptr, ALIGNED: tl.constexpr):
    """Of this program: its layer, the position of its tile in W, and the size of W."""
    tile = tiles_ptr + tl.program_id(0) * 3
    layer, row_block, col_block = tl.load(tile), tl.load(tile + 1), tl.load(tile + 2)
    rows, cols = tl.load(rows_ptr + layer), tl.load(cols_ptr + layer)
    if ALIGNED:
        cols = tl.multiple_of(cols, 8)
    return layer, row_block, col_block, rows, cols


@jit
def _spectral_product_kernel(
    tiles_ptr, weights_ptr, rows_ptr, cols_ptr, transposed_ptr, u_ptr, vectors_ptr, v_start_ptr,
    partial_ptr, partial_start_ptr,
    FOR_V: tl.constexpr, ALIGNED: tl.constexpr, TILE: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """Partial sums of one tile of W^T u (FOR_V) or W v."""
    layer, row_block, col_block, rows, cols = _tile_of(tiles_ptr, rows_ptr, cols_ptr, ALIGNED)
    weight_ptr = pointer_at(weights_ptr, layer, tl.float32, ALIGNED)
    vector_ptr = pointer_at(u_ptr, layer, tl.float32, False) if FOR_V else vectors_ptr + tl.load(v_start_ptr + layer)
    partial_ptr += tl.load(partial_start_ptr + layer)
    col = col_block * TILE + tl.arange(0, TILE)
    in_cols = col < cols
    if (tl.load(transposed_ptr + layer) != 0) == FOR_V:
        x = tl.load(vector_ptr + col, mask=in_cols, other=0.0)
        for start in range(0, TILE, STEP):
            row = row_block * TILE + start + tl.arange(0, STEP)
            mask = (row < rows)[:, None] & in_cols[None, :]
            weight = tl.load(weight_ptr + row.to(tl.int64)[:, None] * cols + col[None, :], mask=mask, other=0.0)
            tl.store(partial_ptr + col_block * rows + row, tl.sum(weight * x[None, :], axis=1), mask=row < rows)
    else:
        total = tl.zeros([STEP, TILE], dtype=tl.float32)
        for start in range(0, TILE, STEP):
            row = row_block * TILE + start + tl.arange(0, STEP)
            mask = (row < rows)[:, None] & in_cols[None, :]
            weight = tl.load(weight_ptr + row.to(tl.int64)[:, None] * cols + col[None, :], mask=mask, other=0.0)
            total += weight * tl.load(vector_ptr + row, mask=row < rows, other=0.0)[:, None]
        tl.store(partial_ptr + row_block * cols + col, tl.sum(total, axis=0), mask=in_cols)


@jit
def _spectral_gather_kernel(
    chunks_ptr, v_ptr, v_size_ptr, v_inner_ptr, v_start_ptr, vectors_ptr,
    partial_ptr, partial_start_ptr, partial_count_ptr, partial_square_ptr,
    TRAINING: tl.constexpr, VECTOR: tl.constexpr,
):  # fmt: skip
    """A chunk of v in memory order: W^T u with the square of its length, or the buffer as it is."""
    layer, chunk = tl.load(chunks_ptr + tl.program_id(0) * 2), tl.load(chunks_ptr + tl.program_id(0) * 2 + 1)
    size = tl.load(v_size_ptr + layer)
    index = chunk * VECTOR + tl.arange(0, VECTOR)
    mask = index < size
    v = tl.zeros([VECTOR], dtype=tl.float32)
    if TRAINING:
        partial_ptr += tl.load(partial_start_ptr + layer)
        for block in range(tl.load(partial_count_ptr + layer)):
            v += tl.load(partial_ptr + block * size + index, mask=mask, other=0.0)
        tl.store(partial_square_ptr + tl.program_id(0), tl.sum(v * v))
    else:
        source_ptr = pointer_at(v_ptr, layer, tl.float32, False)
        v = tl.load(source_ptr + _released(index, size, tl.load(v_inner_ptr + layer)), mask=mask, other=0.0)
    tl.store(vectors_ptr + tl.load(v_start_ptr + layer) + index, v, mask=mask)


@jit
def _released(index, size, inner):
    """Where the element of v that is at ``index`` in memory order is in the released order."""
    return index % inner * (size // inner) + index // inner


@jit
def _sum_of_partials(partial_ptr, count, size, index, mask, VECTOR: tl.constexpr):
    total = tl.zeros([VECTOR], dtype=tl.float32)
    for block in range(count):
        total += tl.load(partial_ptr + block * size + index, mask=mask, other=0.0)
    return total


@jit
def _spectral_finish_kernel(
    u_ptr, v_ptr, u_size_ptr, v_size_ptr, v_inner_ptr, u_start_ptr, v_start_ptr, vectors_ptr, sigma_ptr,
    partial_ptr, partial_start_ptr, partial_count_ptr, partial_square_ptr, chunk_start_ptr, eps,
    TRAINING: tl.constexpr, VECTOR: tl.constexpr,
):  # fmt: skip
    """One layer's sigma; in training u and v of unit length, into the buffers and the copy of them."""
    layer = tl.program_id(0)
    u_size, v_size = tl.load(u_size_ptr + layer), tl.load(v_size_ptr + layer)
    u_buffer_ptr = pointer_at(u_ptr, layer, tl.float32, False)
    v_buffer_ptr = pointer_at(v_ptr, layer, tl.float32, False)
    u_copy_ptr = vectors_ptr + tl.load(u_start_ptr + layer)
    v_copy_ptr = vectors_ptr + tl.load(v_start_ptr + layer)
    partial_ptr += tl.load(partial_start_ptr + layer)
    count = tl.load(partial_count_ptr + layer)
    v_scale = 1.0
    if TRAINING:
        first, last = tl.load(chunk_start_ptr + layer), tl.load(chunk_start_ptr + layer + 1)
        v_scale = 1.0 / tl.maximum(tl.sqrt(sum_of(partial_square_ptr, first, last, VECTOR)), eps)
        inner = tl.load(v_inner_ptr + layer)
        for start in range(0, v_size, VECTOR):
            index = start + tl.arange(0, VECTOR)
            v = tl.load(v_copy_ptr + index, mask=index < v_size, other=0.0) * v_scale
            tl.store(v_copy_ptr + index, v, mask=index < v_size)
            tl.store(v_buffer_ptr + _released(index, v_size, inner), v, mask=index < v_size)

    # Training: the square of |W v|; evaluation: u . W v.
    total = tl.zeros([VECTOR], dtype=tl.float32)
    for start in range(0, u_size, VECTOR):
        index = start + tl.arange(0, VECTOR)
        mask = index < u_size
        product = _sum_of_partials(partial_ptr, count, u_size, index, mask, VECTOR) * v_scale
        if TRAINING:
            tl.store(u_copy_ptr + index, product, mask=mask)
            total += product * product
        else:
            u = tl.load(u_buffer_ptr + index, mask=mask, other=0.0)
            tl.store(u_copy_ptr + index, u, mask=mask)
            total += product * u
    sigma = tl.sum(total)
    if TRAINING:
        u_scale = 1.0 / tl.maximum(tl.sqrt(sigma), eps)
        sigma *= u_scale
        # What other threads of this program have just stored is read back.
        tl.debug_barrier()
        for start in range(0, u_size, VECTOR):
            index = start + tl.arange(0, VECTOR)
            mask = index < u_size
            u = tl.load(u_copy_ptr + index, mask=mask, other=0.0) * u_scale
            tl.store(u_copy_ptr + index, u, mask=mask)
            tl.store(u_buffer_ptr + index, u, mask=mask)
    tl.store(sigma_ptr + layer, sigma)


@jit
def _chunk_of(chunks_ptr, size_ptr, weights_ptr, ALIGNED: tl.constexpr):
    """Of this program: its layer and chunk, the layer's size and the weight's pointer."""
    layer, chunk = tl.load(chunks_ptr + tl.program_id(0) * 2), tl.load(chunks_ptr + tl.program_id(0) * 2 + 1)
    size = tl.load(size_ptr + layer)
    if ALIGNED:
        size = tl.multiple_of(size, 8)
    return layer, chunk, size, pointer_at(weights_ptr, layer, tl.float32, ALIGNED)


@jit
def _spectral_normalise_kernel(
    chunks_ptr, size_ptr, start_ptr, weights_ptr, sigma_ptr, out_ptr, ALIGNED: tl.constexpr, CHUNK: tl.constexpr
):
    layer, chunk, size, weight_ptr = _chunk_of(chunks_ptr, size_ptr, weights_ptr, ALIGNED)
    out_ptr += tl.multiple_of(tl.load(start_ptr + layer), 8)
    index = chunk * CHUNK + tl.arange(0, CHUNK)
    weight = tl.load(weight_ptr + index, mask=index < size, other=0.0) / tl.load(sigma_ptr + layer)
    tl.store(out_ptr + index, weight.to(out_ptr.dtype.element_ty), mask=index < size)


@jit
def _spectral_dot_kernel(
    chunks_ptr, size_ptr, weights_ptr, grads_ptr, partial_ptr, partial_start_ptr,
    GRAD: tl.constexpr, ALIGNED: tl.constexpr, CHUNK: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """Partial sums of <G, W>."""
    layer, chunk, size, weight_ptr = _chunk_of(chunks_ptr, size_ptr, weights_ptr, ALIGNED)
    grad_ptr = pointer_at(grads_ptr, layer, GRAD, ALIGNED)
    total = tl.zeros([CHUNK], dtype=tl.float32)
    for step in range(STEPS):
        index = (chunk * STEPS + step) * CHUNK + tl.arange(0, CHUNK)
        weight = tl.load(weight_ptr + index, mask=index < size, other=0.0)
        total += weight * tl.load(grad_ptr + index, mask=index < size, other=0.0).to(tl.float32)
    tl.store(partial_ptr + tl.load(partial_start_ptr + layer) + chunk, tl.sum(total))


@jit
def _spectral_grad_kernel(
    tiles_ptr, rows_ptr, cols_ptr, start_ptr, grads_ptr, out_ptr, sigma_ptr, vectors_ptr, row_start_ptr, col_start_ptr,
    partial_ptr, partial_start_ptr,
    GRAD: tl.constexpr, ALIGNED: tl.constexpr, TILE: tl.constexpr, STEP: tl.constexpr, VECTOR: tl.constexpr,
):  # fmt: skip
    """One tile of (G - <G, W> / sigma u v^T) / sigma."""
    layer, row_block, col_block, rows, cols = _tile_of(tiles_ptr, rows_ptr, cols_ptr, ALIGNED)
    product = sum_of(partial_ptr, tl.load(partial_start_ptr + layer), tl.load(partial_start_ptr + layer + 1), VECTOR)
    sigma = tl.load(sigma_ptr + layer)
    grad_ptr = pointer_at(grads_ptr, layer, GRAD, ALIGNED)
    out_ptr += tl.multiple_of(tl.load(start_ptr + layer), 8)
    col = col_block * TILE + tl.arange(0, TILE)
    in_cols = col < cols
    of_col = tl.load(vectors_ptr + tl.load(col_start_ptr + layer) + col, mask=in_cols, other=0.0)
    of_col *= product / sigma
    vectors_ptr += tl.load(row_start_ptr + layer)
    for begin in range(0, TILE, STEP):
        row = row_block * TILE + begin + tl.arange(0, STEP)
        mask = (row < rows)[:, None] & in_cols[None, :]
        of_row = tl.load(vectors_ptr + row, mask=row < rows, other=0.0)
        index = row.to(tl.int64)[:, None] * cols + col[None, :]
        grad = tl.load(grad_ptr + index, mask=mask, other=0.0).to(tl.float32)
        tl.store(out_ptr + index, (grad - of_row[:, None] * of_col[None, :]) / sigma, mask=mask)
