"""One iteration of the engine: the released recipe's losses and updates, with less work and less memory traffic.

What differs from ``reference_step``, and why the result is the same:

- Convolution weights are normalised once for all passes that see the same ones.
- Reals and fakes go through D as one batch with batch-norm statistics of their own. Spectral norm's power iteration
  then advances once, not twice, in the D step; it converges to the same singular vectors.
- In the G step D needs no weight gradients: the released loop computes and discards them. Nor does it need decoders,
  whose power iterations advance, as in the released loop, on reals alone.
- LPIPS sees two target batches (``fast.reconstruction``).
- With micro-batches, or where asked to (``recompute``), G's forward is repeated in the G step, from the same latents,
  noise and weights, in place of keeping its graphs.
- Over micro-batches the adversarial losses are averaged, the reconstruction is summed. Batch norm's statistics are then
  those of a micro-batch.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fastgan_engine.clock import Clock
from fastgan_engine.draws import Draws
from fastgan_engine.fast.discriminator import decode, discriminate, features
from fastgan_engine.fast.generator import generate
from fastgan_engine.fast.layers import Run
from fastgan_engine.fast.reconstruction import FastReconstruction
from fastgan_engine.fast.weights import SpectralWeights
from fastgan_engine.kernels.adam_ema import AdamEma
from fastgan_engine.kernels.diffaug import diffaug
from fastgan_engine.kernels.dispatch import Impl
from fastgan_engine.kernels.hinge import hinge
from fastgan_engine.networks import Discriminator, Generator
from fastgan_engine.networks.discriminator import DECODERS, device_quadrant
from fastgan_engine.reconstruction import ReconstructionLoss, resize
from fastgan_engine.reference_step import StepLosses
from fastgan_engine.self_supervision import Task
from fastgan_engine.state import TrainingState, update_ema

# Of an image D has logits at two scales: of the big image, then of the small one.
LOGIT_SCALES = 2


@dataclass(frozen=True, kw_only=True)
class StepSettings:
    """What an iteration does beside the networks: see the fields of the configuration with the same names.

    batch: images of a micro-batch.
    """

    batch: int
    ema_decay: float
    dtype: torch.dtype
    accumulation: int = 1
    impl: Impl = "auto"
    recompute: bool = False
    transposed_from: int | None = None


@dataclass(frozen=True)
class _Part:
    """One micro-batch: its reals, its share of the draws, and its fakes while they are kept."""

    reals: Tensor
    draws: Draws


class EngineStep:
    """``step(reals, draws)`` updates the state's networks in place; reals: [B, C, H, W] in [-1, 1], channels-last."""

    def __init__(
        self,
        state: TrainingState,
        reconstruction: ReconstructionLoss,
        settings: StepSettings,
        clock: Clock | None = None,
    ) -> None:
        self.state, self.settings, self.clock = state, settings, clock
        self.reconstruction = FastReconstruction(reconstruction, dtype=settings.dtype, impl=settings.impl)
        self.weights_g = self._weights_of(state.networks.generator)
        self.weights_d = self._weights_of(state.networks.discriminator)
        self.weights_d_on_fakes = self._weights_of(state.networks.discriminator, without=(DECODERS,))

    def _weights_of(self, network: Generator | Discriminator, without: tuple[str, ...] = ()) -> SpectralWeights:
        settings = self.settings
        return SpectralWeights(
            network,
            dtype=settings.dtype,
            impl=settings.impl,
            up_convs={name: settings.batch * side * side for name, side in network.up_convs().items()},
            transpose_from=settings.transposed_from,
            without=without,
        )

    def __call__(self, reals: Tensor, draws: Draws) -> StepLosses:
        networks, settings = self.state.networks, self.settings
        parts = list(_split(reals, draws, settings.accumulation))
        repeat = len(parts) > 1 or settings.recompute
        self.state.opt_d.zero_grad()
        self.state.opt_g.zero_grad()

        weights = self.weights_g.ready(grad=True)
        run_g = Run(weights, impl=settings.impl)
        with torch.set_grad_enabled(not repeat):
            fakes = [self._fakes(run_g, part) for part in parts]
        d_losses = self._d_step(parts, fakes)
        self._lap("d")

        run_d = Run(self.weights_d_on_fakes.ready(grad=False), frozen=True, impl=settings.impl)
        g: list[Tensor] = []
        for index, part in enumerate(parts):
            if repeat:
                fakes[index] = self._fakes(Run(weights, update_statistics=False, impl=settings.impl), part)
            logits, _ = discriminate(run_d, networks.discriminator, *fakes[index])
            loss = _share_of(-logits.mean(dtype=torch.float32), len(parts))
            self._scale("g", loss).backward()
            g.append(loss.detach())
        self.weights_g.collect()
        self._update("g", self.state.opt_g)
        averaged = isinstance(self.state.opt_g, AdamEma)  # which moves the weights' average itself
        update_ema(networks.ema, networks.generator, settings.ema_decay, weights=not averaged)
        self._lap("g")
        return StepLosses(*d_losses, _total(g))

    def _d_step(self, parts: list[_Part], fakes: list[list[Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
        """Losses on reals, on fakes and of the reconstruction, summed over the micro-batches; updates D."""
        weights = self.weights_d.ready(grad=True)
        run = Run(weights, groups=2, impl=self.settings.impl)
        hinges: list[Tensor] = []
        reconstructions: list[Tensor] = []
        for part, (big, small) in zip(parts, fakes, strict=True):
            losses, reconstruction = self._d_losses(run, part, big.detach(), small.detach(), len(parts))
            self._scale("d", losses.sum() + reconstruction).backward()
            hinges.append(losses.detach())
            reconstructions.append(reconstruction.detach())
            if (task := self.state.networks.discriminator.task) is not None:
                loss = _share_of(self._task_loss(task, Run(weights, impl=self.settings.impl), part), len(parts))
                self._scale("d", loss).backward()
                reconstructions[-1] = loss.detach()
        self.weights_d.collect()
        self._update("d", self.state.opt_d)
        real, fake = _total(hinges).unbind()
        return real, fake, _total(reconstructions)

    def _d_losses(self, run: Run, part: _Part, big: Tensor, small: Tensor, parts: int) -> tuple[Tensor, Tensor]:
        """The hinge losses on reals and on fakes [2], and the reconstruction's."""
        network, draws = self.state.networks.discriminator, part.draws
        reals = diffaug(part.reals, draws.augment_real, impl=self.settings.impl)
        small_reals = resize(reals, network.small_size)
        logits, maps = discriminate(run, network, _together(reals, big), _together(small_reals, small))
        margins = draws.margins_real, draws.margins_fake
        hinges = hinge(logits, *margins, scales=LOGIT_SCALES, impl=self.settings.impl)
        if network.decode and self.reconstruction.loss.kind != "none":
            images = self._decode(run, maps, reals.shape[0], draws.part)
            return _share_of(hinges, parts), self.reconstruction(images, reals, draws.part)
        return _share_of(hinges, parts), reals.new_zeros(())

    def _task_loss(self, task: Task, run: Run, part: _Part) -> Tensor:
        views = task.views(part.reals, part.draws, impl=self.settings.impl)
        last, _ = features(run, self.state.networks.discriminator, views)
        return task(last)

    def _decode(self, run: Run, maps: tuple[Tensor, ...], count: int, part: Tensor) -> list[Tensor]:
        """The decoders' images of the reals, which are the first ``count`` of the batch."""
        network = self.state.networks.discriminator
        last, feat_32, small = (m[:count] for m in maps)
        inputs = {"big": last, "small": small, "part": device_quadrant(feat_32, part)}
        alone = Run(run.weights, impl=run.impl)
        return [
            decode(alone.below(DECODERS + name), getattr(network, DECODERS + name), x) for name, x in inputs.items()
        ]

    def _fakes(self, run: Run, part: _Part) -> list[Tensor]:
        draws = part.draws
        big, small = generate(run, self.state.networks.generator, draws.z, draws.noise)
        return [
            diffaug(big, draws.augment_big, impl=self.settings.impl),
            diffaug(small, draws.augment_small, impl=self.settings.impl),
        ]

    def _scale(self, name: str, loss: Tensor) -> Tensor:
        return self.state.scalers[name].scale(loss)

    def _update(self, name: str, optimizer: torch.optim.Optimizer) -> None:
        scaler = self.state.scalers[name]
        scaler.step(optimizer)
        scaler.update()

    def _lap(self, name: str) -> None:
        if self.clock is not None:
            self.clock.lap(name)


def _together(reals: Tensor, fakes: Tensor) -> Tensor:
    """Reals and fakes as one batch in the dtype of the fakes, channels-last."""
    shape = (2 * fakes.shape[0], *fakes.shape[1:])
    batch = torch.empty(shape, dtype=fakes.dtype, device=fakes.device, memory_format=torch.channels_last)
    return torch.cat([reals, fakes], out=batch)


def _share_of(loss: Tensor, parts: int) -> Tensor:
    """What a micro-batch adds to a mean over the batch."""
    return loss if parts == 1 else loss / parts


def _total(values: list[Tensor]) -> Tensor:
    return values[0] if len(values) == 1 else torch.stack(values).sum(0)


def _split(reals: Tensor, draws: Draws, parts: int) -> Iterator[_Part]:
    """Micro-batches of equal size, each with its own share of the draws."""
    if parts == 1:
        yield _Part(reals, draws)
        return
    size = reals.shape[0] // parts
    for index in range(parts):
        rows = slice(index * size, (index + 1) * size)
        yield _Part(reals[rows], _share(draws, rows, reals.shape[0]))


def _share(draws: Draws, rows: slice, batch: int) -> Draws:
    def margins(all_of: Tensor) -> Tensor:
        return all_of.view(2, batch, -1)[:, rows].reshape(-1)

    return Draws(
        z=draws.z[rows],
        noise={size: (first[rows], second[rows]) for size, (first, second) in draws.noise.items()},
        margins_real=margins(draws.margins_real),
        margins_fake=margins(draws.margins_fake),
        augment_real=draws.augment_real.of(rows),
        augment_big=draws.augment_big.of(rows),
        augment_small=draws.augment_small.of(rows),
        part=draws.part,
        augment_view=None if draws.augment_view is None else draws.augment_view.of(rows),
    )
