"""What every kernel test needs: the error rule, NaN-poisoned memory, layouts, devices and shapes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from fastgan_engine.kernels.launch import record_launches
from fastgan_engine.kernels.traffic import traffic

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# Granted beside twice eager's error, in units in the last place (see ``assert_as_good_as_eager``).
ROUNDING_UNITS = {torch.float32: 4.0, torch.float16: 0.5, torch.bfloat16: 1.0}
# How often the exact result is disturbed: once may leave a sum in which much cancels where it was.
DISTURBANCES = 4
# The CPU under the interpreter, and the same matrix for real (pytest -m gpu).
DEVICES = [pytest.param("cpu", id="interpreter"), pytest.param("cuda", marks=pytest.mark.gpu)]

# Map shapes [B, C, H, W] with sizes 1, odd, prime and not a power of two; C is even where an operation halves it.
SHAPES = [(1, 2, 1, 3), (3, 4, 1, 1), (1, 6, 3, 3), (3, 10, 5, 7), (2, 34, 4, 4), (4, 64, 2, 3), (2, 130, 3, 1)]


def map_shapes(channels_multiple: int = 1) -> st.SearchStrategy[tuple[int, int, int, int]]:
    """Small map shapes: the interpreter is slow."""
    channels = st.integers(1, 40).map(lambda c: c * channels_multiple)
    return st.tuples(st.integers(1, 4), channels, st.integers(1, 9), st.integers(1, 9))


def random_map(
    shape: Sequence[int], dtype: torch.dtype, device: str | torch.device = "cpu", *, seed: int = 0, scale: float = 1.0
) -> Tensor:
    """Normal numbers, channels-last, representable in ``dtype``."""
    generator = torch.Generator().manual_seed(seed)
    x = scale * torch.randn(*shape, generator=generator)
    if x.dim() == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    return x.to(dtype).to(device)


@contextmanager
def poisoned() -> Iterator[None]:
    """Fresh memory is NaN, so that an element that a kernel does not write is seen."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


Function = Callable[..., Tensor | tuple[Tensor, ...]]
Arguments = Mapping[str, Tensor | None]


def check_against_eager(
    fused: Function,
    reference: Function,
    arguments: Arguments,
    *,
    differentiable: Sequence[str] = (),
    mutated: Sequence[str] = (),
) -> None:
    """Outputs, gradients and mutated buffers of ``fused`` follow the error rule; its fresh memory is poisoned.

    Eager is ``reference`` on the same arguments, exact is ``reference`` on them in float64, and disturbed is exact with
    each argument and incoming gradient changed by one unit in the last place of float32, up or down, a few times anew.
    """
    exact = {name: t.double() if _is_float(t) else t for name, t in arguments.items()}
    with poisoned():
        results = run(fused, arguments, differentiable, mutated)
    assert_as_good_as_eager(
        results,
        run(reference, arguments, differentiable, mutated),
        run(reference, exact, differentiable, mutated, like=results),
        [
            run(reference, _disturbed(exact, seed), differentiable, mutated, like=results, disturbance=seed)
            for seed in range(DISTURBANCES)
        ],
    )


def _disturbed(arguments: Arguments, seed: int) -> Arguments:
    return {name: _disturb(t, seed) if isinstance(t, Tensor) and _is_float(t) else t for name, t in arguments.items()}


def _is_float(t: object) -> bool:
    return isinstance(t, Tensor) and t.is_floating_point()


