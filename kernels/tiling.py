"""How a channels-last map is spread over programs.

It is a matrix of rows (pixels, or 2 x 2 squares of them) by channels. Its rows are split into equal consecutive
*segments* (one a statistics group, or one an image where something is summed per image), a segment into *chunks*, and
one program walks over one chunk of one block of channels, a tile of rows at a time.
"""

import math
from dataclasses import dataclass

from fastgan_engine.kernels.launch import cdiv, jit, next_power_of_2, tl

WARPS = 8
# Elements of one tile for each 16-byte access that a thread has under way in half precision.
TILE = 8 * 32 * WARPS
# 64 half-precision channels are one 128-byte cache line.
MAX_COLS = 64
# Programs that keep a large card busy; more of them only add partial results.
PROGRAMS = 512
# Where each program reads the partial results of all of its channels, C chunks cost C^2 reads: with this many rows to
# one of those, a few per cent of the map's bytes.
ROWS_A_READ = 32


@dataclass(frozen=True)
class Tiling:
    """How the rows of a map are spread over programs: ``segments`` of ``rows``, in ``chunks`` of ``chunk_rows``."""

    channels: int
    rows: int
    segments: int
    chunks: int
    chunk_rows: int
    tile_rows: int
    tile_cols: int

    @property
    def grid(self) -> tuple[int, int, int]:
        return cdiv(self.channels, self.tile_cols), self.chunks, self.segments

    @property
    def partials(self) -> int:
        """Partial results a channel."""
        return self.segments * self.chunks

    @property
    def unit(self) -> int:
        """Channels of one 16-byte access in half precision, as far as it divides ``channels``.

        Kernels get ``channels`` as ``units`` times this constant, so that Triton knows that rows begin at a multiple.
        """
        return math.gcd(self.channels, 8)

    @property
    def units(self) -> int:
        return self.channels // self.unit

    @property
    def meta(self) -> dict[str, int]:
        return {"UNIT": self.unit, "ROWS": self.tile_rows, "COLS": self.tile_cols, "num_warps": WARPS}


def tiling(
    channels: int,
    rows: int,
    segments: int,
    *,
    pixels: int = 1,
    accesses: int = 2,
    shared_by: int | None = None,
    chunked: bool = True,
) -> Tiling:
    """Tiles for ``segments`` segments of ``rows`` rows each; ``channels``: those that one program column walks over.

    pixels: of a row, 1 or 4. accesses: 16-byte accesses that a thread has under way at once to one map and pixel of its
    rows; the more, the more registers. shared_by: segments the partial results of which are all read again by each of
    their programs. chunked: unless, a segment is one chunk.
    """
    cols = min(next_power_of_2(channels), MAX_COLS)
    tile_rows = min(TILE * accesses // cols, next_power_of_2(rows))
    most = PROGRAMS // (cdiv(channels, cols) * segments) if chunked else 1
    if shared_by is not None:
        most = min(most, math.isqrt(rows * pixels * shared_by // ROWS_A_READ) // shared_by)
    chunk_rows = cdiv(cdiv(rows, max(1, most)), tile_rows) * tile_rows
    return Tiling(channels, rows, segments, cdiv(rows, chunk_rows), chunk_rows, tile_rows, cols)


@jit
def columns_of(channels, COLS: tl.constexpr):
    """This program's channels, and which of them there are."""
    cols = tl.program_id(0) * COLS + tl.arange(0, COLS)
    return cols, cols < channels


@jit
def chunk_rows_of(rows, chunk_rows):
    """First row of this program's chunk (64-bit) and the number of its rows."""
    chunk, segment = tl.program_id(1), tl.program_id(2)
    return segment.to(tl.int64) * rows + chunk * chunk_rows, tl.minimum(chunk_rows, rows - chunk * chunk_rows)


@jit
def rows_in_segment(rows, chunk_rows):
    """First row of this program's chunk, and the first after it, counted within the segment."""
    start = tl.program_id(1) * chunk_rows
    return start, tl.minimum(rows, start + chunk_rows)


@jit
def pixels_of(r, part, width, PARTS: tl.constexpr):
    """Pixels of some rows of a segment: the rows themselves, or where a row is a 2 x 2 square, its pixel ``part``.

    The squares go line by line through maps of even height and width, image after image. 64-bit.
    """
    if PARTS == 1:
        return r.to(tl.int64)
    squares = width // 2
    return ((r // squares) * 2 + part // 2).to(tl.int64) * width + (r % squares) * 2 + part % 2


@jit
def load_map(ptr, offsets, mask):
    """A tile in float32, zero outside the mask."""
    return tl.load(ptr + offsets, mask=mask, other=0.0).to(tl.float32)


@jit
def square_gradient(grad_pooled_ptr, r, base, channels, cols, mask, ROWS: tl.constexpr, COLS: tl.constexpr):
    """What each pixel of some 2 x 2 squares gets of the gradient of their means; zero where there are none."""
    gradient = tl.zeros((ROWS, COLS), tl.float32)
    if grad_pooled_ptr is not None:
        gradient = 0.25 * load_map(grad_pooled_ptr, base + r.to(tl.int64)[:, None] * channels + cols[None, :], mask)
    return gradient
