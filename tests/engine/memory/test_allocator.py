"""The model of PyTorch's allocator against what its source says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgan_engine.memory.allocator import MIB, CachingAllocator, ExpandableAllocator

KIB = 1024


def reserved_for(*sizes: int) -> int:
    allocator = CachingAllocator()
    for key, size in enumerate(sizes):
        allocator.allocate(key, size)
    return allocator.reserved


@pytest.mark.parametrize(
    ("sizes", "reserved"),
    [
        ((1,), 2 * MIB),
        ((MIB, MIB), 2 * MIB),
        ((MIB, MIB, 1), 4 * MIB),
        ((MIB + 1,), 20 * MIB),
        ((9 * MIB, 9 * MIB), 20 * MIB),
        ((9 * MIB, 9 * MIB, 3 * MIB), 40 * MIB),
        ((10 * MIB,), 10 * MIB),
        ((11 * MIB,), 12 * MIB),
        ((11 * MIB, 1), 14 * MIB),  # small requests never share a large segment
    ],
)
def test_segments(sizes: tuple[int, ...], reserved: int) -> None:
    assert reserved_for(*sizes) == reserved


def test_requests_are_rounded_to_512_bytes() -> None:
    allocator = CachingAllocator()
    allocator.allocate(0, 513)
    assert allocator.allocated == 1024


def test_a_freed_block_is_used_again_and_no_segment_goes() -> None:
    allocator = CachingAllocator()
    for key in range(5):
        allocator.allocate(key, 64 * MIB)
        allocator.free(key)
    assert (allocator.allocated, allocator.reserved) == (0, 64 * MIB)


def test_freed_neighbours_grow_together() -> None:
    allocator = CachingAllocator()
    allocator.allocate(0, 100 * MIB)
    allocator.free(0)
    for key in (1, 2, 3):
        allocator.allocate(key, 30 * MIB)
    for key in (1, 3, 2):
        allocator.free(key)
    allocator.allocate(4, 100 * MIB)
    assert allocator.reserved == 100 * MIB


def test_fragments_of_different_segments_do_not() -> None:
    allocator = CachingAllocator()
    allocator.allocate(0, 30 * MIB)
    allocator.allocate(1, 30 * MIB)
    allocator.free(0)
    allocator.free(1)
    allocator.allocate(2, 60 * MIB)
    assert allocator.reserved == 120 * MIB


def test_of_the_blocks_that_hold_a_request_the_smallest_is_taken() -> None:
    allocator = CachingAllocator()
    for key, size in enumerate((40 * MIB, 24 * MIB)):
        allocator.allocate(key, size)
    allocator.free(0)
    allocator.free(1)
    allocator.allocate(2, 22 * MIB)
    allocator.allocate(3, 40 * MIB)
    assert allocator.reserved == 64 * MIB


class TestExpandable:
    def test_a_segment_grows_by_pages_from_what_is_free_at_its_end(self) -> None:
        allocator = ExpandableAllocator()
        allocator.allocate(0, 30 * MIB)
        assert allocator.reserved == 40 * MIB
        allocator.allocate(1, 25 * MIB)
        assert allocator.reserved == 60 * MIB

    def test_fragments_of_different_requests_grow_together(self) -> None:
        allocator = ExpandableAllocator()
        for key in (0, 1):
            allocator.allocate(key, 30 * MIB)
        for key in (0, 1):
            allocator.free(key)
        allocator.allocate(2, 60 * MIB)
        assert allocator.reserved == 60 * MIB

    def test_small_requests_have_a_segment_of_their_own(self) -> None:
        allocator = ExpandableAllocator()
        allocator.allocate(0, MIB)
        allocator.allocate(1, MIB + 1)
        assert allocator.reserved == 22 * MIB


@pytest.mark.parametrize("kind", [CachingAllocator, ExpandableAllocator])
@given(requests=st.lists(st.tuples(st.integers(1, 64 * MIB), st.integers(0, 9)), min_size=1, max_size=60))
def test_what_is_allocated_is_never_more_than_reserved_and_all_comes_back(
    kind: type[CachingAllocator], requests: list[tuple[int, int]]
) -> None:
    allocator, alive = kind(), []
    for key, (size, keep) in enumerate(requests):
        allocator.allocate(key, size)
        alive.append(key)
        assert sum(requests[k][0] for k in alive) <= allocator.allocated <= allocator.reserved
        if keep < 5:
            allocator.free(alive.pop(keep % len(alive)))
    for key in alive:
        allocator.free(key)
    assert allocator.allocated == 0
    reserved = allocator.reserved
    allocator.allocate(-1, max(size for size, _ in requests))
    assert allocator.reserved == reserved


@given(st.lists(st.integers(1, 64 * MIB), min_size=1, max_size=40))
def test_memory_is_never_handed_out_twice(sizes: list[int]) -> None:
    """The blocks of the growing segment, used and free, add up to what is reserved."""
    allocator = ExpandableAllocator()
    for key, size in enumerate(sizes):
        allocator.allocate(key, size)
        if key % 3 == 1:
            allocator.free(key - 1)
    used = sum(block.size for block in allocator._used.values())
    free = sum(entry[0] for pool in allocator._free.values() for entry in pool)
    assert used == allocator.allocated
    assert used + free == allocator.reserved
