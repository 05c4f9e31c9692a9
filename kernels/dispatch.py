"""Which implementation an operation runs: its Triton kernels or its plain-PyTorch reference.

"reference" is plain PyTorch. "triton" runs the kernels or raises ``RuntimeError`` saying why they cannot run. "auto"
takes the kernels on CUDA tensors where they can run and where the operation's self-test passed on that device, else the
reference, and logs its choice once.

Under ``TRITON_INTERPRET=1`` (set before Triton is first imported) "triton" also runs on CPU tensors.
"""

import importlib
import logging
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Literal

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

import fastgan_engine.kernels
from fastgan_engine.kernels import launch
from fastgan_engine.kernels.arguments import KERNEL_DTYPES

Impl = Literal["auto", "triton", "reference"]
IMPLS: tuple[Impl, ...] = ("auto", "triton", "reference")

# Compute capabilities: Turing is the oldest that the kernels are compiled for; bf16 arithmetic starts with Ampere.
FLOOR = (7, 5)
BF16_FLOOR = (8, 0)

# Takes a device and a floating dtype, runs the operation's kernels on a small case, raises where they are wrong.
SelfTest = Callable[[torch.device, torch.dtype], None]

logger = logging.getLogger("fastgan_engine.kernels")
_self_tests: dict[str, SelfTest] = {}
_own_dtypes: dict[str, torch.dtype | None] = {}
_logged: set[str] = set()


def self_test(op: str, *, dtype: torch.dtype | None = None) -> Callable[[SelfTest], SelfTest]:
    """Registers the self-test of an operation; "auto" runs it once per device and dtype, at the first use.

    dtype: of the operation's main tensor where it is not the one that the networks train in.
    """

    def register(test: SelfTest) -> SelfTest:
        _self_tests[op] = test
        _own_dtypes[op] = dtype
        passes_self_test.cache_clear()
        return test

    return register


def use_triton(op: str, impl: Impl, x: Tensor) -> bool:
    """Whether ``op`` on ``x`` (its main tensor: device and dtype count) runs its kernels.

    Raises:
        ValueError: ``impl`` is none of the three.
        RuntimeError: ``impl="triton"`` cannot run here; "auto" and no self-test has run yet inside a graph capture.
    """
    if impl not in IMPLS:
        raise ValueError(f"impl: got {impl!r}, expected one of {', '.join(IMPLS)}")
    if impl == "reference":
        return False
    obstacle = _obstacle(x)
    if impl == "triton":
        if obstacle:
            raise RuntimeError(f'{op}: impl="triton" cannot run: {obstacle}')
        return True
    if obstacle is None and x.device.type != "cuda":
        obstacle = '"auto" uses kernels on CUDA tensors only'
    if obstacle:
        _log_once(f"{op} on {x.device}, {x.dtype}: reference ({obstacle})")
        return False
    if isinstance(x, FakeTensor):
        return True
    return passes_self_test(op, x.device, x.dtype)


def _obstacle(x: Tensor) -> str | None:
    """Why no kernel can run on ``x``; None if one can."""
    if launch.triton is None:
        return "Triton is not installed"
    if x.dtype not in KERNEL_DTYPES:
        return f"the tensor is {x.dtype}, kernels take float32, float16 and bfloat16"
    if isinstance(x, FakeTensor) or launch.INTERPRETED:
        return None
    if x.device.type != "cuda":
        return f"the tensor is on {x.device}, kernels run on CUDA (on the CPU only under TRITON_INTERPRET=1)"
    return _obstacle_of_card(x.device, x.dtype)


def _obstacle_of_card(device: torch.device, dtype: torch.dtype) -> str | None:
    capability = torch.cuda.get_device_capability(device)
    floor = BF16_FLOOR if dtype == torch.bfloat16 else FLOOR
    if capability < floor:
        return f"compute capability {_version(capability)} is below {_version(floor)}, the floor for {dtype}"
    return None


def has_bf16(device: torch.device) -> bool:
    """Whether kernels run in bfloat16 there."""
    return device.type != "cuda" or torch.cuda.get_device_capability(device) >= BF16_FLOOR


