"""What each opportunity is worth: the engine's iteration with one of them off in turn, counted and timed.

Off are, in turn: the fused operations, one by one, for their plain-PyTorch references; the transposed form of the
upsampling convolutions; reals and fakes as one batch of D; no weight gradients for D in the G step; the target that two
reconstructions share; half precision; the CUDA graph, which costs no work and is only timed. Recomputing G's forward is
off by default and on in its row.
"""

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from fastgan_engine import step as engine_step
from fastgan_engine.bench.cost import cost
from fastgan_engine.bench.counting import Cost, launch_traffic
from fastgan_engine.bench.throughput import engine_step_ms
from fastgan_engine.config import Config
from fastgan_engine.fast.discriminator import discriminate
from fastgan_engine.fast.layers import Run
from fastgan_engine.fast.reconstruction import FastReconstruction
from fastgan_engine.fast.weights import SpectralWeights
from fastgan_engine.hardware import pick_device
from fastgan_engine.networks import Discriminator
from fastgan_engine.tuning.trials import changed

KERNELS = "fastgan_engine.kernels"
FUSED = (
    "norm_glu", "norm_lrelu", "lrelu_pool", "sle", "conv_relu", "conv_tap", "diffaug", "spectral", "adam_ema", "hinge",
    "batch",
)  # fmt: skip
NOTHING, AGAIN, GRAPH = "nothing", "nothing, again", "CUDA graph"
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Variant:
    """The engine without one opportunity: the configuration, and a context in which it is off."""

    config: Config
    off: AbstractContextManager[object]


def variants(config: Config) -> dict[str, Variant]:
    """By what is off; "nothing" comes first."""
    found = {NOTHING: Variant(config, nullcontext())}
    found |= {name: Variant(config, off) for name, off in _switches().items()}
    settings: dict[str, dict[str, Any]] = {
        "transposed up_conv": {"engine.transposed_from": sys.maxsize},
        "half precision": {"precision.dtype": "fp32"},
        "(G recomputed)": {"engine.recompute": True},
        GRAPH: {"engine.step": "eager"},
    }
    return found | {name: Variant(changed(config, own), nullcontext()) for name, own in settings.items()}


def ablate(config: Config, dtype: torch.dtype, progress: Progress = lambda name: None) -> dict[str, Cost]:
    """The engine's cost by what is off."""
    launch_bytes = launch_traffic()
    counted = {}
    for name, variant in variants(config).items():
        if name == GRAPH:
            continue
        progress(name)
        with variant.off:
            own = torch.float32 if variant.config.precision.dtype == "fp32" else dtype
            counted[name] = cost(variant.config, "engine", own, launch_bytes)
    return counted


def time_ablation(config: Config, iterations: int, progress: Progress = lambda name: None) -> dict[str, float]:
    """Median ms of an iteration by what is off, one after the other; the whole engine first and last.

    On a CPU, where the fused operations run as their references anyway, only the others.
    """
    cuda = pick_device(config.engine.device).type == "cuda"
    times = {}
    for name, variant in _timed(config, cuda):
        progress(name)
        with variant.off:
            times[name] = engine_step_ms(variant.config, iterations)
        gc.collect()
        if cuda:
            torch.cuda.empty_cache()
    return times


def _timed(config: Config, cuda: bool) -> Iterator[tuple[str, Variant]]:
    all_of = variants(config)
    yield from ((name, v) for name, v in all_of.items() if cuda or not (name.startswith("fused") or name == GRAPH))
    yield AGAIN, all_of[NOTHING]


def _switches() -> dict[str, AbstractContextManager[object]]:
    """Contexts in which one opportunity is off."""
    fused: dict[str, AbstractContextManager[object]] = {
        f"fused {op}": mock.patch(f"{KERNELS}.{op}.use_triton", return_value=False) for op in FUSED
    }
    ready = SpectralWeights.ready

    def ready_with_gradients(weights: SpectralWeights, *, grad: bool) -> dict[str, Tensor]:
        return ready(weights, grad=True)

    def three(whole: Tensor, quarter: Tensor) -> list[Tensor]:
        return [whole, quarter, whole]

    return fused | {
        "reals and fakes at once": mock.patch.object(engine_step, "discriminate", _one_after_the_other),
        "no D gradients in G step": mock.patch.object(SpectralWeights, "ready", ready_with_gradients),
        "two targets for three": mock.patch.object(FastReconstruction, "distinct", staticmethod(three)),
    }


def _one_after_the_other(run: Run, network: Discriminator, big: Tensor, small: Tensor) -> tuple[Tensor, Any]:
    """``discriminate`` with a pass for the reals and one for the fakes; the maps are those of the reals."""
    if run.groups == 1:
        return discriminate(run, network, big, small)
    alone = replace(run, groups=1)
    halves = zip(big.chunk(2), small.chunk(2), strict=True)
    (real, maps), (fake, _) = (discriminate(alone, network, *images) for images in halves)
    return torch.cat([real, fake]), maps