def _disturb(t: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(DISTURBANCES * t.numel() + seed)
    signs = torch.randint(0, 2, t.shape, generator=generator).to(t) * 2 - 1
    return t * (1 + torch.finfo(torch.float32).eps * signs)


def run(
    function: Function,
    arguments: Arguments,
    differentiable: Sequence[str] = (),
    mutated: Sequence[str] = (),
    like: Arguments | None = None,
    disturbance: int | None = None,
) -> dict[str, Tensor | None]:
    """Outputs of ``function(**arguments)``, gradients of the named arguments, and the named buffers afterwards.

    The incoming gradients are fixed pseudo-random numbers, rounded to the outputs' dtypes, or those of ``like``;
    with ``disturbance``, its seed, changed as arguments are.
    """
    leaves = {name: t.detach().clone() if isinstance(t, Tensor) else t for name, t in arguments.items()}
    for name in differentiable:
        leaf = leaves[name]
        if leaf is not None:
            leaf.requires_grad_()
    result = function(**leaves)
    outputs = result if isinstance(result, tuple) else (result,)
    found: dict[str, Tensor | None] = {f"output {i}": output for i, output in enumerate(outputs)}
    if differentiable:
        models = outputs if like is None else [like[name] for name in found]
        grads = [random_map(m.shape, m.dtype, m.device, seed=100 + i) for i, m in enumerate(models) if m is not None]
        grads = [grad.to(output.dtype) for grad, output in zip(grads, outputs, strict=True)]
        if disturbance is not None:
            grads = [_disturb(grad, disturbance) for grad in grads]
        torch.autograd.backward(outputs, grads)
    for name in differentiable:
        leaf = leaves[name]
        found[f"gradient of {name}"] = None if leaf is None else leaf.grad
    found.update({f"{name} afterwards": leaves[name] for name in mutated})
    return found


def assert_as_good_as_eager(
    fused: Arguments, eager: Arguments, exact: Arguments, disturbed: Sequence[Arguments] = ()
) -> None:
    """The error rule: against fp64, a kernel is at most twice as wrong as eager PyTorch at the same precision.

    In the largest error over a tensor. On top comes what rounding costs, in units in the last place of the largest
    value: half a unit for float16, since eager may hit the rounded result by luck; one for bfloat16, to which Triton's
    interpreter truncates; four for float32, whose sums round as they go (the interpreter adds row after row).
    Where eager sums in float64, as batch norm on the CPU does in float32, its error says nothing about float32: then
    the yardstick is how far the exact result moves when the arguments move by their last float32 digit, at most.
    """
    for name, exact_tensor in exact.items():
        got, model = fused[name], eager[name]
        if exact_tensor is None or got is None or model is None:
            assert got is exact_tensor is model, f"{name}: got {got}, expected {exact_tensor}"
            continue
        assert got.shape == exact_tensor.shape, f"{name}: shape {tuple(got.shape)}, not {tuple(exact_tensor.shape)}"
        assert got.dtype == model.dtype, f"{name}: {got.dtype}, not {model.dtype}"
        yardstick = _largest_error(model, exact_tensor)
        moved = [tensor for run_of in disturbed if (tensor := run_of[name]) is not None]
        yardstick = max([yardstick, *(_largest_error(tensor, exact_tensor) for tensor in moved)])
        unit = torch.finfo(got.dtype).eps * exact_tensor.abs().max().item()
        error = _largest_error(got, exact_tensor)
        assert error <= 2 * yardstick + ROUNDING_UNITS[got.dtype] * unit, (
            f"{name}: error {error:.3g}, yardstick {yardstick:.3g}, unit in the last place {unit:.3g}"
        )


def _largest_error(x: Tensor, exact: Tensor) -> float:
    return (x.detach().double() - exact.detach()).abs().max().item()


def check_wide_offsets(function: Callable[[], Tensor], *kernels: str) -> None:
    """The named kernels, as ``function`` and its backward pass launch them on huge fake maps, stay within them.

    The first, the middle and the last program of each axis run with made-up addresses, of which none may lie outside
    its tensor, as one whose offset overflows 32 bits does.
    """
    with FakeTensorMode(), record_launches() as launches:
        function().sum().backward()
    chosen = {launch.name: launch for launch in launches if launch.name in kernels}
    assert set(chosen) == set(kernels)
    for launch in chosen.values():
        assert max(t.numel() for t in launch.tensors.values()) > 2**31
        counted = traffic(launch)
        assert 1 <= counted.moved / counted.minimum < 1.2, f"{launch.name}: {counted}"
