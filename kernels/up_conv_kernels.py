"""Kernels of ``spectral`` for up-convolutions that run as transposed ones (``up_conv``), a network's all at once.

A program works on a tile of output and input channels of one layer, as the tables of ``spectral_plan`` tell: weights
are channels-last [O, 3, 3, I], kernels channels-last [I, 4, 4, O]. The sums over taps are of the same pass as the
division by sigma forward, and as either pass of its gradient.
"""

from fastgan_engine.kernels.launch import jit, tl
from fastgan_engine.kernels.tables import pointer_at


@jit
def sum_of(partial_ptr, first, last, VECTOR: tl.constexpr):
    """Sum of the partial results from ``first`` to before ``last``."""
    total = tl.zeros([VECTOR], dtype=tl.float32)
    for start in range(first, last, VECTOR):
        index = start + tl.arange(0, VECTOR)
        total += tl.load(partial_ptr + index, mask=index < last, other=0.0)
    return tl.sum(total)


@jit
def _tile_of(tiles_ptr, outputs_ptr, inputs_ptr, ALIGNED: tl.constexpr, TILE: tl.constexpr):
    """Of this program: its layer, numbers of output and input channels, and its own ones as a column and as a row."""
    tile = tiles_ptr + tl.program_id(0) * 3
    layer = tl.load(tile)
    outputs, inputs = tl.load(outputs_ptr + layer), tl.load(inputs_ptr + layer)
    if ALIGNED:
        outputs, inputs = tl.multiple_of(outputs, 8), tl.multiple_of(inputs, 8)
    o = tl.load(tile + 1) * TILE + tl.arange(0, TILE)
    i = tl.load(tile + 2) * TILE + tl.arange(0, TILE)
    return layer, outputs, inputs, o[:, None], i[None, :]


@jit
def _weight_at(weights_ptr, layer, inputs, o, i, ALIGNED: tl.constexpr):
    """Where the first taps of these channels of a layer's weight lie."""
    return pointer_at(weights_ptr, layer, tl.float32, ALIGNED) + o.to(tl.int64) * (9 * inputs) + i


@jit
def _load_tap(pointer, mask):
    return tl.load(pointer, mask=mask, other=0.0).to(tl.float32)


@jit
def _load_spread(pointer, stride, sigma, mask):
    """Three normalised taps along one axis as four: w2, w1 + w2, w0 + w1, w0."""
    w0 = _load_tap(pointer, mask) / sigma
    w1 = _load_tap(pointer + stride, mask) / sigma
    w2 = _load_tap(pointer + 2 * stride, mask) / sigma
    return w2, w1 + w2, w0 + w1, w0


@jit
def _load_collected(pointer, stride, mask):
    """Four taps along one axis as three: k2 + k3, k1 + k2, k0 + k1."""
    k0, k1 = _load_tap(pointer, mask), _load_tap(pointer + stride, mask)
    k2, k3 = _load_tap(pointer + 2 * stride, mask), _load_tap(pointer + 3 * stride, mask)
    return k2 + k3, k1 + k2, k0 + k1


@jit
def _store_spread(pointer, stride, mask, w0, w1, w2):
    dtype: tl.constexpr = pointer.dtype.element_ty
    tl.store(pointer, w2.to(dtype), mask=mask)
    tl.store(pointer + stride, (w1 + w2).to(dtype), mask=mask)
    tl.store(pointer + 2 * stride, (w0 + w1).to(dtype), mask=mask)
    tl.store(pointer + 3 * stride, w0.to(dtype), mask=mask)


