"""The Triton side of ``spectral``: tables of all layers of a network, and the launches over them.

A step is four launches, the same for any number of layers (six where the rows of some layer are not of whole 16 bytes):
partial sums of W^T u by tiles; v, not yet of unit length, and its squared length by chunks; partial sums of W v by
tiles; and one program a layer that adds them up, scales u and v, writes both and sigma. An evaluation leaves out the
first. Normalising is one launch; its gradient a gather of the incoming gradients and two launches.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastgan_engine.kernels.arguments import check
from fastgan_engine.kernels.launch import cdiv, launch
from fastgan_engine.kernels.spectral_kernels import (
    _spectral_dot_kernel,
    _spectral_finish_kernel,
    _spectral_gather_kernel,
    _spectral_grad_kernel,
    _spectral_normalise_kernel,
    _spectral_product_kernel,
)
from fastgan_engine.kernels.tables import address_table, addresses, begins_aligned, split_by_alignment, starts, table

# Tile of W in a matrix-vector product, loaded STEP rows at a time.
TILE, STEP = 128, 32
# Elements of a vector, and of a weight, that one program works on; of a dot product it adds up DOT_STEPS such chunks.
VECTOR, CHUNK, DOT_STEPS = 512, 2048, 16
# Normalised weights and gradients start at multiples of this in their flat buffers: 16 bytes in half precision.
ALIGNMENT = 8


class Matrix(NamedTuple):
    """A weight, its vectors, and how they lie: see ``SpectralLayer``."""

    weight: Tensor
    u: Tensor
    v: Tensor
    transposed: bool
    inputs_last: bool


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
        return table(values, dtype, self.device)

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
        aligned_rows = [begins and col % ALIGNMENT == 0 for begins, col in zip(aligned, cols, strict=True)]
        aligned_sizes = [begins and size % ALIGNMENT == 0 for begins, size in zip(aligned, sizes, strict=True)]
        self.tiles = split_by_alignment(
            aligned_rows,
            [[(index, r, c) for r in range(cdiv(row, TILE)) for c in range(cdiv(col, TILE))]
             for index, (row, col) in enumerate(zip(rows, cols, strict=True))],
            self.device,
        )  # fmt: skip
        self.chunks, self.dot_chunks = (
            split_by_alignment(
                aligned_sizes,
                [[(index, chunk) for chunk in range(cdiv(size, length))] for index, size in enumerate(sizes)],
                self.device,
            )
            for length in (CHUNK, CHUNK * DOT_STEPS)
        )
        dots = starts([cdiv(size, CHUNK * DOT_STEPS) for size in sizes])
        self.dot_start, self.dots = self._table(dots), dots[-1]
        self.v_chunks = self._table([(i, chunk) for i, v in enumerate(v_sizes) for chunk in range(cdiv(v, VECTOR))])
        self.v_chunk_start = self._table(starts([cdiv(v, VECTOR) for v in v_sizes]))
        flat = starts([cdiv(size, ALIGNMENT) * ALIGNMENT for size in sizes])
        self.flat_starts, self.flat_size = flat[:-1], flat[-1]
        self.flat_start = self._table(self.flat_starts, torch.int64)

    def pointers(self) -> _Pointers:
        """Addresses of weights and vectors; looked up again each time, since loading may have moved them."""
        layers = self.layers
        parts = [x.weight for x in layers], [x.u for x in layers], [x.v for x in layers]
        now = [addresses(part) for part in parts]
        if self._pointers is None or self._pointers.addresses != now:
            self._pointers = _Pointers(now, *(address_table(part, self.device) for part in parts))
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
        out, partial = self._empty(self.flat_size), self._empty(self.dots)
        weights = self.pointers().weights
        for aligned, chunks in self.dot_chunks:
            launch(
                _spectral_dot_kernel, (len(chunks),), chunks, self.sizes, self.flat_start, weights, flat, partial,
                self.dot_start, ALIGNED=aligned, CHUNK=CHUNK, STEPS=DOT_STEPS,
            )  # fmt: skip
        for aligned, tiles in self.tiles:
            launch(
                _spectral_grad_kernel, (len(tiles),), tiles, self.rows, self.cols, self.flat_start, flat, out, sigma,
                vectors, self.row_start, self.col_start, partial, self.dot_start,
                ALIGNED=aligned, TILE=TILE, STEP=STEP, VECTOR=VECTOR,
            )  # fmt: skip
        return list(self.views(out))
