"""Bytes that a recorded launch moves, counted by running its index arithmetic, without data and without a GPU.

The kernel's own code runs in Triton's interpreter with made-up addresses: a load adds the bytes of its unmasked
elements and gives zeros, a store only adds. What is counted is what the kernel asks for, so an element read twice
counts twice, whatever a cache would save. An address outside its tensor's memory is an error.

A large grid is not run in full. Along each axis the first program, the middle one and the last are run and the middle
one stands for all others: exact as long as only the first and last programs of an axis have ragged masks. Where a table
(``tables``) says which part of which tensor each program works on, that holds for the parts of each tensor in turn.
"""

import inspect
import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from fastgan_engine.kernels.launch import Launch
from fastgan_engine.kernels.tables import Contents, contents

# Made-up addresses start here, beyond any real one, and lie this far apart.
_BASE = 1 << 60
_SPACING = 1 << 48
# Kernel parameters with this prefix are scratch between passes, not inputs or outputs of the operation.
SCRATCH_PREFIX = "partial"


@dataclass(frozen=True)
class Traffic:
    """Bytes of one launch.

    Attributes:
        moved: loaded and stored by all its programs, masks applied.
        minimum: each byte that it loads of a tensor once, and each that it stores once; what it stores to scratch
            (``partial_*``) does not count: a single pass would not need it.
    """

    moved: int
    minimum: int


class StandIn:
    """Stands for a tensor that is not there: a dtype and an address, as Triton asks for them."""

    def __init__(self, tensor: Tensor, address: int = 0) -> None:
        self.dtype = tensor.dtype
        self.memory = range(address, address + tensor.untyped_storage().nbytes())
        self._address = address + int(tensor.storage_offset()) * tensor.element_size()

    def data_ptr(self) -> int:
        return self._address

    def ptr_range(self) -> int:
        return 0


def traffic(launch: Launch) -> Traffic:
    """Bytes that ``launch`` moves, and the least it could; of tables and real CPU tensors the contents are read.

    Raises:
        IndexError: the kernel goes outside the memory of a tensor, for example because an offset overflows 32 bits.
    """
    from triton.runtime import interpreter

    kernel = _interpreted(launch.kernel)
    options = {name: value for name, value in launch.meta.items() if name in kernel.arg_names}
    arguments = inspect.getcallargs(kernel.fn, *launch.args, **options)
    tables = {name: held for name, value in arguments.items() if (held := _contents(value)) is not None}
    arguments |= {name: held.values for name, held in tables.items()}
    standing = _stand_ins(arguments)
    readable = {name: value for name, value in arguments.items() if isinstance(value, Tensor) and _is_readable(value)}
    memories = _memories(standing, readable, tables)
    total: Counter[tuple[str, str]] = Counter()
    counter: Counter[tuple[str, str]] = Counter()
    grid = (*launch.grid, 1, 1)[:3]
    # All data is zero, also what the kernel divides by.
    quiet = interpreter.np.errstate(all="ignore")
    with quiet, _interpreting(interpreter, kernel), _counting(interpreter, counter, memories, set(readable)):
        converted = _convert(interpreter, kernel, {**arguments, **standing})
        interpreter.interpreter_builder.set_grid_dim(*grid)
        for program, times in _programs(grid, tables):
            counter.clear()
            interpreter.interpreter_builder.set_grid_idx(*program)
            kernel.rewrite()(**converted)
            for key, size in counter.items():
                total[key] += size * times
    sizes = {
        name: value.numel() * value.element_size() for name, value in arguments.items() if isinstance(value, Tensor)
    }
    return Traffic(sum(total.values()), _minimum(total, {name: len(m) for name, m in memories.items()} | sizes))


def _minimum(total: Counter[tuple[str, str]], sizes: dict[str, int]) -> int:
    """A tensor moves at least its size, or as much of it as was touched."""
    return sum(
        min(size, sizes.get(owner, size))
        for (kind, owner), size in total.items()
        if kind == "load" or not owner.startswith(SCRATCH_PREFIX)
    )


def _contents(value: Any) -> Contents | None:
    return contents(value) if isinstance(value, FakeTensor) else None


def _stand_ins(arguments: dict[str, Any]) -> dict[str, StandIn]:
    """Each tensor without readable data, at an address of its own."""
    absent = {name: value for name, value in arguments.items() if isinstance(value, Tensor) and not _is_readable(value)}
    return {name: StandIn(value, _BASE + index * _SPACING) for index, (name, value) in enumerate(absent.items())}


