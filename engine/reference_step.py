"""One iteration of the released recipe in plain PyTorch: what every fast path is tested and timed against."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from fastgan_engine.draws import Draws
from fastgan_engine.kernels.diffaug import diffaug
from fastgan_engine.kernels.hinge import hinge_fake, hinge_real
from fastgan_engine.reconstruction import ReconstructionLoss, resize
from fastgan_engine.self_supervision import Task
from fastgan_engine.state import Networks, update_ema


class StepLosses(NamedTuple):
    """Losses of one iteration, scalars on the device: D's hinge on reals and on fakes, reconstruction, G.

    With another self-supervised task its loss stands in place of the reconstruction's.
    """

    d_real: Tensor
    d_fake: Tensor
    reconstruction: Tensor
    g: Tensor


class ReferenceStep:
    """The released loop's iteration: three separate D passes, Adam, EMA (FastGAN's ``train.py``).

    ``step(reals, draws)`` with reals [B, C, H, W] in [-1, 1] updates the networks in place. ``autocast`` is the
    context that forward passes run in (nothing: fp32).
    """

    def __init__(
        self,
        networks: Networks,
        reconstruction: ReconstructionLoss,
        opt_g: torch.optim.Optimizer,
        opt_d: torch.optim.Optimizer,
        *,
        ema_decay: float,
        autocast: AbstractContextManager | None = None,
    ) -> None:
        self.networks, self.reconstruction = networks, reconstruction
        self.opt_g, self.opt_d = opt_g, opt_d
        self.ema_decay = ema_decay
        self.autocast = autocast or nullcontext()
        self.run_g: Callable[..., Any] = networks.generator
        self.run_d: Callable[..., Any] = networks.discriminator

    def __call__(self, reals: Tensor, draws: Draws) -> StepLosses:
        with self.autocast:
            big, small = self.run_g(draws.z, draws.noise)
        originals, reals = reals, diffaug(reals, draws.augment_real, impl="reference")
        fakes = [
            diffaug(big, draws.augment_big, impl="reference"),
            diffaug(small, draws.augment_small, impl="reference"),
        ]

        self.opt_d.zero_grad()
        d_real, rec = self._backward_real(reals, draws)
        with self.autocast:
            d_fake = hinge_fake(self.run_d([fake.detach() for fake in fakes]), draws.margins_fake)
        self._backward("d", d_fake)
        if (task := self.networks.discriminator.task) is not None:
            rec = self._backward_task(task, originals, draws)
        self._update("d", self.opt_d)

        self.opt_g.zero_grad()
        with self.autocast:
            g = -self.run_d(fakes).mean()
        self._backward("g", g)
        self._update("g", self.opt_g)
        update_ema(self.networks.ema, self.networks.generator, self.ema_decay)
        return StepLosses(d_real.detach(), d_fake.detach(), rec.detach(), g.detach())

    def _backward_real(self, reals: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        discriminator = self.networks.discriminator
        images = [reals, resize(reals, discriminator.small_size)]
        part = self._part(draws)
        with self.autocast:
            if discriminator.decode:
                logits, reconstructions = self.run_d(images, "real", part)
                rec = self.reconstruction.released(reconstructions, reals, part)
            else:
                logits, rec = self.run_d(images), reals.new_zeros(())
            d_real = hinge_real(logits, draws.margins_real)
        self._backward("d", d_real + rec)
        return d_real, rec

    def _backward_task(self, task: Task, reals: Tensor, draws: Draws) -> Tensor:
        with self.autocast:
            last, _ = self.networks.discriminator.features(task.views(reals, draws, impl="reference"))
            loss = task(last)
        self._backward("d", loss)
        return loss

    def _part(self, draws: Draws) -> int | Tensor:
        return int(draws.part)

    def _backward(self, network: Literal["d", "g"], loss: Tensor) -> None:
        loss.backward()

    def _update(self, network: Literal["d", "g"], optimizer: torch.optim.Optimizer) -> None:
        optimizer.step()
