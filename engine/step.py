"""One iteration of the engine: the released recipe's losses and updates, with less work and less memory traffic.

What differs from ``reference_step``, and why the result is the same:

- Convolution weights are normalised once for all passes that see the same ones.
- Reals and fakes go through D as one batch with batch-norm statistics of their own. Spectral norm's power iteration
  then advances once, not twice, in the D step; it converges to the same singular vectors.
- In the G step D needs no weight gradients: the released loop computes and discards them.
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
from fastgan_engine.fast.discriminator import decode, discriminate
from fastgan_engine.fast.generator import generate
from fastgan_engine.fast.layers import Run
from fastgan_engine.fast.reconstruction import FastReconstruction
from fastgan_engine.fast.weights import SpectralWeights
from fastgan_engine.kernels.adam_ema import AdamEma
from fastgan_engine.kernels.diffaug import DiffAugParams, diffaug
from fastgan_engine.kernels.dispatch import Impl
from fastgan_engine.kernels.hinge import hinge_fake, hinge_real
from fastgan_engine.networks.discriminator import device_quadrant
from fastgan_engine.reconstruction import ReconstructionLoss, resize
from fastgan_engine.reference_step import StepLosses
from fastgan_engine.state import TrainingState, update_ema


@dataclass(frozen=True, kw_only=True)
class StepSettings:
    """What an iteration does beside the networks: see the fields of the configuration with the same names."""

    policy: str
    ema_decay: float
    dtype: torch.dtype
    accumulation: int = 1
    impl: Impl = "auto"
    recompute: bool = False


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
        self.weights_g = SpectralWeights(state.networks.generator, dtype=settings.dtype, impl=settings.impl)
        self.weights_d = SpectralWeights(state.networks.discriminator, dtype=settings.dtype, impl=settings.impl)

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

        run_d = Run(self.weights_d.ready(grad=False), frozen=True, impl=settings.impl)
        g = reals.new_zeros(())
        for index, part in enumerate(parts):
            if repeat:
                fakes[index] = self._fakes(Run(weights, update_statistics=False, impl=settings.impl), part)
            logits, _ = discriminate(run_d, networks.discriminator, *fakes[index])
            loss = -logits.float().mean() / len(parts)
            self._scale("g", loss).backward()
            g += loss.detach()
        self.weights_g.collect()
        self._update("g", self.state.opt_g)
        averaged = isinstance(self.state.opt_g, AdamEma)  # which moves the weights' average itself
        update_ema(networks.ema, networks.generator, settings.ema_decay, weights=not averaged)
        self._lap("g")
        return StepLosses(*d_losses, g)

    def _d_step(self, parts: list[_Part], fakes: list[list[Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
        """Losses on reals, on fakes and of the reconstruction, summed over the micro-batches; updates D."""
        run = Run(self.weights_d.ready(grad=True), groups=2, impl=self.settings.impl)
        totals = torch.zeros(3, device=parts[0].reals.device)
        for part, (big, small) in zip(parts, fakes, strict=True):
            losses = self._d_losses(run, part, big.detach(), small.detach(), len(parts))
            self._scale("d", sum(losses[1:], start=losses[0])).backward()
            totals += torch.stack([loss.detach() for loss in losses])
        self.weights_d.collect()
        self._update("d", self.state.opt_d)
        real, fake, reconstruction = totals.unbind()
        return real, fake, reconstruction

    def _d_losses(self, run: Run, part: _Part, big: Tensor, small: Tensor, parts: int) -> list[Tensor]:
        network, draws = self.state.networks.discriminator, part.draws
        reals = diffaug(part.reals, draws.augment_real, impl=self.settings.impl)
        count = reals.shape[0]
        small_reals = resize(reals, network.small_size)
        logits, maps = discriminate(
            run, network, torch.cat([reals.to(big.dtype), big]), torch.cat([small_reals.to(small.dtype), small])
        )
        real, fake = logits.float().split(count)
        losses = [
            hinge_real(real, _image_major(draws.margins_real, count), impl=self.settings.impl) / parts,
            hinge_fake(fake, _image_major(draws.margins_fake, count), impl=self.settings.impl) / parts,
            logits.new_zeros((), dtype=torch.float32),
        ]
        if network.decode and self.reconstruction.loss.kind != "none":
            losses[2] = self.reconstruction(self._decode(run, maps, count, draws.part), reals, draws.part)
        return losses

    def _decode(self, run: Run, maps: tuple[Tensor, ...], count: int, part: Tensor) -> list[Tensor]:
        """The decoders' images of the reals, which are the first ``count`` of the batch."""
        network = self.state.networks.discriminator
        last, feat_32, small = (m[:count] for m in maps)
        inputs = {"big": last, "small": small, "part": device_quadrant(feat_32, part)}
        alone = Run(run.weights, impl=run.impl)
        return [
            decode(alone.below(f"decoder_{name}"), getattr(network, f"decoder_{name}"), x) for name, x in inputs.items()
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


def _image_major(margins: Tensor, count: int) -> Tensor:
    """Margins in the released order (25 of every big image, then 25 of every small one) as [B, 50], image by image."""
    return margins.view(2, count, -1).transpose(0, 1).reshape(count, -1)


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

    def augment(params: DiffAugParams) -> DiffAugParams:
        return DiffAugParams(*(None if value is None else value[rows] for value in params))

    return Draws(
        z=draws.z[rows],
        noise={size: (first[rows], second[rows]) for size, (first, second) in draws.noise.items()},
        margins_real=margins(draws.margins_real),
        margins_fake=margins(draws.margins_fake),
        augment_real=augment(draws.augment_real),
        augment_big=augment(draws.augment_big),
        augment_small=augment(draws.augment_small),
        part=draws.part,
    )
