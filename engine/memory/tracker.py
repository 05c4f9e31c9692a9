"""Every storage that a piece of code makes on the device: when it comes, when it goes, and what it is.

Works on fake tensors: a storage has its size there, but no memory. It is gone when its last tensor is, which Python's
reference counts and autograd's graph decide as they do in a real run.
"""

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

SAVED, TEMPORARY = "saved activations", "temporaries"


@dataclass
class Storage:
    """A piece of memory: bytes, the shape and type of the tensor that brought it, by which operation, in which phase.

    ``name``: of an owned tensor; ``category``: what it is for, which may show only later.
    """

    bytes: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    made_by: str
    phase: str
    category: str = TEMPORARY
    name: str = ""


@dataclass(frozen=True)
class Event:
    """A storage, by its number, comes or goes."""

    storage: int
    comes: bool
    phase: str


class Tracker(TorchDispatchMode):
    """Inside ``with tracker``, records storages; enter it after ``FakeTensorMode``. ``phase`` is set from outside."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: list[Storage] = []
        self.events: list[Event] = []
        self.phase = "start"
        self._living: dict[int, int] = {}
        self._references: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, FakeTensor):
                self._see(leaf, func._schema.name.removeprefix("aten::"))
        return out

    def adopt(self, tensors: Iterable[tuple[str, Tensor]], category: str) -> None:
        """Takes over tensors that were made before, by name."""
        for name, tensor in tensors:
            if (storage := self._see(tensor, "")) is not None:
                storage.category, storage.name = category, name

    def mark(self, tensors: Iterable[Tensor], category: str) -> None:
        """Says what storages are for, unless they have been adopted or marked with something else than "saved"."""
        for tensor in tensors:
            number = self._living.get(tensor.untyped_storage()._cdata)
            if number is not None and self.storages[number].category in (SAVED, TEMPORARY):
                self.storages[number].category = category

    @contextmanager
    def marking_saved(self) -> Iterator[None]:
        """Inside, what autograd keeps for a backward pass is marked."""

        def pack(tensor: Tensor) -> Tensor:
            self.mark([tensor], SAVED)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, _same):
            yield

    def _see(self, tensor: Tensor, made_by: str) -> Storage | None:
        memory = tensor.untyped_storage()
        key = memory._cdata
        if key in self._living:
            return None
        number = self._living[key] = len(self.storages)
        storage = Storage(memory.nbytes(), tuple(tensor.shape), tensor.dtype, made_by, self.phase)
        self.storages.append(storage)
        self.events.append(Event(number, True, self.phase))
        self._references[number] = weakref.ref(memory, partial(self._gone, key, number))
        return storage

    def _gone(self, key: int, number: int, _: Any) -> None:
        self._living.pop(key, None)
        self._references.pop(number, None)
        self.events.append(Event(number, False, self.phase))


def _same(tensor: Tensor) -> Tensor:
    return tensor


def live_bytes(storages: list[Storage], events: Iterable[Event], counts: Callable[[Storage], bool]) -> list[int]:
    """After each event, the bytes that are alive of the storages that count."""
    total, timeline = 0, []
    for event in events:
        storage = storages[event.storage]
        if counts(storage):
            total += storage.bytes if event.comes else -storage.bytes
        timeline.append(total)
    return timeline
