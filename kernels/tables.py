"""Tables for kernels that run over many tensors in one launch: addresses, and what each program works on.

A kernel knows that it may load 16 bytes at once only if that holds for all it sees, hence two launches: one over the
aligned tensors, one over the others, if there are any.
"""

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

# Bytes of one wide memory access.
ACCESS = 16
# Stands for the address of a tensor without memory.
FAKE_ADDRESS = ACCESS


def addresses(tensors: Sequence[Tensor | None]) -> list[int]:
    """Where the tensors lie in memory; 0 for None."""
    return [0 if t is None else FAKE_ADDRESS if isinstance(t, FakeTensor) else t.data_ptr() for t in tensors]


def starts(sizes: Sequence[int]) -> list[int]:
    """Where parts of these sizes begin, one after the other, and where the last one ends."""
    return [0, *accumulate(sizes)]


def begins_aligned(tensor: Tensor) -> bool:
    """Whether it begins at a multiple of 16 bytes, as memory is allocated, fake or not."""
    return int(tensor.storage_offset()) * tensor.element_size() % ACCESS == 0


def split_by_alignment(
    aligned: Sequence[bool], entries: Sequence[Sequence[tuple[int, ...]]], device: torch.device
) -> list[tuple[bool, Tensor]]:
    """(aligned, int32 table of the entries of all such tensors) for the aligned ones and for the others, if any.

    ``entries``: those of each tensor in turn, one a program.
    """
    flat = [(flag, entry) for flag, of_tensor in zip(aligned, entries, strict=True) for entry in of_tensor]
    groups = {flag: [entry for other, entry in flat if other == flag] for flag in (True, False)}
    return [(flag, torch.tensor(group, dtype=torch.int32, device=device)) for flag, group in groups.items() if group]
