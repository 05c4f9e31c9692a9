"""Memory that autograd keeps between a forward pass and its backward, counted on fake tensors.

A backward pass is charged with every storage that its graph hands back to it, once; parameters and buffers do not
count. The last backward of an iteration is that of the G pass: G, augmentation, and D on the fakes. All before it are
those of the D pass: reals and fakes through D, decoders, reconstruction. The reference makes two of them, one after the
other; their sum is counted, and the larger one beside it.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from fastgan_engine.bench.cost import Who, engine_iteration, reference_iteration
from fastgan_engine.bench.fake_iteration import fake_tensors
from fastgan_engine.config import Config

Storages = dict[int, torch.UntypedStorage]


@dataclass(frozen=True)
class Saved:
    """Bytes kept for backward.

    Attributes:
        g: by the G pass.
        d: by the D pass, all of it.
        d_at_once: the most of it that is kept at the same time.
    """

    g: int
    d: int
    d_at_once: int


def saved(config: Config, who: Who, dtype: torch.dtype) -> Saved:
    """What ``who`` keeps under ``config``; the reference in half precision runs under autocast."""
    config = config.model_copy(update={"train": config.train.model_copy(update={"micro_batch": None})})
    build = reference_iteration if who == "reference" else engine_iteration
    with fake_tensors():
        iteration = build(config, dtype)
        with keeping() as backwards:
            iteration.run()
        *d, g = [kept_bytes(storages, iteration.owned()) for storages in backwards]
    return Saved(g, sum(d), max(d))


@contextmanager
def keeping() -> Iterator[list[Storages]]:
    """Collects, for each ``Tensor.backward()`` made inside, the storages that its graph kept, by their addresses.

    Holding them keeps two of them from having the same address.
    """
    backwards: list[Storages] = []
    backward = Tensor.backward

    def counted(self: Tensor, *args: Any, **kwargs: Any) -> None:
        backwards.append({})
        backward(self, *args, **kwargs)

    def unpack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        backwards[-1][storage._cdata] = storage
        return tensor

    with (
        mock.patch.object(Tensor, "backward", counted),
        torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, unpack),
    ):
        yield backwards


def kept_bytes(storages: Storages, owned: Iterable[Tensor]) -> int:
    """Bytes of the storages, but for those of ``owned`` tensors."""
    apart = {tensor.untyped_storage()._cdata for tensor in owned}
    return sum(storage.nbytes() for address, storage in storages.items() if address not in apart)
