"""What every kernel test needs: the error rule, NaN-poisoned memory, layouts, devices and shapes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# The CPU under the interpreter, and the same matrix for real (pytest -m gpu).
DEVICES = [pytest.param("cpu", id="interpreter"), pytest.param("cuda", marks=pytest.mark.gpu)]

# Map shapes [B, C, H, W] with sizes 1, odd, prime and not a power of two; C is even where an operation halves it.
SHAPES = [(1, 2, 1, 2), (2, 4, 1, 1), (1, 6, 3, 3), (3, 10, 5, 7), (2, 34, 4, 4), (4, 64, 2, 3), (2, 130, 3, 1)]


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

    Eager is ``reference`` on the same arguments, exact is ``reference`` on them in float64.
    """
    exact = {
        name: t.double() if isinstance(t, Tensor) and t.is_floating_point() else t for name, t in arguments.items()
    }
    with poisoned():
        results = run(fused, arguments, differentiable, mutated)
    assert_as_good_as_eager(
        results,
        run(reference, arguments, differentiable, mutated),
        run(reference, exact, differentiable, mutated, like=results),
    )


def run(
    function: Function,
    arguments: Arguments,
    differentiable: Sequence[str] = (),
    mutated: Sequence[str] = (),
    like: Arguments | None = None,
) -> dict[str, Tensor | None]:
    """Outputs of ``function(**arguments)``, gradients of the named arguments, and the named buffers afterwards.

    The incoming gradients are fixed pseudo-random numbers, rounded to the outputs' dtypes, or those of ``like``.
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
        torch.autograd.backward(outputs, [grad.to(output.dtype) for grad, output in zip(grads, outputs, strict=True)])
    for name in differentiable:
        leaf = leaves[name]
        found[f"gradient of {name}"] = None if leaf is None else leaf.grad
    found.update({f"{name} afterwards": leaves[name] for name in mutated})
    return found


def assert_as_good_as_eager(fused: Arguments, eager: Arguments, exact: Arguments) -> None:
    """The error rule: against fp64, a kernel is at most twice as wrong as eager PyTorch at the same precision.

    In the largest error over a tensor. Half a unit in the last place of the largest value is granted on top, since
    eager may hit the rounded result by luck; for bf16 a whole one, because Triton's interpreter truncates to bf16.
    """
    for name, exact_tensor in exact.items():
        got, model = fused[name], eager[name]
        if exact_tensor is None or got is None or model is None:
            assert got is exact_tensor is model, f"{name}: got {got}, expected {exact_tensor}"
            continue
        assert got.shape == exact_tensor.shape, f"{name}: shape {tuple(got.shape)}, not {tuple(exact_tensor.shape)}"
        assert got.dtype == model.dtype, f"{name}: {got.dtype}, not {model.dtype}"
        ulps = 1.0 if got.dtype == torch.bfloat16 else 0.5
        unit = torch.finfo(got.dtype).eps * exact_tensor.abs().max().item()
        error, eager_error = _largest_error(got, exact_tensor), _largest_error(model, exact_tensor)
        assert error <= 2 * eager_error + ulps * unit, (
            f"{name}: error {error:.3g}, eager {eager_error:.3g}, unit in the last place {unit:.3g}"
        )


def _largest_error(x: Tensor, exact: Tensor) -> float:
    return (x.detach().double() - exact.detach()).abs().max().item()