def _is_readable(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and not isinstance(tensor, FakeTensor)


def _memories(
    standing: dict[str, StandIn], readable: dict[str, Tensor], tables: dict[str, Contents]
) -> dict[str, range]:
    """Memory by owner: a parameter's name, or of what a table points to the table's name and the address."""
    found = {name: stand_in.memory for name, stand_in in standing.items()}
    for name, tensor in readable.items():
        found[name] = range(tensor.data_ptr(), tensor.data_ptr() + tensor.numel() * tensor.element_size())
    pointed = {memory.start: (name, memory) for name, held in tables.items() for memory in held.memories}
    return found | {f"{name} -> {start:#x}": memory for start, (name, memory) in pointed.items()}


def _programs(grid: Sequence[int], tables: dict[str, Contents]) -> Iterator[tuple[tuple[int, ...], int]]:
    """Programs to run, each with the number of programs it stands for."""
    if not tables:
        for axes in itertools.product(*map(_sample, grid)):
            yield tuple(index for index, _ in axes), math.prod(times for _, times in axes)
        return
    entries = [held.values.tolist() for held in tables.values() if held.values.dim() == 2]
    kinds = _kinds(entries[0]) if entries else [[program] for program in range(grid[0])]
    for alike in kinds:
        yield (alike[0], 0, 0), len(alike)


def _kinds(entries: list[list[int]]) -> list[list[int]]:
    """Programs of one tensor each, alike in whether their part of it is the first, the last or between, by axis."""
    ends: dict[int, list[int]] = {}
    for tensor, *position in entries:
        ends[tensor] = list(map(max, ends.get(tensor, position), position))
    kinds: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for program, (tensor, *position) in enumerate(entries):
        kind = [(at == 0, at == last) for at, last in zip(position, ends[tensor], strict=True)]
        kinds[tensor, *kind].append(program)
    return list(kinds.values())


def _sample(size: int) -> list[tuple[int, int]]:
    """Programs along one axis of the grid, each with the number of programs it stands for."""
    if size <= 3:
        return [(index, 1) for index in range(size)]
    return [(0, 1), (size // 2, size - 2), (size - 1, 1)]


def _interpreted(kernel: Any) -> Any:
    """The kernel as the interpreter runs it, compiled or not."""
    from triton.runtime.interpreter import InterpretedFunction

    return kernel if isinstance(kernel, InterpretedFunction) else InterpretedFunction(kernel.fn)


@contextmanager
def _interpreting(interpreter: Any, kernel: Any) -> Iterator[None]:
    """Triton's language is the interpreter's, also inside the functions that a kernel calls (``tl.sum`` is one)."""
    from triton.runtime.jit import JITFunction

    def call(function: Any, *args: Any, **named: Any) -> Any:
        scope = interpreter._patch_lang(function.fn)
        try:
            return _interpreted(function).rewrite()(*args, **named)
        finally:
            scope.restore()

    refuse, JITFunction.__call__ = JITFunction.__call__, call
    scope = interpreter._patch_lang(kernel.fn)
    try:
        yield
    finally:
        scope.restore()
        JITFunction.__call__ = refuse


def _convert(interpreter: Any, kernel: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments as the interpreter's kernels take them."""
    constexprs = interpreter.GridExecutor(kernel.fn, kernel.arg_names, (1,)).constexprs
    return {
        name: value if name in constexprs else interpreter._implicit_cvt(value) for name, value in arguments.items()
    }


@contextmanager
def _counting(
    interpreter: Any, counter: Counter[tuple[str, str]], memories: dict[str, range], readable: set[str]
) -> Iterator[None]:
    """Loads and stores of the interpreter add to ``counter``, by kind and owner; loads read only what is readable."""
    builder = interpreter.interpreter_builder
    load, store = builder.create_masked_load, builder.create_masked_store

    def count(kind: str, pointers: Any, mask: Any) -> bool:
        """Whether there is something to read."""
        addresses = pointers.data[mask.data]
        if addresses.size == 0:
            return False
        address, last = int(addresses.min()), int(addresses.max())
        # "": at a real address out of a real table, whose bounds nobody knows.
        owner = next((name for name, memory in memories.items() if address in memory and last in memory), "")
        if not owner and last > _BASE - _SPACING:
            raise IndexError(f"a {kind} goes outside its tensor")
        counter[kind, owner] += addresses.size * (pointers.get_element_ty().primitive_bitwidth // 8)
        return owner in readable

    def counted_load(pointers: Any, mask: Any, other: Any, *modifiers: Any, **named: Any) -> Any:
        if count("load", pointers, mask):
            return load(pointers, mask, other, *modifiers, **named)
        dtype = pointers.get_element_ty()
        return interpreter.TensorHandle(
            interpreter.np.zeros(pointers.data.shape, interpreter._get_np_dtype(dtype)), dtype
        )

    def counted_store(pointers: Any, value: Any, mask: Any, *modifiers: Any) -> None:
        count("store", pointers, mask)

    builder.create_masked_load, builder.create_masked_store = counted_load, counted_store
    try:
        yield
    finally:
        builder.create_masked_load, builder.create_masked_store = load, store
