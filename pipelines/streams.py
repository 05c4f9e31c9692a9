"""Batches of a prepared set on a device, in the sampler's order, ahead of their use."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import TYPE_CHECKING, Self

from .defaults import FLIP, LOADER, LOADERS, PREFETCH, WORKERS, Loader
from .errors import DataError
from .prepared import PreparedSet
from .sampler import Sampler

if TYPE_CHECKING:
    import torch


class ImageStream(ABC):
    """Endless batches, each a pure function of (set, batch, seed, flip, step), whichever loader makes them.

    Attributes:
        name: the loader: "dali" or "pillow".
        reason: why it is this one, in a sentence for the log.
        step: index of the batch that ``next()`` gives next; save it, and pass it as ``start_step`` to go on.
    """

    name: str

    def __init__(self, reason: str, start_step: int) -> None:
        self.reason = reason
        self.step = start_step

    def next(self) -> "torch.Tensor":
        """The next batch: uint8 [B, H, W, C], contiguous, on the stream's device, already flipped.

        Read-only by contract, and valid until the next call of ``next()``: work queued on torch's current stream before
        that call still sees it whole. Keep a longer hold of it only as a ``clone()``.
        """
        batch = self._next()
        self.step += 1
        return batch

    @abstractmethod
    def _next(self) -> "torch.Tensor": ...

    @abstractmethod
    def close(self) -> None:
        """Stop the threads and free the memory; calling it again does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_stream(
    prepared: PreparedSet,
    *,
    batch: int,
    seed: int,
    flip: bool = FLIP,
    device: "str | torch.device" = "cpu",
    loader: Loader = LOADER,
    workers: int = WORKERS,
    prefetch: int = PREFETCH,
    start_step: int = 0,
) -> ImageStream:
    """Open an endless stream of shuffled batches.

    Args:
        batch: images in a batch; may be more than the set has.
        seed: of the order and the flips.
        flip: mirror each image left to right with probability 1/2.
        device: where the batches are to lie.
        loader: "dali", "pillow", or "auto": DALI where it works, else Pillow. Both give equal batches.
        workers: decoding threads.
        prefetch: batches made ahead.
        start_step: index of the first batch; a resumed run passes the ``step`` it saved.

    Raises:
        DataError: an argument is out of range, or ``loader`` is "dali" and DALI does not work here.
    """
    import torch

    for name, value, least in (("workers", workers, 1), ("prefetch", prefetch, 1), ("start_step", start_step, 0)):
        if value < least:
            raise DataError(f"{name} {value}: expected {least} or more")
    if loader not in LOADERS:
        raise DataError(f"loader {loader!r}: expected one of {', '.join(LOADERS)}")
    sampler = Sampler(prepared.count, batch, seed=seed, flip=flip)
    place, reason = torch.device(device), "asked for"
    if loader != "pillow":
        try:
            from .dali_stream import DaliStream

            reason = "DALI works here" if loader == "auto" else reason
            return DaliStream(prepared, sampler, place, workers, prefetch, start_step, reason)
        except (ImportError, OSError, RuntimeError) as error:
            if loader == "dali":
                raise DataError(f"loader dali does not work here ({error}); use loader auto or pillow") from error
            reason = f"DALI does not work here ({type(error).__name__}: {str(error).splitlines()[0]})"
    from .pillow_stream import PillowStream

    return PillowStream(prepared, sampler, place, workers, prefetch, start_step, reason)
