"""Counts what a piece of code makes the device do: compute operations, FLOP, and bytes read and written.

An operation is an ATen operation as it reaches the device, after autograd and after composite ones have come apart, or
one launch of a Triton kernel. Views, allocations and questions about a tensor cost nothing and do not count. A
multi-tensor operation (``_foreach_*``, ``_fused_*``) is one operation with all its tensors, or as many where these
differ in dtype or layout; convolution backward is one with both gradients.

FLOP are those of ``torch.utils.flop_counter``: matrix products and convolutions, multiply-add = 2. Bytes: each distinct
input tensor read once and each output written once, whatever a cache would save; expanded dimensions are read once;
what is only overwritten (``copy_``, ``out=``) is not read. Of a Triton launch, what its own index arithmetic loads and
stores (``kernels.traffic``).
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

from torch import Tensor
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from fastgan_engine.kernels import launch as launching
from fastgan_engine.kernels.launch import Launch
from fastgan_engine.kernels.tables import contents
from fastgan_engine.kernels.traffic import traffic

# Namespaces of operations that compute nothing: questions about tensors, and marks for the profiler.
_FREE_NAMESPACES = ("prim", "profiler")
# Allocations, and aliases that their schemas do not call views.
_FREE = {
    "alias", "detach", "detach_", "empty", "empty_like", "empty_permuted", "empty_strided", "lift", "lift_fresh",
    "new_empty", "new_empty_strided", "resize_", "set_", "_local_scalar_dense", "_unsafe_view",
}  # fmt: skip
# They overwrite their first argument without reading it.
_OVERWRITING = {"copy_", "fill_", "zero_", "uniform_", "normal_", "random_", "_foreach_copy_", "_foreach_zero_"}
# They look at the shape of their first argument only.
_SHAPED_LIKE = {"full_like", "new_full", "new_ones", "new_zeros", "ones_like", "rand_like", "randn_like", "zeros_like"}

Bytes = Callable[[Launch], int]


@dataclass(frozen=True)
class Op:
    """One operation: its name, floating-point operations, bytes read and written, and whether it is a Triton launch."""

    name: str
    flop: int
    bytes: int
    triton: bool = False


@dataclass(frozen=True)
class Row:
    """All operations of one name."""

    name: str
    ops: int
    gflop: float
    gbytes: float
    triton: bool


@dataclass(frozen=True)
class Cost:
    """What was counted, operation by operation."""

    operations: Sequence[Op]

    @property
    def ops(self) -> int:
        return len(self.operations)

    @property
    def gflop(self) -> float:
        return sum(op.flop for op in self.operations) / 1e9

    @property
    def gbytes(self) -> float:
        return sum(op.bytes for op in self.operations) / 1e9

    def rows(self) -> list[Row]:
        """By name, those that move most bytes first."""
        groups: dict[tuple[str, bool], list[Op]] = defaultdict(list)
        for op in self.operations:
            groups[op.name, op.triton].append(op)
        rows = [
            Row(name, len(own), sum(op.flop for op in own) / 1e9, sum(op.bytes for op in own) / 1e9, triton)
            for (name, triton), own in groups.items()
        ]
        return sorted(rows, key=lambda row: (row.gbytes, row.ops), reverse=True)


@contextmanager
def counting(launch_bytes: Bytes | None = None) -> Iterator[list[Op]]:
    """Collects the operations made inside; under ``FakeTensorMode`` (entered before) Triton launches too.

    launch_bytes: what a launch reads and writes; by default counted by ``launch_traffic``.
    """
    operations: list[Op] = []
    launches = _Launches()
    with mock.patch.object(launching, "_recorders", [launches]), _Counter(operations):
        yield operations
    count = launch_bytes or launch_traffic()
    operations += [Op(launch.name, 0, count(launch), triton=True) for launch in launches]


def launch_traffic() -> Bytes:
    """Bytes that a launch moves; launches that differ in nothing else than the tensors are counted once."""
    known: dict[Any, int] = {}

    def count(launch: Launch) -> int:
        if any(contents(tensor) is not None for tensor in launch.tensors.values()):
            return traffic(launch).moved  # what a table holds decides, too
        key = (launch.name, launch.grid, tuple(map(_identity, launch.args)), str(launch.meta))
        if key not in known:
            known[key] = traffic(launch).moved
        return known[key]

    return count


def _identity(value: Any) -> Any:
    """What of an argument decides on the bytes: of a tensor its shape, strides and width."""
    return (tuple(value.shape), value.stride(), value.element_size()) if isinstance(value, Tensor) else value


class _Launches(list[Launch]):
    """Keeps launches, but not their very tensors: autograd copies a gradient that anyone else still holds."""

    def append(self, launch: Launch) -> None:
        args = tuple(arg.detach() if isinstance(arg, FakeTensor) else arg for arg in launch.args)
        super().append(replace(launch, args=args))


class _Counter(TorchDispatchMode):
    def __init__(self, operations: list[Op]) -> None:
        super().__init__()
        self.operations = operations

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if _computes(func, out):
            flop = flop_registry.get(func._overloadpacket)
            work = flop(*args, **kwargs, out_val=out) if flop else 0
            moved, parts = _moved(func, args, kwargs, out), _parts(func, args)
            self.operations += [Op(_name(func), work // parts, moved // parts)] * parts
        return out


def _name(func: OpOverload) -> str:
    return func._schema.name.removeprefix("aten::")


def _computes(func: OpOverload, out: Any) -> bool:
    if func.namespace in _FREE_NAMESPACES or func.is_view or _name(func) in _FREE:
        return False
    return bool(func._schema.is_mutable or _tensors(out))


def _moved(func: OpOverload, args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> int:
    """Bytes that the operation reads and writes, from its schema and its tensors."""
    unread = _name(func) in _OVERWRITING | _SHAPED_LIKE
    read: dict[Any, int] = {}
    written = {_place(tensor): tensor_bytes(tensor) for tensor in _tensors(out)}
    for index, argument in enumerate(func._schema.arguments):
        value = args[index] if index < len(args) else kwargs.get(argument.name)
        writes = argument.alias_info is not None and argument.alias_info.is_write
        tensors = {_place(tensor): tensor_bytes(tensor) for tensor in _tensors(value)}
        if writes:
            written |= tensors
        if not (argument.is_out or (unread and index == 0)):
            read |= tensors
    return sum(read.values()) + sum(written.values())


def _parts(func: OpOverload, args: Sequence[Any]) -> int:
    """How many operations it is: a multi-tensor one is one only where its tensors are alike, as on CUDA."""
    lists = [arg for arg in args if isinstance(arg, list | tuple) and arg and isinstance(arg[0], Tensor)]
    if not (_name(func).startswith("_foreach_") and lists):
        return 1
    dtypes = [{tensor.dtype for tensor in tensors} for tensors in lists]
    strides = [[(tuple(tensor.shape), tensor.stride()) for tensor in tensors] for tensors in lists]
    alike = all(len(own) == 1 for own in dtypes) and all(own == strides[0] for own in strides)
    return 1 if alike else len(lists[0])


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def _place(tensor: Tensor) -> Any:
    """What two names of the same piece of memory have in common."""
    return tensor.untyped_storage()._cdata, tensor.storage_offset(), tuple(tensor.shape), tensor.stride()


def tensor_bytes(tensor: Tensor) -> int:
    """Bytes that lie behind a tensor's elements: those of an expanded dimension once."""
    count = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        count *= 1 if stride == 0 and size else size
    return count * tensor.element_size()
