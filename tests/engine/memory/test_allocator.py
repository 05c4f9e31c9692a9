"""The model of PyTorch's allocator against what its source says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgan_engine.memory.allocator import MIB, CachingAllocator

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


@given(st.lists(st.tuples(st.integers(1, 64 * MIB), st.integers(0, 9)), min_size=1, max_size=60))
def test_what_is_allocated_is_never_more_than_reserved_and_all_comes_back(requests: list[tuple[int, int]]) -> None:
    allocator, alive = CachingAllocator(), []
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
