"""Memory that autograd keeps between a forward pass and its backward, counted on fake tensors.

Each storage that a node of the graph saves counts once; parameters, buffers, and what the pass is given (images, draws)
do not. The D pass is everything whose backward updates D: reals and fakes through D, decoders, reconstruction. The
reference runs it in two halves, one after the other; their sum is counted, and the larger half beside it. The G pass is
G, augmentation, and D on the fakes.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from fastgan_engine.bench.cost import Who, fake_tensors
from fastgan_engine.bench.fake_iteration import CPU
from fastgan_engine.bench.released_ops import diffaug, released_ops
from fastgan_engine.build import build_networks, build_state, build_step
from fastgan_engine.config import Config
from fastgan_engine.draws import Draws, draw
from fastgan_engine.fast.discriminator import discriminate
from fastgan_engine.fast.layers import Run
from fastgan_engine.kernels.hinge import hinge_fake, hinge_real
from fastgan_engine.reconstruction import ReconstructionLoss, resize
from fastgan_engine.step import _Part


@dataclass(frozen=True)
class Saved:
    """Bytes kept for backward.

    Attributes:
        g: by the G pass.
        d: by the D pass, all of it.
        d_at_once: the most of it that is kept at the same time.
    """

    g: int
    d: int
    d_at_once: int


def saved(config: Config, who: Who, dtype: torch.dtype) -> Saved:
    """What ``who`` keeps under ``config``; the reference in half precision runs under autocast, as PyTorch's own AMP.

    fp16 is counted without a loss scale, which keeps nothing.
    """
    with fake_tensors():
        return _reference(config, dtype) if who == "reference" else _engine(config, dtype)


@dataclass
class Kept:
    """Storages saved by a graph. They are held here, so that no two of them can have the same address."""

    storages: dict[int, torch.UntypedStorage] = field(default_factory=dict)

    def add(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        self.storages[storage._cdata] = storage
        return tensor

    def bytes(self, given: Iterable[Tensor]) -> int:
        """All but the storages of ``given``."""
        own = {tensor.untyped_storage()._cdata for tensor in given}
        return sum(storage.nbytes() for address, storage in self.storages.items() if address not in own)


@contextmanager
def keeping() -> Iterator[Kept]:
    """Collects what autograd saves inside."""
    kept = Kept()
    with torch.autograd.graph.saved_tensors_hooks(kept.add, lambda tensor: tensor):
        yield kept


def _reference(config: Config, dtype: torch.dtype) -> Saved:
    plain = config.model_copy(update={"precision": config.precision.model_copy(update={"channels_last": False})})
    networks, loss = build_networks(plain, CPU), _loss(config)
    reals, draws = _inputs(config, torch.contiguous_format)
    discriminator = networks.discriminator
    given = _given(reals, draws, networks.generator, discriminator, loss)
    with released_ops(), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        with keeping() as g_kept:
            images = networks.generator(draws.z, draws.noise)
            parameters = (draws.augment_big, draws.augment_small)
            fakes = [diffaug(image, params) for image, params in zip(images, parameters, strict=True)]
            g_loss = -discriminator(fakes).mean()
        reals = diffaug(reals, draws.augment_real)
        fakes = [fake.detach() for fake in fakes]
        with keeping() as real_kept:
            logits, made = discriminator([reals, resize(reals, discriminator.small_size)], "real", 0)
            real_loss = hinge_real(logits, draws.margins_real, impl="reference") + loss.released(made, reals, 0)
        with keeping() as fake_kept:
            fake_loss = hinge_fake(discriminator(fakes), draws.margins_fake, impl="reference")
    d_given = [*given, reals, *fakes]
    real, fake = real_kept.bytes(d_given), fake_kept.bytes(d_given)
    del g_loss, real_loss, fake_loss  # until here the graphs lived
    return Saved(g_kept.bytes(given), real + fake, max(real, fake))


def _engine(config: Config, dtype: torch.dtype) -> Saved:
    config = config.model_copy(update={"engine": config.engine.model_copy(update={"kernels": "triton"})})
    state, loss = build_state(config, CPU, dtype), _loss(config)
    step = build_step(config, state, loss, dtype)
    reals, draws = _inputs(config, torch.channels_last)
    networks, impl, part = state.networks, config.engine.kernels, _Part(reals, draws)
    given = _given(reals, draws, networks.generator, networks.discriminator, loss)
    with keeping() as g_kept:
        fakes = step._fakes(Run(step.weights_g.ready(grad=True), impl=impl), part)
        run = Run(step.weights_d.ready(grad=False), frozen=True, impl=impl)
        logits, _ = discriminate(run, networks.discriminator, *fakes)
        g_loss = -logits.float().mean()
    detached = [fake.detach() for fake in fakes]
    with keeping() as d_kept:
        run = Run(step.weights_d.ready(grad=True), groups=2, impl=impl)
        d_losses = step._d_losses(run, part, *detached, 1)
    kept = d_kept.bytes([*given, *detached])
    del g_loss, d_losses
    return Saved(g_kept.bytes(given), kept, kept)


def _loss(config: Config) -> ReconstructionLoss:
    return ReconstructionLoss(config.loss.reconstruction, random_weights=True)


def _inputs(config: Config, memory_format: torch.memory_format) -> tuple[Tensor, Draws]:
    model, batch = config.model, config.train.batch
    generator = torch.Generator().manual_seed(0)
    reals = torch.empty(batch, model.nc, model.im_size, model.im_size).contiguous(memory_format=memory_format)
    draws = draw(batch, im_size=model.im_size, nz=model.nz, policy=config.loss.augment, generator=generator)
    return reals, draws


def _given(reals: Tensor, draws: Draws, *modules: nn.Module) -> list[Tensor]:
    """Parameters, buffers and inputs: in memory whether or not anything is kept."""
    owned = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
    return [reals, *(leaf for leaf in tree_leaves(draws) if isinstance(leaf, Tensor)), *owned]
