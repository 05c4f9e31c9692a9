"""Bytes that a recorded launch moves, counted by running its index arithmetic, without data and without a GPU.

The kernel's own code runs in Triton's interpreter with made-up addresses: a load adds the bytes of its unmasked
elements and gives zeros, a store only adds. What is counted is what the kernel asks for, so an element read twice
counts twice, whatever a cache would save. An address outside its tensor's memory is an error.

A large grid is not run in full. Along each axis the first program, the middle one and the last are run and the middle
one stands for all others: exact as long as only the first and last programs of an axis have ragged masks.
"""

import inspect
import itertools
import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from fastgan_engine.kernels.launch import Launch

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
    """Bytes that ``launch`` moves, and the least it could; of real CPU tensors the contents are read (tables).

    Raises:
        IndexError: the kernel goes outside the memory of a tensor, for example because an offset overflows 32 bits.
    """
    from triton.runtime import interpreter

    kernel = _interpreted(launch.kernel)
    options = {name: value for name, value in launch.meta.items() if name in kernel.arg_names}
    arguments = inspect.getcallargs(kernel.fn, *launch.args, **options)
    standing = _stand_ins(arguments)
    readable = [value for value in arguments.values() if isinstance(value, Tensor) and _is_readable(value)]
    memories = [stand_in.memory for stand_in in standing.values()]
    total: Counter[tuple[str, str]] = Counter()
    counter: Counter[tuple[str, int]] = Counter()
    grid = (*launch.grid, 1, 1)[:3]
    # All data is zero, also what the kernel divides by.
    quiet = interpreter.np.errstate(all="ignore")
    with quiet, _interpreting(interpreter, kernel), _counting(interpreter, counter, readable, memories):
        converted = _convert(interpreter, kernel, {**arguments, **standing})
        interpreter.interpreter_builder.set_grid_dim(*grid)
        for program in itertools.product(*map(_sample, grid)):
            counter.clear()
            interpreter.interpreter_builder.set_grid_idx(*(index for index, _ in program))
            kernel.rewrite()(**converted)
            times = math.prod(times for _, times in program)
            for (kind, address), size in counter.items():
                total[kind, _owner(address, standing)] += size * times
    return Traffic(sum(total.values()), _minimum(total, launch.tensors))


def _minimum(total: Counter[tuple[str, str]], tensors: dict[str, Tensor]) -> int:
    """A tensor moves at least its size, or as much of it as was touched."""
    return sum(
        min(size, tensors[name].numel() * tensors[name].element_size()) if name in tensors else size
        for (kind, name), size in total.items()
        if kind == "load" or not name.startswith(SCRATCH_PREFIX)
    )


def _stand_ins(arguments: dict[str, Any]) -> dict[str, StandIn]:
    """Each tensor without readable data, at an address of its own."""
    absent = {name: value for name, value in arguments.items() if isinstance(value, Tensor) and not _is_readable(value)}
    return {name: StandIn(value, _BASE + index * _SPACING) for index, (name, value) in enumerate(absent.items())}


def _is_readable(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and not isinstance(tensor, FakeTensor)


def _owner(address: int, standing: dict[str, StandIn]) -> str:
    """The parameter that an address belongs to; "" for a real tensor's, or one that came out of a table."""
    return list(standing)[(address - _BASE) // _SPACING] if address >= _BASE else ""


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
    interpreter: Any, counter: Counter[tuple[str, int]], readable: list[Tensor], memories: list[range]
) -> Iterator[None]:
    """Loads and stores of the interpreter add to ``counter``, by kind and address; loads read ``readable`` only."""
    builder = interpreter.interpreter_builder
    ranges = [(t.data_ptr(), t.data_ptr() + t.numel() * t.element_size()) for t in readable]
    load, store = builder.create_masked_load, builder.create_masked_store

    def count(kind: str, pointers: Any, mask: Any) -> bool:
        """Whether there is something to read."""
        addresses = pointers.data[mask.data]
        if addresses.size == 0:
            return False
        address, last = int(addresses.min()), int(addresses.max())
        if last > _BASE - _SPACING and not any(address in memory and last in memory for memory in memories):
            raise IndexError(f"a {kind} goes outside its tensor")
        counter[kind, address] += addresses.size * (pointers.get_element_ty().primitive_bitwidth // 8)
        return any(start <= address < stop for start, stop in ranges)

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
