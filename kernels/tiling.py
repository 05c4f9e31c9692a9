"""How a channels-last map is spread over programs.

It is a matrix of rows (pixels) by channels. Its rows are split into equal consecutive *segments* (one a statistics
group, or one an image where something is summed per image), a segment into *chunks*, and one program walks over one
chunk of one block of channels, a tile of rows at a time.
"""

import math
from dataclasses import dataclass

from fastgan_engine.kernels.launch import cdiv, next_power_of_2

# Elements of one tile: 128 threads with two 16-byte accesses each in half precision.
TILE = 2048
# 64 half-precision channels are one 128-byte cache line.
MAX_COLS = 64
# Programs that keep a large card busy; more of them only add partial results.
PROGRAMS = 512


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
        return {"UNIT": self.unit, "ROWS": self.tile_rows, "COLS": self.tile_cols}


def tiling(channels: int, rows: int, segments: int) -> Tiling:
    """Tiles for ``segments`` segments of ``rows`` rows each; ``channels``: those that one program column walks over."""
    cols = min(next_power_of_2(channels), MAX_COLS)
    tile_rows = min(TILE // cols, next_power_of_2(rows))
    most = max(1, PROGRAMS // (cdiv(channels, cols) * segments))
    chunk_rows = cdiv(cdiv(rows, most), tile_rows) * tile_rows
    return Tiling(channels, rows, segments, cdiv(rows, chunk_rows), chunk_rows, tile_rows, cols)
