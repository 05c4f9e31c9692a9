"""Where the batches of a run come from: a resident set, decoded once, or a stream that decodes as it goes.

A source has two halves. ``fetch`` belongs to the host and runs between iterations; ``reals`` is device work that reads
fixed buffers, so that a captured iteration can contain it.
"""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from fastgan_engine.config import Config
from fastgan_engine.kernels.batch import gather_batch, to_float
from fastgan_engine.kernels.dispatch import Impl
from fastgan_engine.pipelines import ImageStream, PreparedSet, Sampler, open_stream

GIB = 2**30
# The order of the data and the random numbers of the step must not be the same sequence.
DATA_SEED_OFFSET = 1


class Source(ABC):
    """Endless batches: after ``fetch()``, ``reals()`` is the next one."""

    reason: str
    """What it is and why, in a sentence for the log."""

    @abstractmethod
    def fetch(self) -> None:
        """Puts the next batch, or what it is made of, into the source's fixed buffers."""

    @abstractmethod
    def reals(self) -> Tensor:
        """The fetched batch: float32 [B, C, H, W] in [-1, 1], channels-last, on the device; before that, any batch."""

    def close(self) -> None:
        """Stops threads, if there are any."""
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class ResidentSource(Source):
    """All images as one uint8 tensor on the training device; a batch is gathered, flipped and scaled in one kernel."""

    def __init__(
        self, images: PreparedSet, sampler: Sampler, device: torch.device, *, start_step: int, impl: Impl = "auto"
    ) -> None:
        self.cache = decode_all(images).to(device)
        self.sampler, self.step, self.impl = sampler, start_step, impl
        self.indices = torch.zeros(sampler.batch_size, dtype=torch.int64, device=device)
        self.flips = torch.zeros(sampler.batch_size, dtype=torch.bool, device=device)
        self.reason = f"{images.count:,} images resident on {device}, {self.cache.numel() / GIB:.2f} GiB"

    def fetch(self) -> None:
        indices, flips = self.sampler.batch(self.step)
        # CUDA takes a copy of what is not pinned before it returns; a blocking copy would wait for the step before.
        self.indices.copy_(torch.from_numpy(indices), non_blocking=True)
        self.flips.copy_(torch.from_numpy(flips), non_blocking=True)
        self.step += 1

    def reals(self) -> Tensor:
        return gather_batch(self.cache, self.indices, self.flips, torch.float32, impl=self.impl)


class HostSource(Source):
    """All images as one uint8 tensor in host memory; a batch is gathered there and copied to the device as uint8.

    One batch ahead: on CUDA it is gathered and copied while the step before it runs, on a stream of its own.
    """

    def __init__(self, images: PreparedSet, sampler: Sampler, device: torch.device, *, start_step: int) -> None:
        self.cache = decode_all(images)
        self.sampler, self.step = sampler, start_step
        shape = (sampler.batch_size, *self.cache.shape[1:])
        self.copier = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.staging = torch.empty(shape, dtype=torch.uint8, pin_memory=self.copier is not None)
        self.ahead = torch.empty_like(self.staging, device=device) if self.copier is not None else self.staging
        self.buffer = torch.zeros(shape, dtype=torch.uint8, device=device)
        self.reason = f"{images.count:,} images decoded in host memory, {self.cache.numel() / GIB:.2f} GiB"
        self._gather()

    def fetch(self) -> None:
        if self.copier is not None:
            torch.cuda.current_stream(self.buffer.device).wait_stream(self.copier)
        self.buffer.copy_(self.ahead)
        self._gather()

    def _gather(self) -> None:
        """Puts the batch of the next step into ``ahead``."""
        if self.copier is not None:
            self.copier.synchronize()  # it may still be reading the staging buffer
        indices, flips = self.sampler.batch(self.step)
        for row, (index, flip) in enumerate(zip(indices, flips, strict=True)):
            image = self.cache[index]
            self.staging[row].copy_(image.flip(1) if flip else image)
        if self.copier is not None:
            self.copier.wait_stream(torch.cuda.current_stream(self.buffer.device))  # which still reads ``ahead``
            with torch.cuda.stream(self.copier):
                self.ahead.copy_(self.staging, non_blocking=True)
        self.step += 1

    def reals(self) -> Tensor:
        return to_float(self.buffer, torch.float32)

    def close(self) -> None:
        if self.copier is not None:
            self.copier.synchronize()


class StreamSource(Source):
    """Batches decoded as they are needed, by DALI or Pillow."""

    def __init__(self, stream: ImageStream, shape: tuple[int, int, int, int], device: torch.device) -> None:
        self.stream = stream
        self.buffer = torch.zeros(shape, dtype=torch.uint8, device=device)
        self.reason = f"streamed by {stream.name}: {stream.reason}"

    def fetch(self) -> None:
        self.buffer.copy_(self.stream.next(), non_blocking=True)

    def reals(self) -> Tensor:
        return to_float(self.buffer, torch.float32)

    def close(self) -> None:
        self.stream.close()


def decode_all(images: PreparedSet) -> Tensor:
    """Every image of the set: uint8 [N, H, W, C] in host memory."""
    cache = torch.empty(images.count, images.im_size, images.im_size, images.channels, dtype=torch.uint8)
    for index in range(images.count):
        cache[index] = torch.from_numpy(images.array(index))
    return cache


def is_resident(config: Config, count: int) -> bool:
    """Whether ``count`` decoded images are kept on the device."""
    data = config.data
    return data.loader == "resident" or (data.loader == "auto" and _decoded_gib(config, count) <= data.resident_gib)


def _decoded_gib(config: Config, count: int) -> float:
    return count * config.model.im_size**2 * config.model.nc / GIB


def open_source(config: Config, images: PreparedSet, device: torch.device, *, start_step: int) -> Source:
    """The source for ``data.loader``; "auto" keeps the set on the device or in host memory if its size allows."""
    data, train = config.data, config.train
    seed = train.seed + DATA_SEED_OFFSET
    sampler = Sampler(images.count, train.batch, seed=seed, flip=data.flip)
    size = _decoded_gib(config, images.count)
    if data.loader == "resident" or is_resident(config, images.count):
        return ResidentSource(images, sampler, device, start_step=start_step, impl=config.engine.kernels)
    if data.loader == "auto" and size <= data.host_gib:
        return HostSource(images, sampler, device, start_step=start_step)
    stream = open_stream(
        images, batch=train.batch, seed=seed, flip=data.flip, device=device, loader=data.loader,
        workers=data.workers, prefetch=data.prefetch, start_step=start_step,
    )  # fmt: skip
    return StreamSource(stream, (train.batch, images.im_size, images.im_size, images.channels), device)
