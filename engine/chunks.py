"""Work on many images in chunks that fit the memory."""

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from fastgan_engine.errors import UserError

T = TypeVar("T")


def in_chunks(
    work: Callable[[range], T],
    count: int,
    *,
    chunk: int,
    device: torch.device,
    what: str,
    warn: Callable[[str], None] | None = None,
) -> Iterator[T]:
    """Yields ``work(indices)`` for consecutive ranges of at most ``chunk`` that cover ``range(count)``.

    Where CUDA runs out of memory the chunk is halved, ``warn`` is told, and the range is tried again.

    Args:
        what: one item in words, such as "image of 256 x 256".

    Raises:
        UserError: not even one item fits into the device's memory.
    """
    done = 0
    while done < count:
        indices = range(done, min(done + chunk, count))
        result = _attempt(work, indices)
        if result is not None:
            yield result
            done = indices.stop
            continue
        torch.cuda.empty_cache()
        if chunk == 1:
            raise UserError(
                f"not even one {what} fits into the memory of {device}; "
                f"free some (`fastgan-engine doctor` says who uses it), or take --device cpu"
            )
        chunk = min(chunk, count - done) // 2 or 1
        if warn:
            warn(f"out of memory on {device}; going on with {chunk} image(s) at once")


def _attempt(work: Callable[[range], T], indices: range) -> T | None:
    """The result, or None where the device runs out of memory.

    A function of its own, so that everything it allocated is free when the next, smaller attempt begins.
    """
    try:
        return work(indices)
    except torch.cuda.OutOfMemoryError:
        return None
