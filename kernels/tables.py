"""Tables for kernels that run over many tensors in one launch: addresses, and what each program works on.

A kernel knows that it may load 16 bytes at once only if that holds for all it sees, hence two launches: one over the
aligned tensors, one over the others, if there are any.

A fake table keeps its values aside, and the tensors it points to get made-up addresses, so that the bytes of a launch
are counted (``traffic``) where nothing runs.
"""

from collections.abc import Sequence
from itertools import accumulate, count
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily

from fastgan_engine.kernels.launch import jit, tl

# Bytes of one wide memory access.
ACCESS = 16
# Made-up addresses start here, beyond any real one, and lie this far apart.
_FAKE_BASE = 1 << 61
_FAKE_SPACING = 1 << 40
_fake_bases = count(_FAKE_BASE, _FAKE_SPACING)


class Contents(NamedTuple):
    """What a fake table would hold: its values, a real CPU tensor, and the memory of the tensors it points to."""

    values: Tensor
    memories: list[range]


def table(values: Sequence[Any], dtype: torch.dtype, device: torch.device, memories: Sequence[range] = ()) -> Tensor:
    """The values as a tensor; ``memories``: see ``Contents``."""
    made = torch.tensor(values, dtype=dtype, device=device)
    if isinstance(made, FakeTensor):
        with unset_fake_temporarily():
            # On the storage, which outlives the Python object and is shared by what is detached from it.
            made.untyped_storage().contents = Contents(torch.tensor(values, dtype=dtype), list(memories))  # type: ignore[attr-defined]
    return made


def address_table(tensors: Sequence[Tensor | None], device: torch.device) -> Tensor:
    """``addresses`` of the tensors on the device."""
    memories = [_fake_memory(tensor) for tensor in tensors if isinstance(tensor, FakeTensor)]
    return table(addresses(tensors), torch.int64, device, memories)


def contents(tensor: Tensor) -> Contents | None:
    """What a fake table would hold; None of any other tensor."""
    return getattr(tensor.untyped_storage(), "contents", None)


def addresses(tensors: Sequence[Tensor | None]) -> list[int]:
    """Where the tensors lie in memory; 0 for None."""
    return [0 if tensor is None else _address(tensor) for tensor in tensors]


def _address(tensor: Tensor) -> int:
    if isinstance(tensor, FakeTensor):
        return _fake_memory(tensor).start + int(tensor.storage_offset()) * tensor.element_size()
    return tensor.data_ptr()


def _fake_memory(tensor: Tensor) -> range:
    """The made-up memory of a fake tensor's storage: the same at every call."""
    storage: Any = tensor.untyped_storage()
    if not hasattr(storage, "memory"):
        start = next(_fake_bases)
        storage.memory = range(start, start + storage.nbytes())
    return storage.memory


@jit
def pointer_at(addresses_ptr, index, dtype: tl.constexpr, ALIGNED: tl.constexpr):
    """The pointer that stands at ``index`` of a table of addresses."""
    pointer = tl.load(addresses_ptr + index).to(tl.pointer_type(dtype))
    if ALIGNED:
        pointer = tl.multiple_of(pointer, 16)
    return pointer


def starts(sizes: Sequence[int]) -> list[int]:
    """Where parts of these sizes begin, one after the other, and where the last one ends."""
    return [0, *accumulate(sizes)]


def same_strides(sizes: Sequence[int], a: Sequence[int], b: Sequence[int]) -> bool:
    """Whether tensors of these sizes lie alike in memory; the stride of a dimension of size 1 means nothing."""
    return all(size == 1 or x == y for size, x, y in zip(sizes, a, b, strict=True))


def begins_aligned(tensor: Tensor) -> bool:
    """Whether it begins at a multiple of 16 bytes, as memory is allocated, fake or not."""
    return int(tensor.storage_offset()) * tensor.element_size() % ACCESS == 0


def split_by_alignment(
    aligned: Sequence[bool], entries: Sequence[Sequence[tuple[int, ...]]], device: torch.device
) -> list[tuple[bool, Tensor]]:
    """(aligned, int32 table of the entries of all such tensors) for the aligned ones and for the others, if any.

    ``entries``: those of each tensor in turn, one a program: the tensor's index, then the position in it.
    """
    flat = [(flag, entry) for flag, of_tensor in zip(aligned, entries, strict=True) for entry in of_tensor]
    groups = {flag: [entry for other, entry in flat if other == flag] for flag in (True, False)}
    return [(flag, table(group, torch.int32, device)) for flag, group in groups.items() if group]


class MovingAddresses:
    """Where tensors lie that autograd allocates anew, such as gradients, as a device table, without a host wait.

    The table is uploaded whenever they have moved. Inside a CUDA graph capture the upload becomes part of the graph,
    which reads its pinned memory again at every replay: each such piece, made beforehand since a capture may not
    allocate it, is used once and kept.
    """

    SPARES = 8

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._now: list[int] = []
        self._spares: list[Tensor] = []
        self._kept: list[Tensor] = []

    def table(self, tensors: Sequence[Tensor | None]) -> Tensor:
        """``address_table`` of the tensors: always as many.

        Raises:
            RuntimeError: the first call is inside a capture.
        """
        if self.device.type != "cuda" or any(isinstance(tensor, FakeTensor) for tensor in tensors):
            return address_table(tensors, self.device)
        now = addresses(tensors)
        host = torch.tensor(now, dtype=torch.int64)
        if torch.cuda.is_current_stream_capturing():
            return self._upload_captured(host)
        while len(self._spares) < self.SPARES:
            self._spares.append(torch.empty_like(host, pin_memory=True))
        if now != self._now:
            self._now, self._table = now, host.pin_memory().to(self.device, non_blocking=True)
        return self._table

    def _upload_captured(self, host: Tensor) -> Tensor:
        if not self._spares:
            raise RuntimeError(
                "a table of addresses was first made inside a CUDA graph capture; run once in the warm-up"
            )
        self._kept.append(self._spares.pop().copy_(host))
        return self._kept[-1].to(self.device, non_blocking=True)
