"""Bytes that a recorded launch moves, counted by running its index arithmetic, without data and without a GPU.

The kernel's own code runs in Triton's interpreter with made-up addresses: a load adds the bytes of its unmasked
elements and gives zeros, a store only adds. What is counted is what the kernel asks for, so an element read twice
counts twice, whatever a cache would save.

A large grid is not run in full. Along each axis the first two programs, the middle one and the last are run and the
middle one stands for all others: exact as long as only the first and last programs of an axis have ragged masks.
"""

import inspect
import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from fastgan_engine.kernels.launch import Launch

# Made-up addresses start here, beyond any real one, and lie this far apart.
_BASE = 1 << 60
_SPACING = 1 << 48
# Kernel parameters with this prefix are scratch between passes, not inputs or outputs of the operation.
SCRATCH_PREFIX = "partial"


def bytes_moved(launch: Launch) -> int:
    """Bytes that all programs of ``launch`` load and store, masks applied."""
    from triton.runtime import interpreter

    kernel = _interpreted(launch.kernel)
    arguments = inspect.getcallargs(kernel.fn, *launch.args, **_parameters_of(kernel, launch.meta))
    counter = [0]
    moved = 0
    grid = (*launch.grid, 1, 1)[:3]
    with _interpreting(interpreter, kernel), _counting(interpreter, counter):
        converted = _convert(interpreter, kernel, arguments)
        interpreter.interpreter_builder.set_grid_dim(*grid)
        for program in itertools.product(*map(_sample, grid)):
            counter[0] = 0
            interpreter.interpreter_builder.set_grid_idx(*(index for index, _ in program))
            kernel.rewrite()(**converted)
            moved += counter[0] * math.prod(times for _, times in program)
    return moved


def bytes_minimum(launch: Launch) -> int:
    """Bytes of the tensors it works on, each once; scratch between passes (``partial_*``) does not count."""
    return sum(
        tensor.numel() * tensor.element_size()
        for name, tensor in launch.tensors.items()
        if not name.startswith(SCRATCH_PREFIX)
    )


def _sample(size: int) -> list[tuple[int, int]]:
    """Programs along one axis of the grid, each with the number of programs it stands for."""
    if size <= 4:
        return [(index, 1) for index in range(size)]
    return [(0, 1), (1, 1), (size // 2, size - 3), (size - 1, 1)]


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


def _parameters_of(kernel: Any, meta: dict[str, Any]) -> dict[str, Any]:
    """Without compile options such as ``num_warps``."""
    return {name: value for name, value in meta.items() if name in kernel.arg_names}


def _convert(interpreter: Any, kernel: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments as the interpreter's kernels take them; a fake tensor gets an address of its own."""
    constexprs = interpreter.GridExecutor(kernel.fn, kernel.arg_names, (1,)).constexprs
    addresses = itertools.count(_BASE, _SPACING)
    return {
        name: value if name in constexprs else interpreter._implicit_cvt(_addressed(value, addresses))
        for name, value in arguments.items()
    }


def _addressed(value: Any, addresses: Iterator[int]) -> Any:
    if isinstance(value, FakeTensor):
        return _Address(value.dtype, next(addresses))
    if isinstance(value, Tensor) and value.device.type != "cpu":
        return _Address(value.dtype, next(addresses))
    return value


class _Address:
    """Stands for a tensor: a dtype and an address."""

    def __init__(self, dtype: Any, address: int) -> None:
        self.dtype = dtype
        self._address = address

    def data_ptr(self) -> int:
        return self._address

    def ptr_range(self) -> int:
        return 0


@contextmanager
def _counting(interpreter: Any, counter: list[int]) -> Iterator[None]:
    """Loads and stores of the interpreter add to ``counter``; only real (CPU) addresses are followed."""
    builder = interpreter.interpreter_builder
    load, store = builder.create_masked_load, builder.create_masked_store

    def count(pointers: Any, mask: Any) -> bool:
        counter[0] += int(mask.data.sum()) * (pointers.get_element_ty().primitive_bitwidth // 8)
        return bool((pointers.data < _BASE).all())

    def counted_load(pointers: Any, mask: Any, other: Any, *modifiers: Any, **named: Any) -> Any:
        if count(pointers, mask):
            return load(pointers, mask, other, *modifiers, **named)
        return interpreter.TensorHandle(
            interpreter.np.zeros(pointers.data.shape, interpreter._get_np_dtype(pointers.get_element_ty())),
            pointers.get_element_ty(),
        )

    def counted_store(pointers: Any, value: Any, mask: Any, *modifiers: Any) -> None:
        count(pointers, mask)

    builder.create_masked_load, builder.create_masked_store = counted_load, counted_store
    try:
        yield
    finally:
        builder.create_masked_load, builder.create_masked_store = load, store