@jit
def _up_conv_assemble_kernel(
    tiles_ptr, outputs_ptr, inputs_ptr, weights_ptr, sigma_ptr, start_ptr, out_ptr,
    ALIGNED: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Divides by sigma, and spreads the taps of each row, then of each column."""
    layer, outputs, inputs, o, i = _tile_of(tiles_ptr, outputs_ptr, inputs_ptr, ALIGNED, TILE)
    mask = (o < outputs) & (i < inputs)
    sigma = tl.load(sigma_ptr + layer)
    row_ptr = _weight_at(weights_ptr, layer, inputs, o, i, ALIGNED)
    a0, a1, a2, a3 = _load_spread(row_ptr, inputs, sigma, mask)
    b0, b1, b2, b3 = _load_spread(row_ptr + 3 * inputs, inputs, sigma, mask)
    c0, c1, c2, c3 = _load_spread(row_ptr + 6 * inputs, inputs, sigma, mask)
    column_ptr = out_ptr + tl.multiple_of(tl.load(start_ptr + layer), 8) + i.to(tl.int64) * (16 * outputs) + o
    _store_spread(column_ptr, 4 * outputs, mask, a0, b0, c0)
    _store_spread(column_ptr + outputs, 4 * outputs, mask, a1, b1, c1)
    _store_spread(column_ptr + 2 * outputs, 4 * outputs, mask, a2, b2, c2)
    _store_spread(column_ptr + 3 * outputs, 4 * outputs, mask, a3, b3, c3)


@jit
def _collected(k0, k1, k2, k3):
    return k2 + k3, k1 + k2, k0 + k1


@jit
def _load_gradient(grads_ptr, layer, outputs, inputs, o, i, mask, GRAD: tl.constexpr, ALIGNED: tl.constexpr):
    """Gradients of the nine taps of a weight from those of its kernel: collects each row's, then each column's."""
    row_ptr = pointer_at(grads_ptr, layer, GRAD, ALIGNED) + i.to(tl.int64) * (16 * outputs) + o
    a0, a1, a2 = _load_collected(row_ptr, outputs, mask)
    b0, b1, b2 = _load_collected(row_ptr + 4 * outputs, outputs, mask)
    c0, c1, c2 = _load_collected(row_ptr + 8 * outputs, outputs, mask)
    d0, d1, d2 = _load_collected(row_ptr + 12 * outputs, outputs, mask)
    g0, g3, g6 = _collected(a0, b0, c0, d0)
    g1, g4, g7 = _collected(a1, b1, c1, d1)
    g2, g5, g8 = _collected(a2, b2, c2, d2)
    return g0, g1, g2, g3, g4, g5, g6, g7, g8


@jit
def _up_conv_dot_kernel(
    tiles_ptr, outputs_ptr, inputs_ptr, weights_ptr, grads_ptr, partial_ptr, partial_start_ptr,
    GRAD: tl.constexpr, ALIGNED: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Partial sum of <G, W>, with G the gradient of W / sigma."""
    layer, outputs, inputs, o, i = _tile_of(tiles_ptr, outputs_ptr, inputs_ptr, ALIGNED, TILE)
    mask = (o < outputs) & (i < inputs)
    gradient = _load_gradient(grads_ptr, layer, outputs, inputs, o, i, mask, GRAD, ALIGNED)
    weight_ptr = _weight_at(weights_ptr, layer, inputs, o, i, ALIGNED)
    total = tl.zeros([TILE, TILE], dtype=tl.float32)
    for tap in tl.static_range(9):
        total += gradient[tap] * _load_tap(weight_ptr + tap * inputs, mask)
    columns = (inputs + TILE - 1) // TILE
    tile = tiles_ptr + tl.program_id(0) * 3
    position = tl.load(tile + 1) * columns + tl.load(tile + 2)
    tl.store(partial_ptr + tl.load(partial_start_ptr + layer) + position, tl.sum(tl.sum(total, axis=1), axis=0))


@jit
def _up_conv_grad_kernel(
    tiles_ptr, outputs_ptr, inputs_ptr, start_ptr, grads_ptr, out_ptr, sigma_ptr, vectors_ptr, u_start_ptr, v_start_ptr,
    partial_ptr, partial_start_ptr,
    GRAD: tl.constexpr, ALIGNED: tl.constexpr, TILE: tl.constexpr, VECTOR: tl.constexpr,
):  # fmt: skip
    """One tile of (G - <G, W> / sigma u v^T) / sigma."""
    layer, outputs, inputs, o, i = _tile_of(tiles_ptr, outputs_ptr, inputs_ptr, ALIGNED, TILE)
    mask = (o < outputs) & (i < inputs)
    sigma = tl.load(sigma_ptr + layer)
    product = sum_of(partial_ptr, tl.load(partial_start_ptr + layer), tl.load(partial_start_ptr + layer + 1), VECTOR)
    u = tl.load(vectors_ptr + tl.load(u_start_ptr + layer) + o, mask=o < outputs, other=0.0) * (product / sigma)
    v_ptr = vectors_ptr + tl.load(v_start_ptr + layer) + i
    gradient = _load_gradient(grads_ptr, layer, outputs, inputs, o, i, mask, GRAD, ALIGNED)
    out_ptr += tl.multiple_of(tl.load(start_ptr + layer), 8) + o.to(tl.int64) * (9 * inputs) + i
    for tap in tl.static_range(9):
        v = tl.load(v_ptr + tap * inputs, mask=i < inputs, other=0.0)
        tl.store(out_ptr + tap * inputs, (gradient[tap] - u * v) / sigma, mask=mask)
