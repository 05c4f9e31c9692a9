"""A run rehearsed on fake tensors: its own iteration, its samples and its checkpoint, with every storage recorded.

No GPU is needed and no value is computed: seconds, whatever the size. The fake tensors are on the CPU, see
``bench.fake_iteration``; no choice of the engine depends on the device once its precision and kernels are named.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from fastgan_engine import build
from fastgan_engine.bench.fake_iteration import CPU, fake_tensors
from fastgan_engine.build import build_loss, build_state, build_step
from fastgan_engine.clock import Clock
from fastgan_engine.config import Config
from fastgan_engine.fast.weights import SpectralWeights
from fastgan_engine.hardware import dtype_for
from fastgan_engine.iteration import Iteration
from fastgan_engine.kernels import launch, lpips_distance
from fastgan_engine.memory.phases import CHECKPOINTING, DATA, SAMPLING, telling_phases
from fastgan_engine.memory.plan import GRADIENTS, IMAGES, OPTIMIZER, WEIGHTS, Plan
from fastgan_engine.memory.source import PlannedSource
from fastgan_engine.memory.tracker import Tracker
from fastgan_engine.pictures import SHOWN_REALS, images_at_once, keeping_no_weights, reconstructions
from fastgan_engine.profiles import Card
from fastgan_engine.sampling import sample
from fastgan_engine.state import TrainingState

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# Of a card that nobody named: the oldest with bf16.
CAPABILITY = (8, 0)


def plan(config: Config, *, images: int, card: Card | None = None) -> Plan:
    """The memory of a training run under ``config`` on ``images`` images.

    card: decides on precision and kernels where the configuration says "auto"; None: one with bf16 and Triton.
    """
    config = for_card(config, card)
    dtype = DTYPES[config.precision.dtype]
    tracker = Tracker()
    with rehearsing():
        state, loss = build_state(config, CPU, dtype), build_loss(config, random_weights=True)
        source = PlannedSource(config, images)
        iteration = Iteration(config, state, source, build_step(config, state, loss, dtype), Clock(CPU))
        networks = state.networks
        modules = {"G": networks.generator, "D": networks.discriminator, "average": networks.ema, "loss": loss}
        tracker.adopt(owned(modules), WEIGHTS)
        tracker.adopt(moments((state.opt_g, state.opt_d)), OPTIMIZER)
        tracker.adopt(source.tensors(), IMAGES)
        with tracker:
            rehearse(tracker, iteration.on_device, (networks.generator, networks.discriminator))
            _rehearse_pauses(tracker, config, state, images)
        recorded = list(tracker.events)  # before all of it goes
    engine = config.engine
    return Plan(tracker.storages, recorded, graph=engine.step != "eager", expandable=engine.expandable_segments)


def for_card(config: Config, card: Card | None) -> Config:
    """The configuration with every "auto" that memory depends on replaced by what it means on the card."""
    capability = card.capability if card else CAPABILITY
    dtype, kernels = config.precision.dtype, config.engine.kernels
    if dtype == "auto":
        dtype = dtype_for(capability)  # type: ignore[assignment]
    if kernels == "auto":
        kernels = "triton" if capability >= (7, 5) and launch.triton is not None else "reference"
    return config.model_copy(
        update={
            "precision": config.precision.model_copy(update={"dtype": dtype}),
            "engine": config.engine.model_copy(update={"kernels": kernels}),
        }
    )


@contextmanager
def rehearsing() -> Iterator[None]:
    """Inside, tensors are fake; the one operation that works in smaller pieces on a CPU works as on CUDA; and networks
    are built without the power iterations of their start, which take seconds and leave nothing behind.
    """
    with (
        fake_tensors(),
        mock.patch.object(lpips_distance, "CPU_BLOCK", lpips_distance.BLOCK),
        mock.patch.object(build, "INITIAL_POWER_ITERATIONS", 0),
    ):
        yield


def owned(modules: dict[str, nn.Module]) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers, by their names."""
    for name, module in modules.items():
        for part, tensor in (*module.named_parameters(), *module.named_buffers()):
            yield f"{name}.{part}", tensor


def moments(optimizers: Iterable[torch.optim.Optimizer]) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of the optimizers' states."""
    for optimizer in optimizers:
        for state in optimizer.state.values():
            yield from ((f"Adam.{name}", value) for name, value in state.items() if isinstance(value, Tensor))


def rehearse(tracker: Tracker, iterate: Callable[[], object], networks: Iterable[nn.Module]) -> None:
    """One iteration under the tracker, with its phases; what comes in the data phase is marked as data."""
    networks = tuple(networks)

    def enter(phase: str) -> None:
        if phase != tracker.phase:
            tracker.mark(
                (p.grad for network in networks for p in network.parameters() if p.grad is not None), GRADIENTS
            )
        tracker.phase = phase

    collect = SpectralWeights.collect

    def collect_marked(weights: SpectralWeights) -> None:
        tracker.mark((leaf.grad for _, leaf in weights._pending if leaf.grad is not None), GRADIENTS)
        collect(weights)

    with telling_phases(enter), tracker.marking_saved(), mock.patch.object(SpectralWeights, "collect", collect_marked):
        iterate()
    for storage in tracker.storages:
        if storage.phase == DATA and storage.category not in (WEIGHTS, OPTIMIZER, GRADIENTS):
            storage.category = IMAGES


def _rehearse_pauses(tracker: Tracker, config: Config, state: TrainingState, images: int) -> None:
    """What happens between iterations: samples, reconstructions, a checkpoint."""
    size, chunk = config.model.im_size, images_at_once(config.model.im_size)
    tracker.phase = SAMPLING
    with keeping_no_weights(state.networks.ema):
        next(sample(state.networks.ema, config.log.sample_count, chunk=chunk))
    if state.networks.discriminator.decode:
        shown = min(SHOWN_REALS, images, 2 * chunk)  # the later chunks are as the second
        reconstructions(state, np.zeros((shown, size, size, config.model.nc), dtype=np.uint8))
    tracker.phase = CHECKPOINTING
    for part in (*vars(state.networks).values(), state.opt_g, state.opt_d):
        part.state_dict()  # torch.save then takes one tensor after the other to the host