def _obstacle_of_training(device: torch.device, dtype: torch.dtype) -> str | None:
    if device.type != "cuda":
        return "training on the CPU" if torch.cuda.is_available() else "no CUDA device"
    return "Triton is not installed" if launch.triton is None else _obstacle_of_card(device, dtype)


def summary(device: torch.device, dtype: torch.dtype) -> str:
    """One line for the user: what "auto" takes when training in ``dtype`` on ``device``, and why.

    Runs the self-tests of all operations that have not run yet there: seconds, once, on a GPU.
    """
    if obstacle := _obstacle_of_training(device, dtype):
        return f"kernels: plain PyTorch ({obstacle})"
    for module in pkgutil.iter_modules(fastgan_engine.kernels.__path__):
        importlib.import_module(f"fastgan_engine.kernels.{module.name}")
    if str(device) == "cuda":  # as tensors name it
        device = torch.device("cuda", torch.cuda.current_device())
    failed = [op for op in sorted(_self_tests) if not passes_self_test(op, device, _own_dtypes.get(op) or dtype)]
    if not failed:
        return f"kernels: Triton, all {len(_self_tests)} self-tests passed"
    if len(failed) == len(_self_tests):
        return f"kernels: plain PyTorch (all {len(failed)} self-tests failed)"
    if len(failed) == 1:
        return f"kernels: Triton, but {failed[0]} failed its self-test and runs as plain PyTorch"
    names = f"{', '.join(failed[:-1])} and {failed[-1]}"
    return f"kernels: Triton, but {names} failed their self-tests and run as plain PyTorch"


@cache
def passes_self_test(op: str, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernels of ``op`` are right on this device and dtype; runs the self-test once, warns if it fails."""
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        raise RuntimeError(f"{op}: first use is inside a CUDA graph capture; run it once before, in the warm-up")
    try:
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.autocast(device.type, enabled=False),
        ):
            _self_tests[op](device, dtype)
    except Exception as error:
        logger.warning(
            "%s: its kernels failed their self-test on %s, %s; the reference replaces them (%s: %s)",
            op, device, dtype, type(error).__name__, error,
        )  # fmt: skip
        return False
    _log_once(f"{op} on {device}, {dtype}: triton (self-test passed)")
    return True


def probe(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """For self-tests: fixed normal numbers, channels-last if a map; no global random state is touched."""
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def compare_with_reference(
    what: str,
    fused: Callable[..., Tensor],
    reference: Callable[..., Tensor],
    arguments: Mapping[str, Tensor],
    differentiable: Sequence[str],
) -> None:
    """For self-tests: output and gradients of ``fused(**arguments)`` against ``reference`` in float64.

    Raises:
        AssertionError: names what is off.
    """
    results = []
    for function, dtype in ((fused, None), (reference, torch.float64)):
        leaves = {
            name: value.to(dtype or value.dtype, copy=True).requires_grad_(name in differentiable)
            for name, value in arguments.items()
        }
        y = function(**leaves)
        y.backward(probe(y.shape, arguments["x"].dtype, y.device).to(y.dtype))
        results.append([y.detach(), *(leaves[name].grad for name in differentiable)])
    assert_near(what, *results)


def assert_near(what: str, got: Sequence[Tensor | None], expected: Sequence[Tensor | None]) -> None:
    """For self-tests: each tensor is finite and within a few roundings of its expectation, in the largest error.

    Raises:
        AssertionError: names ``what`` and the position of the tensor that is off.
    """
    for position, (actual, wanted) in enumerate(zip(got, expected, strict=True)):
        if actual is None or wanted is None:
            assert actual is wanted, f"{what}, tensor {position}: got {actual}, expected {wanted}"
            continue
        wanted = wanted.double()
        tolerance = 16 * torch.finfo(actual.dtype).eps * max(1.0, wanted.abs().max().item())
        error = (actual.double() - wanted).abs().max().item()
        assert error <= tolerance, f"{what}, tensor {position}: error {error:.3g}, tolerance {tolerance:.3g}"


def _log_once(message: str) -> None:
    if message not in _logged:
        _logged.add(message)
        logger.info(message)


def _version(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"
