"""The loader that runs everywhere: Pillow in threads."""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from .prepared import PreparedSet
from .sampler import Sampler
from .streams import ImageStream


class PillowStream(ImageStream):
    """Decodes ``prefetch`` batches ahead in ``workers`` threads; each batch lies in memory of its own."""

    name = "pillow"

    def __init__(
        self,
        prepared: PreparedSet,
        sampler: Sampler,
        device: torch.device,
        workers: int,
        prefetch: int,
        start_step: int,
        reason: str,
    ) -> None:
        super().__init__(reason, start_step)
        self._prepared = prepared
        self._sampler = sampler
        self._device = device
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="pillow-stream")
        self._ahead: deque[tuple[torch.Tensor, list[Future[None]]]] = deque()
        self._asked = start_step
        for _ in range(prefetch):
            self._ask()

    def _ask(self) -> None:
        """Set the threads to work on one more batch."""
        indices, flips = self._sampler.batch(self._asked)
        self._asked += 1
        size = self._prepared.im_size
        shape = (len(indices), size, size, self._prepared.channels)
        # Pinned memory comes from torch's caching allocator, which gives it out again only after the copy is done.
        images = torch.empty(shape, dtype=torch.uint8, pin_memory=self._device.type == "cuda")
        rows = zip(images.numpy(), indices.tolist(), flips.tolist(), strict=True)
        self._ahead.append((images, [self._pool.submit(self._load, *row) for row in rows]))

    def _load(self, out: NDArray[np.uint8], index: int, flip: bool) -> None:
        image = self._prepared.array(index)
        out[...] = image[:, ::-1] if flip else image

    def _next(self) -> torch.Tensor:
        images, jobs = self._ahead.popleft()
        self._ask()
        for job in jobs:
            job.result()
        return images.to(self._device, non_blocking=True)

    def close(self) -> None:
        self._ahead.clear()
        self._pool.shutdown(wait=True, cancel_futures=True)
