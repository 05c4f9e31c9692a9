"""What each opportunity that has a switch is worth, counted: the engine's iteration with one of them off in turn.

Switched are the fused operations, one by one, to their plain-PyTorch references; the transposed form of the upsampling
convolutions; and half precision. What the step has built in (reals and fakes in one batch, two target batches, no
weight gradients for D in the G step) has no switch and is not listed.
"""

import sys
from contextlib import AbstractContextManager
from unittest import mock

import torch

from fastgan_engine.bench.cost import cost
from fastgan_engine.bench.counting import Cost, launch_traffic
from fastgan_engine.config import Config

KERNELS = "fastgan_engine.kernels"
FUSED = (
    "norm_glu", "norm_lrelu", "lrelu_pool", "sle", "conv_relu", "conv_tap", "diffaug", "spectral", "adam_ema", "hinge",
    "batch",
)  # fmt: skip


def ablate(config: Config, dtype: torch.dtype) -> dict[str, Cost]:
    """The engine's cost by what is switched off; "nothing" comes first."""
    launch_bytes = launch_traffic()
    counted = {"nothing": cost(config, "engine", dtype, launch_bytes)}
    for name, switched_off in _switches().items():
        with switched_off:
            counted[name] = cost(config, "engine", dtype, launch_bytes)
    counted["half precision"] = cost(config, "engine", torch.float32, launch_bytes)
    return counted


def _switches() -> dict[str, AbstractContextManager[object]]:
    """Contexts in which one opportunity is off."""
    switches: dict[str, AbstractContextManager[object]] = {
        f"fused {op}": mock.patch(f"{KERNELS}.{op}.use_triton", return_value=False) for op in FUSED
    }
    switches["transposed up_conv"] = mock.patch("fastgan_engine.fast.weights.transposed_from", return_value=sys.maxsize)
    return switches
