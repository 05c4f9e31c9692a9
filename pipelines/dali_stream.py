"""The fast loader: NVIDIA DALI (Linux only). Importing this module imports DALI."""

from collections import deque
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from nvidia.dali import backend, fn, pipeline_def, types

from .prepared import PreparedSet
from .sampler import Sampler
from .streams import ImageStream

Files = list[NDArray[np.uint8]]
Flips = NDArray[np.int32]

_OUTPUT_TYPES = {1: types.GRAY, 3: types.RGB, 4: types.ANY_DATA}  # only ANY_DATA keeps alpha
# What nvJPEG keeps for one image, in bytes a colour value: 16-bit coefficients beside the 8-bit planes. It allocates
# more where that is too little; DALI's own default is 16 MiB a thread, whatever the size.
_NVJPEG_BYTES = 3
# Batches of DALI's that torch may still be reading; each one more lets the host run one step further ahead.
_HELD = 2


@pipeline_def(exec_dynamic=True)  # outputs live as long as they are held
def batches(
    feed: Callable[[int], tuple[Files, Flips]],
    decoder: Literal["cpu", "mixed"],
    output: Literal["cpu", "gpu"],
    im_size: int,
    channels: int,
) -> Any:
    """The pipeline: files of ``im_size`` x ``im_size`` pixels -> uint8 [B, H, W, C] on ``output``, flipped.

    ``mixed`` decodes JPEG on the GPU and PNG on the host; chroma is enlarged as libjpeg does it on both.
    """
    files, flips = fn.external_source(source=feed, num_outputs=2, batch=True)
    nvjpeg_bytes = im_size * im_size * channels * _NVJPEG_BYTES
    images = fn.decoders.image(
        files,
        device=decoder,
        output_type=_OUTPUT_TYPES[channels],
        adjust_orientation=False,  # the pack's pixels are upright, whatever a file's EXIF says
        # From here on, for mixed alone.
        jpeg_fancy_upsampling=True,
        hw_decoder_load=0.0,  # only datacentre cards have that decoder
        device_memory_padding=nvjpeg_bytes,
        host_memory_padding=nvjpeg_bytes,
    )
    return fn.flip(images.gpu() if output == "gpu" else images, horizontal=flips)


class DaliStream(ImageStream):
    """Feeds DALI the packed files in the sampler's order, so that order and resume do not depend on DALI.

    For a CUDA device, JPEG is decoded there; a set without any is decoded on the host, without setting up the GPU's
    decoder, and copied once. Flips are the device's work. The tensor shares DALI's memory, no copy.
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
        self._cuda = device.type == "cuda"
        on_gpu = self._cuda and prepared.formats["JPEG"] > 0
        super().__init__(f"{reason}, JPEG is decoded on the GPU" if on_gpu else reason, start_step)
        self._device = device
        self._in_use: deque[tuple[torch.Tensor, torch.cuda.Event]] = deque()
        self._given: torch.Tensor | None = None

        def feed(iteration: int) -> tuple[Files, Flips]:
            indices, flips = sampler.batch(start_step + iteration)
            files = [np.frombuffer(prepared.encoded(index), dtype=np.uint8) for index in indices.tolist()]
            return files, flips.astype(np.int32)

        self._pipe = batches(
            feed,
            decoder="mixed" if on_gpu else "cpu",
            output="gpu" if self._cuda else "cpu",
            im_size=prepared.im_size,
            channels=prepared.channels,
            batch_size=sampler.batch_size,
            num_threads=workers,
            device_id=_device_index(device),
            prefetch_queue_depth=prefetch,
        )
        self._pipe.build()
        self._first = self._pipe.run()  # fails here, not in training, where DALI does not work; and starts prefetching

    def _next(self) -> torch.Tensor:
        if self._given is not None and self._cuda:
            self._let_go(self._given)
        # On torch's stream the host need not wait until the device has decoded.
        stream = torch.cuda.current_stream(self._device) if self._cuda else None
        (output,) = self._first or self._pipe.run(stream)
        self._first = None
        self._given = torch.from_dlpack(output.as_tensor())
        return self._given

    def _let_go(self, batch: torch.Tensor) -> None:
        """Give DALI the memory of ``batch`` back once the work that torch has queued on it is done.

        DALI may fill it again at once, on a stream of its own. Two steps late, so that the wait is short or none.
        """
        used = torch.cuda.Event(blocking=True)  # the processor's cores are for decoding, not for spinning
        used.record()
        self._in_use.append((batch, used))
        if len(self._in_use) > _HELD:
            oldest, used = self._in_use.popleft()
            used.synchronize()
            del oldest

    def close(self) -> None:
        if self._pipe is None:
            return
        if self._cuda:
            torch.cuda.synchronize(self._device)  # torch may still be reading
        self._in_use.clear()
        self._given = self._first = self._pipe = None
        if self._cuda:
            backend.ReleaseUnusedMemory()  # type: ignore[attr-defined]


def _device_index(device: torch.device) -> int | None:
    if device.type != "cuda":
        return None
    return torch.cuda.current_device() if device.index is None else device.index
