"""Checks of arguments: each failure is a ``ValueError`` that names the argument, what was got and what was expected."""

from collections.abc import Sequence

import torch
from torch import Tensor

# What the Triton kernels take; the references take float64 too.
KERNEL_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
MAP_DTYPES = (*KERNEL_DTYPES, torch.float64)


def check(condition: bool, argument: str, got: object, expected: object) -> None:
    """Raises ValueError unless ``condition`` holds."""
    if not condition:
        raise ValueError(f"{argument}: got {got}, expected {expected}")


def check_map(argument: str, x: Tensor, *, shape: Sequence[int | None] = (None,) * 4) -> None:
    """``x`` is a channels-last map [B, C, H, W] of a supported dtype, not empty; ``shape``: see ``check_shape``.

    A batch slice of a channels-last map is one itself. A slice in H, W or C is not: its rows have gaps.
    """
    check_shape(argument, x, shape)
    check(x.numel() > 0, argument, f"the empty shape {tuple(x.shape)}", "at least one element")
    check(x.dtype in MAP_DTYPES, argument, x.dtype, "float32, float16 or bfloat16 (float64 for the reference)")
    check(
        x.is_contiguous(memory_format=torch.channels_last),
        argument,
        f"shape {tuple(x.shape)} with strides {x.stride()}",
        "a channels-last tensor (x.contiguous(memory_format=torch.channels_last))",
    )


def check_shape(argument: str, x: Tensor, shape: Sequence[int | None]) -> None:
    """``x`` has this shape; None stands for any size."""
    fits = x.dim() == len(shape) and all(want is None or got == want for got, want in zip(x.shape, shape, strict=True))
    wanted = ", ".join("any" if size is None else str(size) for size in shape)
    check(fits, argument, f"shape {tuple(x.shape)}", f"[{wanted}]")


def check_parameter(argument: str, x: Tensor, shape: Sequence[int | None], like: Tensor) -> None:
    """``x`` is a contiguous float32 tensor of this shape on the device of ``like`` (float64 where ``like`` is)."""
    check_shape(argument, x, shape)
    check_device(argument, x, like)
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    check(x.dtype == dtype, argument, x.dtype, dtype)
    check(x.is_contiguous(), argument, f"strides {x.stride()}", "a contiguous tensor")


def check_device(argument: str, x: Tensor, like: Tensor) -> None:
    """``x`` lies where ``like`` does."""
    check(x.device == like.device, argument, f"device {x.device}", f"{like.device}")
