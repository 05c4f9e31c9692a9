"""Which image comes when: endless shuffled epochs, addressable at any step."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from .errors import DataError


class Sampler:
    """Infinite shuffled sampling as a pure function of (seed, step).

    The stream of images is one permutation of the set after another, cut into batches; a batch may straddle epochs, and
    may be larger than the set. Nothing is remembered between calls, so a run resumes at any step, and every loader sees
    the same order. Randomness is Philox's raw stream, which NumPy keeps stable over its versions.

    Args:
        count: images in the set.
        batch: images in a batch.
        seed: from 0 to 2^64 - 1; another seed, another order.
        flip: mirror each image left to right with probability 1/2, drawn anew each epoch.

    Raises:
        DataError: an argument is out of range.
    """

    def __init__(self, count: int, batch: int, *, seed: int, flip: bool) -> None:
        for name, value, least in (("count", count, 1), ("batch", batch, 1), ("seed", seed, 0)):
            if value < least:
                raise DataError(f"sampler {name} {value}: expected {least} or more")
        if seed >= 2**64:
            raise DataError(f"sampler seed {seed}: expected less than 2^64")
        self.count = count
        self.batch_size = batch
        self.seed = seed
        self.flip = flip

    def batch(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Indices int64 [B] and flips bool [B] of the batch at ``step`` (from 0)."""
        if step < 0:
            raise DataError(f"sampler step {step}: expected 0 or more")
        first = step * self.batch_size
        last = first + self.batch_size
        parts = []
        for epoch in range(first // self.count, (last - 1) // self.count + 1):
            start = epoch * self.count
            window = slice(max(first - start, 0), last - start)
            parts.append([column[window] for column in _epoch(self.count, self.seed, epoch)])
        indices, flips = (np.concatenate(column) for column in zip(*parts, strict=True))
        return indices, flips & self.flip


@lru_cache(maxsize=8)
def _epoch(count: int, seed: int, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The order of the images in one epoch, and which of them are mirrored if flipping is on."""
    draws = np.random.Philox(key=seed, counter=[0, 0, 0, epoch]).random_raw(2 * count)
    return np.argsort(draws[:count], kind="stable"), (draws[count:] & 1).astype(bool)
