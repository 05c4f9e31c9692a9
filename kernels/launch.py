"""The one way a Triton kernel is launched, and what a launch tells without running.

``jit`` marks a kernel, ``launch`` runs it. Under ``FakeTensorMode`` nothing runs: the launch is only recorded, so that
the launches and bytes of a whole iteration are counted without a GPU, and the kernels are compiled ahead of time in
exactly the specialisations that training asks for.

Triton is optional (it does not exist on macOS): where it is absent ``triton`` is None, the kernels stay plain
functions and ``launch`` is never reached, because ``dispatch`` chooses the reference.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

try:
    import triton
    import triton.language as tl
except ImportError:
    triton, tl = None, SimpleNamespace(constexpr=None)

# Triton decides at the ``jit`` decorator whether a kernel is interpreted, hence once, here.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
# Compile options of every kernel. Contraction to fused multiply-add is pinned because Triton's default changes.
OPTIONS = {"enable_fp_fusion": True}


@dataclass(frozen=True, eq=False)
class Launch:
    """One kernel launch: the kernel, its grid, its positional arguments, and its constexprs and options by name."""

    kernel: Any
    grid: tuple[int, ...]
    args: tuple[Any, ...]
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the kernel function without its private underscore: ``norm_glu_apply_kernel``."""
        return self.kernel.fn.__name__.lstrip("_")

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensor arguments, by parameter name."""
        arguments = {**dict(zip(self.kernel.arg_names, self.args, strict=False)), **self.meta}
        return {name: value for name, value in arguments.items() if isinstance(value, Tensor)}


_recorders: list[list[Launch]] = []


@contextmanager
def record_launches() -> Iterator[list[Launch]]:
    """Collects every launch made inside, real or fake."""
    launches: list[Launch] = []
    _recorders.append(launches)
    try:
        yield launches
    finally:
        # By identity: two recorders with equal (empty) lists are still two.
        _recorders[:] = [recorder for recorder in _recorders if recorder is not launches]


def jit(function: Callable[..., Any] | None = None, *, unspecialised: Sequence[str] = ()) -> Any:
    """``triton.jit``, as ``@jit`` or ``@jit(unspecialised=...)``; the function itself where Triton is absent.

    Triton compiles a kernel anew for each integer argument that is 1, or a multiple of 16, or neither. That pays for
    the stride that decides on wide accesses; ``unspecialised`` names the integers for which it does not.
    """
    if function is None:
        return lambda decorated: jit(decorated, unspecialised=unspecialised)
    return function if triton is None else triton.jit(function, do_not_specialize=list(unspecialised))


def launch(kernel: Any, grid: tuple[int, ...], *args: Any, **meta: Any) -> None:
    """Runs ``kernel`` over ``grid`` on the device of its tensors, or only records it when they are fake.

    ``args`` in the kernel's order; ``meta``: constexprs and compile options (``num_warps``) by name.
    """
    record = Launch(kernel, grid, args, {**OPTIONS, **meta})
    for recorder in _recorders:
        recorder.append(record)
    tensors = [arg for arg in args if isinstance(arg, Tensor)]
    if any(isinstance(tensor, FakeTensor) for tensor in tensors):
        return
    with torch.cuda.device_of(tensors[0]):
        kernel[grid](*args, **record.meta)


def triton_type(dtype: torch.dtype) -> Any:
    """Triton's name for a dtype, for kernels that find their pointers in tables."""
    return getattr(tl, str(dtype).removeprefix("torch."))


def cdiv(numerator: int, denominator: int) -> int:
    """Quotient rounded up."""
    return -(-numerator // denominator)


def next_power_of_2(number: int) -> int:
    """Smallest power of two that is at least ``number`` (>= 1)."""
    return 1 << (number - 1).bit_length()
