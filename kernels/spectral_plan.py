"""The Triton side of ``spectral``: tables of all layers of a network, and the launches over them.

A step is four launches, the same for any number of layers (six where the rows of some layer are not of whole 16 bytes):
partial sums of W^T u by tiles; v, not yet of unit length, and its squared length by chunks; partial sums of W v by
tiles; and one program a layer that adds them up, scales u and v, writes both and sigma. An evaluation leaves out the
first. Normalising is one launch and its gradient two, which find the incoming gradients where autograd has put them;
up-convolutions (``up_conv_kernels``) take one more each way.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastgan_engine.kernels.arguments import check
from fastgan_engine.kernels.launch import cdiv, launch, triton_type
from fastgan_engine.kernels.spectral_kernels import (
    _spectral_dot_kernel,
    _spectral_finish_kernel,
    _spectral_gather_kernel,
    _spectral_grad_kernel,
    _spectral_normalise_kernel,
    _spectral_product_kernel,
)
from fastgan_engine.kernels.tables import (
    MovingAddresses,
    address_table,
    addresses,
    begins_aligned,
    same_strides,
    split_by_alignment,
    starts,
    table,
)
from fastgan_engine.kernels.up_conv import KERNEL_TAPS
from fastgan_engine.kernels.up_conv_kernels import (
    _up_conv_assemble_kernel,
    _up_conv_dot_kernel,
    _up_conv_grad_kernel,
)

# Tile of W in a matrix-vector product, loaded STEP rows at a time.
TILE, STEP = 128, 32
# Elements of a vector, and of a weight, that one program works on; of a dot product it adds up DOT_STEPS such chunks.
VECTOR, CHUNK, DOT_STEPS = 512, 2048, 16
# Side of a tile of output and input channels of an up-convolution.
CHANNELS = 32
# Normalised weights and gradients start at multiples of this in their flat buffers: 16 bytes in half precision.
ALIGNMENT = 8


# Of each layer, what each of its programs works on: the layer's index, then a position.
Programs = Sequence[Sequence[tuple[int, ...]]]
# Shape and strides.
Layout = tuple[tuple[int, ...], tuple[int, ...]]


class Matrix(NamedTuple):
    """A weight, its vectors, and how they lie: see ``SpectralLayer``."""

    weight: Tensor
    u: Tensor
    v: Tensor
    transposed: bool
    inputs_last: bool
    upsampled: bool = False

    @property
    def layout(self) -> Layout:
        return tuple(self.weight.shape), self.weight.stride()

    @property
    def made(self) -> Layout:
        """Of what is made of the weight: of an up-convolution the kernel of the transposed one, channels-last."""
        if not self.upsampled:
            return self.layout
        outputs, inputs = self.weight.shape[:2]
        taps = KERNEL_TAPS
        return (inputs, outputs, taps, taps), (taps * taps * outputs, 1, taps * outputs, outputs)


class Flat:
    """How a buffer holds a tensor a layer, each at a multiple of 16 bytes."""

    def __init__(self, layouts: Sequence[Layout]) -> None:
        *self.starts, self.size = starts([cdiv(math.prod(sizes), ALIGNMENT) * ALIGNMENT for sizes, _ in layouts])
        self.layouts = list(layouts)

    def views(self, buffer: Tensor) -> list[Tensor]:
        """The tensors."""
        return [buffer.as_strided(*layout, start) for layout, start in zip(self.layouts, self.starts, strict=True)]


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
            swapped = layer.transposed or layer.upsampled
            dense = not swapped or layer.weight.is_contiguous(memory_format=torch.channels_last)
            kind = "an up-convolution" if layer.upsampled else "a transposed convolution"
            check(dense, f"layers[{index}].weight", f"{kind} that is contiguous", "channels-last for Triton")
            check(layer.weight.numel() < 1 << 31, f"layers[{index}].weight", layer.weight.shape, "fewer elements")
        self._pointers: _Pointers | None = None
        self._grads_at = MovingAddresses(self.device)
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

        self.v_chunks = self._table([(i, chunk) for i, v in enumerate(v_sizes) for chunk in range(cdiv(v, VECTOR))])
        self.v_chunk_start = self._table(starts([cdiv(v, VECTOR) for v in v_sizes]))
        self.made, self.grads = Flat([layer.made for layer in layers]), Flat([layer.layout for layer in layers])
        self.made_start, self.grad_start = (self._table(flat.starts, torch.int64) for flat in (self.made, self.grads))
        self._programs(rows, cols)

    def _programs(self, rows: Sequence[int], cols: Sequence[int]) -> None:
        """Which program works on what: of the matrices [rows, cols] tiles and chunks, of up-convolutions channels."""
        weights = [layer.weight for layer in self.layers]
        indices, sizes = range(len(weights)), [weight.numel() for weight in weights]
        channels = [weight.shape[:2] for weight in weights]
        self.outputs, self.inputs = self._table([o for o, _ in channels]), self._table([i for _, i in channels])

        tiles = [_tiles(n, rows[n], cols[n], TILE) for n in indices]
        chunks, dots = (
            [[(n, chunk) for chunk in range(cdiv(sizes[n], length))] for n in indices]
            for length in (CHUNK, CHUNK * DOT_STEPS)
        )
        up = [_tiles(n, outputs, inputs, CHANNELS) for n, (outputs, inputs) in enumerate(channels)]
        is_up = [layer.upsampled for layer in self.layers]
        begins = starts([len(up[n] if is_up[n] else dots[n]) for n in indices])
        self.dot_start, self.dots = self._table(begins), begins[-1]

        def split(programs: Programs, whole: Sequence[int]) -> list[tuple[bool, Tensor]]:
            """By alignment: whether a weight begins at one and ``whole`` is of whole accesses."""
            aligned = [begins_aligned(weights[n]) and whole[n] % ALIGNMENT == 0 for n in indices]
            return split_by_alignment(aligned, programs, self.device)

        self.tiles = split(tiles, cols)
        self.grad_tiles = split(_only(tiles, is_up, False), cols)
        self.chunks, self.dot_chunks = (split(_only(kind, is_up, False), sizes) for kind in (chunks, dots))
        self.up_tiles = split(_only(up, is_up, True), [math.gcd(*pair) for pair in channels])

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

    def normalise(self, sigma: Tensor, dtype: torch.dtype) -> list[Tensor]:
        """W / sigma of every layer, of up-convolutions as the kernel of the transposed one: parts of one buffer."""
        out, weights = self._empty(self.made.size, dtype=dtype), self.pointers().weights
        for aligned, chunks in self.chunks:
            launch(
                _spectral_normalise_kernel, (len(chunks),), chunks, self.sizes, self.made_start, weights, sigma, out,
                ALIGNED=aligned, CHUNK=CHUNK,
            )  # fmt: skip
        for aligned, tiles in self.up_tiles:
            launch(
                _up_conv_assemble_kernel, (len(tiles),), tiles, self.outputs, self.inputs, weights, sigma,
                self.made_start, out, ALIGNED=aligned, TILE=CHANNELS,
            )  # fmt: skip
        return self.made.views(out)

    def gradients(self, sigma: Tensor, vectors: Tensor, grads: Sequence[Tensor]) -> list[Tensor]:
        """Gradients of all weights, float32, parts of one buffer; ``grads``: those of what ``normalise`` made."""
        # Held by name to the end: the kernels find them by their addresses.
        incoming = [_as(grad, layer.made) for layer, grad in zip(self.layers, grads, strict=True)]
        grads_at, weights = self._grads_at.table(incoming), self.pointers().weights
        out, partial = self._empty(self.grads.size), self._empty(self.dots)
        grad_type = triton_type(grads[0].dtype)
        for aligned, chunks in self.dot_chunks:
            launch(
                _spectral_dot_kernel, (len(chunks),), chunks, self.sizes, weights, grads_at, partial, self.dot_start,
                GRAD=grad_type, ALIGNED=aligned, CHUNK=CHUNK, STEPS=DOT_STEPS,
            )  # fmt: skip
        for aligned, tiles in self.up_tiles:
            launch(
                _up_conv_dot_kernel, (len(tiles),), tiles, self.outputs, self.inputs, weights, grads_at, partial,
                self.dot_start, GRAD=grad_type, ALIGNED=aligned, TILE=CHANNELS,
            )  # fmt: skip
        of_all = vectors, self.row_start, self.col_start, partial, self.dot_start
        for aligned, tiles in self.grad_tiles:
            launch(
                _spectral_grad_kernel, (len(tiles),), tiles, self.rows, self.cols, self.grad_start, grads_at, out,
                sigma, *of_all, GRAD=grad_type, ALIGNED=aligned, TILE=TILE, STEP=STEP, VECTOR=VECTOR,
            )  # fmt: skip
        for aligned, tiles in self.up_tiles:
            launch(
                _up_conv_grad_kernel, (len(tiles),), tiles, self.outputs, self.inputs, self.grad_start, grads_at, out,
                sigma, *of_all, GRAD=grad_type, ALIGNED=aligned, TILE=CHANNELS, VECTOR=VECTOR,
            )  # fmt: skip
        return self.grads.views(out)


def _tiles(index: int, rows: int, cols: int, side: int) -> list[tuple[int, int, int]]:
    """(index, row, column) of each tile of a matrix."""
    return [(index, row, col) for row in range(cdiv(rows, side)) for col in range(cdiv(cols, side))]


def _only(programs: Programs, flags: Sequence[bool], wanted: bool) -> Programs:
    """The programs of the layers whose flag is ``wanted``; none of the others."""
    return [own if flag is wanted else [] for own, flag in zip(programs, flags, strict=True)]


def _as(tensor: Tensor, layout: Layout) -> Tensor:
    """The tensor, copied unless it lies in memory that way, from a multiple of 16 bytes on."""
    sizes, strides = layout
    if same_strides(sizes, tensor.stride(), strides) and begins_aligned(tensor):
        return tensor
    return torch.empty_strided(*layout, dtype=tensor.dtype, device=tensor.device).copy_(tensor)
