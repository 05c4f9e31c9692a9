"""Training on one image, stage by stage: the engine's iteration, timed and counted, alone or against the plain loop.

Both start each stage from the same weights, get the same random numbers and take turns. That they compute the same is
shown in fp64: in fp32 Adam makes whole steps of gradients that are rounding, of which the first iterations have many.
"""

import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fastgan_engine.bench.counting import Cost, counting
from fastgan_engine.bench.single_plain import PlainStep
from fastgan_engine.build import set_backends
from fastgan_engine.config.single import Single, SingleConfig
from fastgan_engine.hardware import pick_device
from fastgan_engine.pipelines.flower import draw_flower
from fastgan_engine.single.inputs import Draws, Inputs
from fastgan_engine.single.pyramid import build_pyramid, load_image, stage_sizes
from fastgan_engine.single.resize import Size
from fastgan_engine.single.state import SingleNetworks, SingleState, begin_stage, build_optimizers, build_state
from fastgan_engine.single.step import StageStep
from fastgan_engine.single.trainer import forward_dtype

AGREEMENT = 1e-5  # how far apart the two may be in fp64, as a part of how far training moved them
AGREEING_ITERATIONS = 2


@dataclass(frozen=True)
class PlainTiming:
    """The plain loop at one stage, and what the two make of the same start.

    ms: of an iteration, the median. difference: the largest between the engine's weights and the plain loop's after two
    iterations in fp64. moved: the largest between the plain loop's weights before and after.
    """

    ms: float
    difference: float
    moved: float


@dataclass(frozen=True)
class StageTiming:
    """The engine at one stage. ms: of an iteration, the median. cost: of an iteration, counted."""

    stage: int
    size: Size
    ms: float
    cost: Cost
    plain: PlainTiming | None


def open_image(single: Single, path: Path | None) -> Image.Image:
    """The image at ``path``, or a drawn one of the size that is trained."""
    if path is not None:
        return load_image(path, largest=single.max_size, background=single.background)
    return Image.fromarray(draw_flower(single.max_size, np.random.default_rng(single.seed)))


def measure(config: SingleConfig, image: Image.Image, *, iterations: int, plain: bool) -> list[StageTiming]:
    """Times ``iterations`` iterations at every stage, after one that is counted and not timed.

    plain: also the plain loop's.

    Raises:
        RuntimeError: the two do not agree.
    """
    single, device = config.single, pick_device(config.engine.device)
    set_backends(config)
    sizes = stage_sizes((image.height, image.width), single)
    reals = build_pyramid(image, sizes, device)
    state = build_state(single, device)
    timings = []
    for state.stage in range(single.stage_count):
        begin_stage(state, single, reals, sizes)
        timings.append(_measure_stage(config, state, reals, sizes[: state.stage + 1], iterations, plain))
    return timings


def _measure_stage(
    config: SingleConfig, state: SingleState, reals: list[Tensor], sizes: list[Size], iterations: int, plain: bool
) -> StageTiming:
    single, real = config.single, reals[state.stage]
    inputs = Inputs(single, reals[0], state.generator)
    apart = _apart(state, single, real, sizes, inputs) if plain else None
    engine = StageStep(state, single, real, sizes, forward_dtype(config, state.device))
    contenders: list[Callable[[Draws], object]] = [engine]
    if plain:
        contenders.append(PlainStep(state, single, real, sizes))
    draws = inputs.draw(sizes)
    for contender in contenders[1:]:
        contender(draws)
    with counting() as operations:
        engine(draws)
    each: list[list[float]] = [[] for _ in contenders]
    for step in range(iterations):
        inputs.fetch(step)
        draws = inputs.draw(sizes)
        for times, contender in zip(each, contenders, strict=True):
            times.append(_timed(contender, draws, state.device))
    medians = [statistics.median(times) for times in each]
    compared = None if apart is None else PlainTiming(medians[1], *apart)
    return StageTiming(state.stage, sizes[-1], medians[0], Cost(operations), compared)


def _apart(state: SingleState, single: Single, real: Tensor, sizes: list[Size], inputs: Inputs) -> tuple[float, float]:
    """``PlainTiming.difference`` and ``moved``, of fp64 copies of the state.

    Raises:
        RuntimeError: the two are further apart than ``AGREEMENT`` allows.
    """
    networks = copy.deepcopy(state.networks)
    for network in (networks.generator, networks.discriminator):
        network.double()
    fixed = [z.double() for z in state.fixed]
    optimizers = build_optimizers(single, networks, state.stage)
    double = SingleState(networks, *optimizers, state.generator, fixed, state.amplitudes, state.stage)
    engine, plain = StageStep(double, single, real.double(), sizes), PlainStep(double, single, real.double(), sizes)
    before = copy.deepcopy(networks)
    for _ in range(AGREEING_ITERATIONS):
        draws = inputs.draw(sizes)
        draws = Draws([z.double() for z in draws.noise], draws.mixes.double())
        engine(draws)
        plain(draws)
    expected = [*plain.generator.parameters(), *plain.discriminator.parameters()]
    difference, moved = (
        max(float((a.detach() - b).abs().amax()) for a, b in zip(expected, _weights(other), strict=True))
        for other in (networks, before)
    )
    if not difference <= AGREEMENT * moved:
        raise RuntimeError(
            f"stage {state.stage + 1}: after the same {AGREEING_ITERATIONS} iterations in fp64 the engine's weights "
            f"and the plain loop's differ by {difference:.2g}, and training moved them by {moved:.2g}"
        )
    return difference, moved


def _weights(networks: SingleNetworks) -> list[Tensor]:
    return [weight.detach() for network in vars(networks).values() for weight in network.parameters()]


def _timed(run: Callable[[Draws], object], draws: Draws, device: torch.device) -> float:
    _wait(device)
    begin = time.perf_counter()
    run(draws)
    _wait(device)
    return (time.perf_counter() - begin) * 1e3


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
