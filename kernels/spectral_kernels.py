"""The Triton side of ``spectral``: tables of all layers of a network, and kernels that run over all of them at once.

Every weight is a matrix as it lies in memory, [rows, cols] with adjoining columns: of a convolution the rows are
outputs (u) and the columns inputs and taps (v); of a channels-last transposed convolution the reverse (``transposed``).

A step is four launches, the same for any number of layers (six where the rows of some layer are not of whole 16 bytes):
partial sums of W^T u by tiles; v, not yet of unit length, and its squared length by chunks; partial sums of W v by
tiles; and one program a layer that adds them up, scales u and v, writes both and sigma. An evaluation leaves out the
first. Normalising is one launch; its gradient a gather of the incoming gradients and two launches.

No atomics: partial sums are added in a fixed order.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastgan_engine.kernels.arguments import check
from fastgan_engine.kernels.launch import cdiv, jit, launch, tl
from fastgan_engine.kernels.tables import addresses, begins_aligned, split_by_alignment, starts

# Tile of W in a matrix-vector product, loaded STEP rows at a time.
TILE, STEP = 128, 32
# Elements of a vector, and of a weight, that one program works on.
VECTOR, CHUNK = 512, 4096
# Normalised weights and gradients start at multiples of this in their flat buffers: 16 bytes in half precision.
ALIGNMENT = 8


class Matrix(NamedTuple):
    """A weight, its vectors, and how they lie: see ``SpectralLayer``."""

    weight: Tensor
    u: Tensor
    v: Tensor
    transposed: bool
    inputs_last: bool


@jit
def _spectral_product_kernel(
    tiles_ptr, weights_ptr, rows_ptr, cols_ptr, transposed_ptr, u_ptr, vectors_ptr, v_start_ptr,
    partial_ptr, partial_start_ptr,
    FOR_V: tl.constexpr, ALIGNED: tl.constexpr, TILE: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """Partial sums of one tile of W^T u (FOR_V) or W v."""
    tile = tiles_ptr + tl.program_id(0) * 3
    layer, row_block, col_block = tl.load(tile), tl.load(tile + 1), tl.load(tile + 2)
    rows, cols = tl.load(rows_ptr + layer), tl.load(cols_ptr + layer)
    weight_ptr = tl.load(weights_ptr + layer).to(tl.pointer_type(tl.float32))
    if ALIGNED:
        weight_ptr = tl.multiple_of(weight_ptr, 16)
        cols = tl.multiple_of(cols, 4)
    if FOR_V:
        vector_ptr = tl.load(u_ptr + layer).to(tl.pointer_type(tl.float32))
    else:
        vector_ptr = vectors_ptr + tl.load(v_start_ptr + layer)
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
        source_ptr = tl.load(v_ptr + layer).to(tl.pointer_type(tl.float32))
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
    u_buffer_ptr = tl.load(u_ptr + layer).to(tl.pointer_type(tl.float32))
    v_buffer_ptr = tl.load(v_ptr + layer).to(tl.pointer_type(tl.float32))
    u_copy_ptr = vectors_ptr + tl.load(u_start_ptr + layer)
    v_copy_ptr = vectors_ptr + tl.load(v_start_ptr + layer)
    partial_ptr += tl.load(partial_start_ptr + layer)
    count = tl.load(partial_count_ptr + layer)
    v_scale = 1.0
    if TRAINING:
        first, last = tl.load(chunk_start_ptr + layer), tl.load(chunk_start_ptr + layer + 1)
        squares = tl.zeros([VECTOR], dtype=tl.float32)
        for start in range(first, last, VECTOR):
            index = start + tl.arange(0, VECTOR)
            squares += tl.load(partial_square_ptr + index, mask=index < last, other=0.0)
        v_scale = 1.0 / tl.maximum(tl.sqrt(tl.sum(squares)), eps)
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
            total += product * product
        else:
            u = tl.load(u_buffer_ptr + index, mask=mask, other=0.0)
            tl.store(u_copy_ptr + index, u, mask=mask)
            total += product * u
    sigma = tl.sum(total)
    if TRAINING:
        u_scale = 1.0 / tl.maximum(tl.sqrt(sigma), eps)
        sigma *= u_scale
        for start in range(0, u_size, VECTOR):
            index = start + tl.arange(0, VECTOR)
            mask = index < u_size
            u = _sum_of_partials(partial_ptr, count, u_size, index, mask, VECTOR) * v_scale * u_scale
            tl.store(u_copy_ptr + index, u, mask=mask)
            tl.store(u_buffer_ptr + index, u, mask=mask)
    tl.store(sigma_ptr + layer, sigma)


@jit
def _chunk_of(chunks_ptr, size_ptr, start_ptr, weights_ptr, ALIGNED: tl.constexpr, CHUNK: tl.constexpr):
    """Of this program's chunk of a weight: layer, offsets in it, mask, its pointer, and its start in a flat buffer."""
    layer, chunk = tl.load(chunks_ptr + tl.program_id(0) * 2), tl.load(chunks_ptr + tl.program_id(0) * 2 + 1)
    size = tl.load(size_ptr + layer)
    flat_start = tl.multiple_of(tl.load(start_ptr + layer), 8)
    weight_ptr = tl.load(weights_ptr + layer).to(tl.pointer_type(tl.float32))
    if ALIGNED:
        size = tl.multiple_of(size, 8)
        weight_ptr = tl.multiple_of(weight_ptr, 16)
    index = chunk * CHUNK + tl.arange(0, CHUNK)
    return layer, chunk, index, index < size, weight_ptr, flat_start


