"""PyTorch's caching allocator as far as sizes go: what it reserves for a sequence of allocations.

A request is rounded up to 512 B and served from the smallest free block that holds it, else from a new segment: 2 MiB
for requests up to 1 MiB, 20 MiB below 10 MiB, above that the request rounded up to 2 MiB. What is left of a block stays
free beside it; freed neighbours of a segment grow together; no segment is ever given back.

With expandable segments either size of request has one segment, which grows at its end by pages of 2 or 20 MiB, so that
any freed neighbours grow together.

Source: ``c10/cuda/CUDACachingAllocator.cpp``, one stream, nothing split off or collected by special settings.
"""

import bisect
from dataclasses import dataclass

MIB = 2**20
BLOCK = 512
SMALL_REQUEST, SMALL_SEGMENT = MIB, 2 * MIB
MEDIUM_REQUEST, MEDIUM_SEGMENT = 10 * MIB, 20 * MIB
LARGE_ROUNDING = 2 * MIB


@dataclass(eq=False)
class _Block:
    """A piece of a segment; ``before`` and ``after`` are its neighbours there."""

    size: int
    order: int
    small: bool
    free: bool = False
    before: "_Block | None" = None
    after: "_Block | None" = None


class CachingAllocator:
    """One pool. ``allocated`` and ``reserved``: bytes now; what is reserved only grows."""

    def __init__(self) -> None:
        self.allocated = self.reserved = 0
        self._used: dict[int, _Block] = {}
        self._free: dict[bool, list[tuple[int, int, _Block]]] = {True: [], False: []}
        self._count = 0

    def allocate(self, key: int, size: int) -> None:
        """Finds room for ``size`` bytes, which ``free(key)`` gives back."""
        size = round_up(max(size, 1), BLOCK)
        small = size <= SMALL_REQUEST
        block = self._take(small, size) or self._segment(small, size)
        if self._splits(block.size - size, small):
            self._split(block, size)
        self._used[key] = block
        self.allocated += block.size

    def free(self, key: int) -> None:
        block = self._used.pop(key)
        self.allocated -= block.size
        for other in (block.before, block.after):
            if other is not None and other.free:
                self._absorb(block, other)
        self._put(block)

    def _splits(self, left: int, small: bool) -> bool:
        """Whether what is left of a block becomes a block of its own."""
        return left >= BLOCK if small else left > SMALL_REQUEST

    def _take(self, small: bool, size: int) -> _Block | None:
        pool = self._free[small]
        place = bisect.bisect_left(pool, (size, 0), key=lambda entry: entry[:2])
        if place == len(pool):
            return None
        block = pool.pop(place)[2]
        block.free = False
        return block

    def _put(self, block: _Block) -> None:
        block.free = True
        bisect.insort(self._free[block.small], (block.size, block.order, block), key=lambda entry: entry[:2])

    def _segment(self, small: bool, size: int) -> _Block:
        room = segment_size(size)
        self.reserved += room
        return self._new(room, small)

    def _new(self, size: int, small: bool) -> _Block:
        self._count += 1
        return _Block(size, self._count, small)

    def _split(self, block: _Block, size: int) -> None:
        rest = self._new(block.size - size, block.small)
        block.size = size
        rest.before, rest.after = block, block.after
        if rest.after is not None:
            rest.after.before = rest
        block.after = rest
        self._put(rest)

    def _absorb(self, block: _Block, other: _Block) -> None:
        """Makes a free neighbour part of the block."""
        self._free[other.small].remove((other.size, other.order, other))
        block.size += other.size
        if other is block.before:
            block.before = other.before
            if block.before is not None:
                block.before.after = block
        else:
            block.after = other.after
            if block.after is not None:
                block.after.before = block


class ExpandableAllocator(CachingAllocator):
    """One pool with expandable segments."""

    def __init__(self) -> None:
        super().__init__()
        self._any: dict[bool, _Block] = {}

    def _splits(self, left: int, small: bool) -> bool:
        return left >= BLOCK

    def _segment(self, small: bool, size: int) -> _Block:
        page = SMALL_SEGMENT if small else MEDIUM_SEGMENT
        last = self._last(small)
        free = last.size if last is not None and last.free else 0
        more = round_up(size - free, page)
        self.reserved += more
        if last is not None and last.free:
            self._free[small].remove((last.size, last.order, last))
            last.size, last.free = last.size + more, False
            return last
        block = self._new(more, small)
        if last is None:
            self._any[small] = block
        else:
            last.after, block.before = block, last
        return block

    def _last(self, small: bool) -> _Block | None:
        block = self._any.get(small)
        while block is not None and block.after is not None:
            block = self._any[small] = block.after
        return block

    def _absorb(self, block: _Block, other: _Block) -> None:
        super()._absorb(block, other)
        if self._any[block.small] is other:
            self._any[block.small] = block


def segment_size(size: int) -> int:
    """Bytes that are reserved where no free block holds a (rounded) request of ``size`` bytes."""
    if size <= SMALL_REQUEST:
        return SMALL_SEGMENT
    return MEDIUM_SEGMENT if size < MEDIUM_REQUEST else round_up(size, LARGE_ROUNDING)


def round_up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple
