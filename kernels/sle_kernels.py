"""Kernels of ``sle``: pooling to 4 x 4 bins and its gradient, swish with the product behind it and their gradients."""

from fastgan_engine.kernels.launch import jit, tl
from fastgan_engine.kernels.tiling import columns_of, load_map


@jit
def _bin_start(index, size):
    return index * size // 4


@jit
def _bin_stop(index, size):
    return ((index + 1) * size + 3) // 4


@jit(unspecialised=("units", "height", "width"))
def _pool4_kernel(
    low_ptr, pooled_ptr, units, height, width,
    UNIT: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """The pixels of one bin; ``pooled_ptr``: [image, bin, channel]."""
    channels = units * UNIT
    image, square = tl.program_id(2) // 16, tl.program_id(2) % 16
    top, left = _bin_start(square // 4, height), _bin_start(square % 4, width)
    bin_width = _bin_stop(square % 4, width) - left
    size = (_bin_stop(square // 4, height) - top) * bin_width
    low_ptr += image.to(tl.int64) * height * width * channels
    cols, in_cols = columns_of(channels, COLS)
    total = tl.zeros((ROWS, COLS), tl.float32)
    for start in range(0, size, ROWS):
        r = start + tl.arange(0, ROWS)
        pixels = (top + r // bin_width) * width + left + r % bin_width
        total += load_map(low_ptr, pixels[:, None] * channels + cols[None, :], (r < size)[:, None] & in_cols[None, :])
    mean = tl.sum(total, axis=0) / size
    tl.store(pooled_ptr + tl.program_id(2) * channels + cols, mean.to(pooled_ptr.dtype.element_ty), mask=in_cols)


@jit
def _cell(index, size, CELLS: tl.constexpr):
    """First and last of the rows whose covering bins are those of cell ``index``: the bins, or where they overlap 7.

    Even ones of 7 lie in one bin alone, odd ones between two. Below 4 rows cells coincide: they write the same values.
    """
    if CELLS == 4:
        return _bin_start(index, size), _bin_stop(index, size)
    own = index // 2
    alone = index % 2 == 0
    start = tl.where(alone, (own * size + 3) // 4, _bin_start(own + 1, size))
    return start, tl.where(alone, _bin_start(own + 1, size), _bin_stop(own, size))


@jit(unspecialised=("units", "height", "width", "chunk_rows"))
def _pool4_gradient_kernel(
    grad_ptr, grad_low_ptr, units, height, width, chunk_rows,
    CELLS: tl.constexpr, UNIT: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """One chunk of the pixels of one cell, all of which have the same gradient."""
    channels = units * UNIT
    chunk, image, cell = tl.program_id(1), tl.program_id(2) // (CELLS * CELLS), tl.program_id(2) % (CELLS * CELLS)
    top, bottom = _cell(cell // CELLS, height, CELLS)
    left, right = _cell(cell % CELLS, width, CELLS)
    cols, in_cols = columns_of(channels, COLS)
    square = tl.arange(0, 16)
    y0, y1 = _bin_start(square // 4, height), _bin_stop(square // 4, height)
    x0, x1 = _bin_start(square % 4, width), _bin_stop(square % 4, width)
    covers = (y0 <= top) & (top < y1) & (x0 <= left) & (left < x1)
    offsets = (image * 16 + square)[:, None] * channels + cols[None, :]
    grad = tl.load(grad_ptr + offsets, mask=covers[:, None] & in_cols[None, :], other=0.0).to(tl.float32)
    grad = tl.sum(grad / ((y1 - y0) * (x1 - x0))[:, None], axis=0)
    grad_low_ptr += image.to(tl.int64) * height * width * channels
    cell_width = tl.maximum(right - left, 1)
    # A cell without rows or columns is empty, also where its stop lies before its start.
    size = tl.where((bottom > top) & (right > left), (bottom - top) * cell_width, 0)
    stop = tl.minimum(size, (chunk + 1) * chunk_rows)
    for start in range(chunk * chunk_rows, stop, ROWS):
        r = start + tl.arange(0, ROWS)
        pixels = (top + r // cell_width) * width + left + r % cell_width
        mask = (r < stop)[:, None] & in_cols[None, :]
        values = tl.broadcast_to(grad[None, :], (ROWS, COLS)).to(grad_low_ptr.dtype.element_ty)
        tl.store(grad_low_ptr + pixels[:, None] * channels + cols[None, :], values, mask=mask)


@jit
def _excite_kernel(h_ptr, weight_ptr, gate_ptr, batch, channels, PADDED: tl.constexpr, BLOCK: tl.constexpr):
    """A block of the channels of W swish(h), for all images: its rows of W are read once."""
    o = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    i = tl.arange(0, PADDED)
    mask = (o < channels)[:, None] & (i < channels)[None, :]
    weight = tl.load(weight_ptr + o[:, None] * channels + i[None, :], mask=mask, other=0.0).to(tl.float32)
    for image in range(batch):
        h = tl.load(h_ptr + image * channels + i, mask=i < channels, other=0.0).to(tl.float32)
        gate = tl.sum(weight * (h * tl.sigmoid(h))[None, :], axis=1)
        tl.store(gate_ptr + image * channels + o, gate.to(gate_ptr.dtype.element_ty), mask=o < channels)


@jit
def _excite_gradient_kernel(
    grad_ptr, h_ptr, weight_ptr, grad_h_ptr, grad_weight_ptr, batch, channels,
    PADDED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A block of h's channels: its gradient for all images and, unless None, its columns of the gradient of W."""
    o = tl.arange(0, PADDED)
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    offsets = o[:, None] * channels + i[None, :]
    mask = (o < channels)[:, None] & (i < channels)[None, :]
    weight = tl.load(weight_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    grad_weight = tl.zeros([PADDED, BLOCK], dtype=tl.float32)
    for image in range(batch):
        grad = tl.load(grad_ptr + image * channels + o, mask=o < channels, other=0.0).to(tl.float32)
        h = tl.load(h_ptr + image * channels + i, mask=i < channels, other=0.0).to(tl.float32)
        sigmoid = tl.sigmoid(h)
        swish = h * sigmoid
        if grad_weight_ptr is not None:
            grad_weight += grad[:, None] * swish[None, :]
        grad_h = tl.sum(weight * grad[:, None], axis=0) * (sigmoid + swish * (1.0 - sigmoid))
        tl.store(grad_h_ptr + image * channels + i, grad_h.to(grad_h_ptr.dtype.element_ty), mask=i < channels)
    if grad_weight_ptr is not None:
        tl.store(grad_weight_ptr + offsets, grad_weight.to(grad_weight_ptr.dtype.element_ty), mask=mask)