@jit
def _spectral_normalise_kernel(
    chunks_ptr, size_ptr, start_ptr, weights_ptr, sigma_ptr, out_ptr, ALIGNED: tl.constexpr, CHUNK: tl.constexpr
):
    layer, _, index, mask, weight_ptr, start = _chunk_of(chunks_ptr, size_ptr, start_ptr, weights_ptr, ALIGNED, CHUNK)
    weight = tl.load(weight_ptr + index, mask=mask, other=0.0) / tl.load(sigma_ptr + layer)
    tl.store(out_ptr + start + index, weight.to(out_ptr.dtype.element_ty), mask=mask)


@jit
def _spectral_dot_kernel(
    chunks_ptr, size_ptr, start_ptr, weights_ptr, grad_ptr, partial_ptr, chunk_start_ptr,
    ALIGNED: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Partial sums of <G, W>."""
    layer, chunk, index, mask, weight_ptr, start = _chunk_of(
        chunks_ptr, size_ptr, start_ptr, weights_ptr, ALIGNED, CHUNK
    )
    weight = tl.load(weight_ptr + index, mask=mask, other=0.0)
    grad = tl.load(grad_ptr + start + index, mask=mask, other=0.0).to(tl.float32)
    tl.store(partial_ptr + tl.load(chunk_start_ptr + layer) + chunk, tl.sum(weight * grad))


@jit
def _spectral_grad_kernel(
    chunks_ptr, size_ptr, start_ptr, weights_ptr, grad_ptr, out_ptr, sigma_ptr, vectors_ptr, row_start_ptr,
    col_start_ptr, cols_ptr, partial_ptr, chunk_start_ptr, ALIGNED: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """(G - <G, W> / sigma u v^T) / sigma."""
    layer, _, index, mask, _, start = _chunk_of(chunks_ptr, size_ptr, start_ptr, weights_ptr, ALIGNED, CHUNK)
    first, last = tl.load(chunk_start_ptr + layer), tl.load(chunk_start_ptr + layer + 1)
    products = tl.zeros([CHUNK], dtype=tl.float32)
    for begin in range(first, last, CHUNK):
        position = begin + tl.arange(0, CHUNK)
        products += tl.load(partial_ptr + position, mask=position < last, other=0.0)
    sigma, cols = tl.load(sigma_ptr + layer), tl.load(cols_ptr + layer)
    along = tl.sum(products) / sigma
    of_row = tl.load(vectors_ptr + tl.load(row_start_ptr + layer) + index // cols, mask=mask, other=0.0)
    of_col = tl.load(vectors_ptr + tl.load(col_start_ptr + layer) + index % cols, mask=mask, other=0.0)
    grad = tl.load(grad_ptr + start + index, mask=mask, other=0.0).to(tl.float32)
    tl.store(out_ptr + start + index, (grad - along * of_row * of_col) / sigma, mask=mask)


@dataclass(frozen=True)
class _Pointers:
    """Addresses of all tensors, on the host to notice a change, and on the device."""

    addresses: list[list[int]]
    weights: Tensor
    u: Tensor
    v: Tensor


class Plan:
    """Tables of the layers of one network on its device, and the launches over them."""

    def __init__(self, layers: Sequence[Matrix]) -> None:
        self.layers = list(layers)
        self.device = layers[0].weight.device
        for index, layer in enumerate(layers):
            dense = not layer.transposed or layer.weight.is_contiguous(memory_format=torch.channels_last)
            check(dense, f"layers[{index}].weight", "a contiguous transposed convolution", "channels-last for Triton")
            check(layer.weight.numel() < 1 << 31, f"layers[{index}].weight", layer.weight.shape, "fewer elements")
        self._pointers: _Pointers | None = None
        self._tables()

    def _table(self, values: Sequence[Any], dtype: torch.dtype = torch.int32) -> Tensor:
        return torch.tensor(values, dtype=dtype, device=self.device)

    def _tables(self) -> None:
        layers = self.layers
        u_sizes, v_sizes = [layer.u.numel() for layer in layers], [layer.v.numel() for layer in layers]
        sizes = [layer.weight.numel() for layer in layers]
        rows = [v if layer.transposed else u for layer, u, v in zip(layers, u_sizes, v_sizes, strict=True)]
        cols = [size // row for size, row in zip(sizes, rows, strict=True)]
        self.rows, self.cols = self._table(rows), self._table(cols)
        self.transposed = self._table([layer.transposed for layer in layers])
        self.u_sizes, self.v_sizes, self.sizes = map(self._table, (u_sizes, v_sizes, sizes))
        # Of an inputs-last weight the channel is the inner index of a column; else columns are as released.
        self.v_inner = self._table([
            layer.weight.shape[1] if layer.inputs_last else v for layer, v in zip(layers, v_sizes, strict=True)
        ])  # fmt: skip
        begins = starts([n for pair in zip(u_sizes, v_sizes, strict=True) for n in pair])
        self.vectors_size = begins[-1]
        u_starts, v_starts = begins[:-1:2], begins[1::2]
        self.u_start, self.v_start = self._table(u_starts), self._table(v_starts)
        pairs = list(zip(layers, u_starts, v_starts, strict=True))
        self.row_start = self._table([v if layer.transposed else u for layer, u, v in pairs])
        self.col_start = self._table([u if layer.transposed else v for layer, u, v in pairs])

        # Partial sums: [blocks, size] of each layer; what v sums over is the side of u, and the reverse.
        u_blocks, v_blocks = [cdiv(v, TILE) for v in v_sizes], [cdiv(u, TILE) for u in u_sizes]
        self.u_count, self.v_count = self._table(u_blocks), self._table(v_blocks)
        u_partials = starts([b * n for b, n in zip(u_blocks, u_sizes, strict=True)])
        v_partials = starts([b * n for b, n in zip(v_blocks, v_sizes, strict=True)])
        self.u_partial_start, self.v_partial_start = self._table(u_partials[:-1]), self._table(v_partials[:-1])
        self.u_partials, self.v_partials = u_partials[-1], v_partials[-1]

        aligned = [begins_aligned(layer.weight) for layer in layers]
        aligned_rows = [begins and col % 4 == 0 for begins, col in zip(aligned, cols, strict=True)]
        aligned_sizes = [begins and size % ALIGNMENT == 0 for begins, size in zip(aligned, sizes, strict=True)]
        self.tiles = split_by_alignment(
            aligned_rows,
            [[(index, r, c) for r in range(cdiv(row, TILE)) for c in range(cdiv(col, TILE))]
             for index, (row, col) in enumerate(zip(rows, cols, strict=True))],
            self.device,
        )  # fmt: skip
        self.chunks = split_by_alignment(
            aligned_sizes,
            [[(index, chunk) for chunk in range(cdiv(size, CHUNK))] for index, size in enumerate(sizes)],
            self.device,
        )
        self.chunk_start = self._table(starts([cdiv(size, CHUNK) for size in sizes]))
        self.v_chunks = self._table([(i, chunk) for i, v in enumerate(v_sizes) for chunk in range(cdiv(v, VECTOR))])
        self.v_chunk_start = self._table(starts([cdiv(v, VECTOR) for v in v_sizes]))
        flat = starts([cdiv(size, ALIGNMENT) * ALIGNMENT for size in sizes])
        self.flat_starts, self.flat_size = flat[:-1], flat[-1]
        self.flat_start = self._table(self.flat_starts, torch.int64)
        self.chunk_count = sum(cdiv(size, CHUNK) for size in sizes)

    def pointers(self) -> _Pointers:
        """Addresses of weights and vectors; looked up again each time, since loading may have moved them."""
        now = [addresses([layer[part] for layer in self.layers]) for part in range(3)]
        if self._pointers is None or self._pointers.addresses != now:
            self._pointers = _Pointers(now, *(self._table(part, torch.int64) for part in now))
        return self._pointers

    def _empty(self, *size: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(size, dtype=dtype, device=self.device)

    def step(self, training: bool, eps: float) -> tuple[Tensor, Tensor]:
        """sigma [L] and the copy of all vectors; in training after one power iteration."""
        p, sigma, vectors = self.pointers(), self._empty(len(self.layers)), self._empty(self.vectors_size)
        partial_v, partial_u = self._empty(self.v_partials), self._empty(self.u_partials)
        partial_square = self._empty(len(self.v_chunks))
        if training:
            self._product(p, vectors, partial_v, self.v_partial_start, for_v=True)
        launch(
            _spectral_gather_kernel, (len(self.v_chunks),), self.v_chunks, p.v, self.v_sizes, self.v_inner,
            self.v_start, vectors, partial_v, self.v_partial_start, self.v_count, partial_square,
            TRAINING=training, VECTOR=VECTOR,
        )  # fmt: skip
        self._product(p, vectors, partial_u, self.u_partial_start, for_v=False)
        launch(
            _spectral_finish_kernel, (len(self.layers),), p.u, p.v, self.u_sizes, self.v_sizes, self.v_inner,
            self.u_start, self.v_start, vectors, sigma, partial_u, self.u_partial_start, self.u_count,
            partial_square, self.v_chunk_start, eps, TRAINING=training, VECTOR=VECTOR,
        )  # fmt: skip
        return sigma, vectors

    def _product(self, p: _Pointers, vectors: Tensor, partial: Tensor, starts: Tensor, *, for_v: bool) -> None:
        for aligned, tiles in self.tiles:
            launch(
                _spectral_product_kernel, (len(tiles),), tiles, p.weights, self.rows, self.cols, self.transposed,
                p.u, vectors, self.v_start, partial, starts,
                FOR_V=for_v, ALIGNED=aligned, TILE=TILE, STEP=STEP,
            )  # fmt: skip

    def views(self, flat: Tensor) -> Iterator[Tensor]:
        """The parts of a flat buffer, laid out as the weights."""
        for layer, start in zip(self.layers, self.flat_starts, strict=True):
            yield flat.as_strided(layer.weight.shape, layer.weight.stride(), start)

    def normalise(self, sigma: Tensor, dtype: torch.dtype) -> list[Tensor]:
        """W / sigma of every layer: parts of one buffer."""
        out = self._empty(self.flat_size, dtype=dtype)
        for aligned, chunks in self.chunks:
            launch(
                _spectral_normalise_kernel, (len(chunks),), chunks, self.sizes, self.flat_start,
                self.pointers().weights, sigma, out, ALIGNED=aligned, CHUNK=CHUNK,
            )  # fmt: skip
        return list(self.views(out))

    def gradients(self, sigma: Tensor, vectors: Tensor, grads: Sequence[Tensor]) -> list[Tensor]:
        """Gradients of all weights, float32, parts of one buffer."""
        flat = self._empty(self.flat_size, dtype=grads[0].dtype)
        torch._foreach_copy_(list(self.views(flat)), list(grads))
        out, partial = self._empty(self.flat_size), self._empty(self.chunk_count)
        weights = self.pointers().weights
        for aligned, chunks in self.chunks:
            launch(
                _spectral_dot_kernel, (len(chunks),), chunks, self.sizes, self.flat_start, weights, flat, partial,
                self.chunk_start, ALIGNED=aligned, CHUNK=CHUNK,
            )  # fmt: skip
        for aligned, chunks in self.chunks:
            launch(
                _spectral_grad_kernel, (len(chunks),), chunks, self.sizes, self.flat_start, weights, flat, out, sigma,
                vectors, self.row_start, self.col_start, self.cols, partial, self.chunk_start,
                ALIGNED=aligned, CHUNK=CHUNK,
            )  # fmt: skip
        return list(self.views(out))
