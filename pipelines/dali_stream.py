"""The fast loader: NVIDIA DALI (Linux only). Importing this module imports DALI."""

from collections import deque
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from nvidia.dali import fn, pipeline_def, types

from .prepared import PreparedSet
from .sampler import Sampler
from .streams import ImageStream


class DaliStream(ImageStream):
    """Feeds DALI the packed PNG files in the sampler's order, so that order and resume do not depend on DALI.

    PNG is decoded on the host whatever the device (nvJPEG knows only JPEG), so images are decoded there without setting
    up the GPU decoder, copied once, and flipped on the device. The tensor shares DALI's memory, no copy.
    """

    name = "dali"

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
        self._cuda = device.type == "cuda"
        self._in_use: deque[tuple[torch.Tensor, torch.cuda.Event]] = deque()
        self._given: torch.Tensor | None = None

        def feed(iteration: int) -> tuple[list[NDArray[np.uint8]], NDArray[np.int32]]:
            indices, flips = sampler.batch(start_step + iteration)
            files = [np.frombuffer(prepared.encoded(index), dtype=np.uint8) for index in indices.tolist()]
            return files, flips.astype(np.int32)

        @pipeline_def(
            batch_size=sampler.batch_size,
            num_threads=workers,
            device_id=_device_index(device),
            prefetch_queue_depth=prefetch,
            exec_dynamic=True,  # outputs live as long as they are held
        )
        def batches() -> Any:
            files, flips = fn.external_source(source=feed, num_outputs=2, batch=True)
            images = fn.decoders.image(files, device="cpu", output_type=types.ANY_DATA)  # RGBA keeps its alpha
            return fn.flip(images.gpu() if self._cuda else images, horizontal=flips)

        self._pipe = batches()
        self._pipe.build()
        self._first = self._pipe.run()  # fails here, not in training, where DALI does not work; and starts prefetching

    def _next(self) -> torch.Tensor:
        if self._given is not None and self._cuda:
            # DALI may reuse an output's memory as soon as it is let go, on a stream of its own: let go of one only
            # after the work that torch queued on it is done, two steps late so as not to wait.
            used = torch.cuda.Event()
            used.record()
            self._in_use.append((self._given, used))
            if len(self._in_use) > 2:
                oldest, used = self._in_use.popleft()
                used.synchronize()
                del oldest
        (output,) = self._first or self._pipe.run()
        self._first = None
        self._given = torch.from_dlpack(output.as_tensor())
        return self._given

    def close(self) -> None:
        if self._cuda and self._in_use:
            torch.cuda.synchronize()
        self._in_use.clear()
        self._given = self._first = self._pipe = None


def _device_index(device: torch.device) -> int | None:
    if device.type != "cuda":
        return None
    return torch.cuda.current_device() if device.index is None else device.index
