"""Decoding in threads: Pillow releases the interpreter lock while it decodes, resizes and encodes."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_THREADS = 8  # each may hold a decoded camera photo of 100 MB and more


def ordered_map(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """``map`` in threads: results in order, and never more than a few waiting, however slow the consumer is."""
    threads = min(MAX_THREADS, os.cpu_count() or 1)
    rest = iter(items)
    pool = ThreadPoolExecutor(threads)
    try:
        waiting: deque[Future[Result]] = deque(pool.submit(function, item) for item in islice(rest, 2 * threads))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(function, item) for item in islice(rest, 1))
            yield result
    finally:  # also when the consumer stops early or is interrupted
        pool.shutdown(wait=True, cancel_futures=True)
