"""One iteration of one stage: three D steps on one fake, then one G gradient that is applied three times.

Source: Hinz et al., WACV 2021, and the released code. What is not computed, and why the result is the same:

- G does not change during the D steps: one forward makes the fake that all three and the G step see.
- Frozen stages run without a graph, and what they contribute to the reconstruction is computed once a stage.
- D's score of the image and of the fake are one batch; the gradient penalty needs no double backward (``penalty``).
- In the G step D needs no weight gradients: the released loop computes and discards them.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fastgan_engine.clock import Clock
from fastgan_engine.config.single import Single
from fastgan_engine.single.inputs import Draws
from fastgan_engine.single.penalty import gradient_penalty
from fastgan_engine.single.resize import Size
from fastgan_engine.single.state import SingleState, first_trained

G_STEPS = 3


class SingleLosses(NamedTuple):
    """Of the last D step and of the G step, each with its weight; scalars on the device."""

    d_real: Tensor
    d_fake: Tensor
    penalty: Tensor
    reconstruction: Tensor
    g: Tensor


class StageStep:
    """``step(draws)`` updates the networks of ``state`` in place, at the stage they are in.

    Args:
        real: the image at this stage. sizes: of the stages up to this one.
        dtype: of the forward passes; weights, the penalty and the losses are fp32 (or as the weights).
    """

    def __init__(
        self,
        state: SingleState,
        single: Single,
        real: Tensor,
        sizes: list[Size],
        dtype: torch.dtype = torch.float32,
        clock: Clock | None = None,
    ) -> None:
        self.state, self.single, self.real, self.sizes, self.clock = state, single, real, sizes, clock
        self.dtype = dtype
        self.first = first_trained(single, state.stage)
        with torch.no_grad(), self._autocast():
            generator = state.networks.generator
            self.frozen = generator.entry(self.first, state.fixed, sizes, state.amplitudes)

    def __call__(self, draws: Draws) -> SingleLosses:
        fake = self._fake(draws.noise)
        d_losses = self._d_steps(fake.detach().to(self.real.dtype), draws.mixes)
        self._lap("d")
        g_losses = self._g_steps(fake)
        self._lap("g")
        return SingleLosses(*d_losses, *g_losses)

    def _fake(self, noise: list[Tensor]) -> Tensor:
        generator, amplitudes = self.state.networks.generator, self.state.amplitudes
        with self._autocast():
            with torch.no_grad():
                entry = generator.entry(self.first, noise, self.sizes, amplitudes)
            return generator.above(self.first, entry, noise, self.sizes, amplitudes)

    def _d_steps(self, fake: Tensor, mixes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Losses of the last one."""
        discriminator, optimizer = self.state.networks.discriminator, self.state.opt_d
        pair = torch.cat([self.real, fake])
        for mix in mixes.unbind():
            optimizer.zero_grad()
            with self._autocast():
                scores = discriminator(pair)
            real_score, fake_score = scores.to(pair.dtype).mean(dim=(1, 2, 3)).unbind()
            penalty = self.single.penalty * gradient_penalty(discriminator, torch.lerp(fake, self.real, mix))
            (fake_score - real_score + penalty).backward()
            optimizer.step()
        return -real_score.detach(), fake_score.detach(), penalty.detach()

    def _g_steps(self, fake: Tensor) -> tuple[Tensor, Tensor]:
        """One gradient, of both losses, applied three times. Each loss's graph is gone before the next is built."""
        state, optimizer = self.state, self.state.opt_g
        optimizer.zero_grad()
        judged = fake.detach().requires_grad_()
        with self._autocast():
            adversarial = -state.networks.discriminator(judged).to(self.real.dtype).mean()
        fake.backward(torch.autograd.grad(adversarial, judged)[0])
        with self._autocast():
            made = state.networks.generator.above(self.first, self.frozen, state.fixed, self.sizes, state.amplitudes)
        reconstruction = self.single.reconstruction * F.mse_loss(made.to(self.real.dtype), self.real)
        reconstruction.backward()
        for _ in range(G_STEPS):
            optimizer.step()
        return reconstruction.detach(), adversarial.detach()

    def _autocast(self) -> torch.autocast:
        enabled = self.dtype in (torch.bfloat16, torch.float16)
        # Without the cache: a weight cast inside a captured graph must be cast again in each replay.
        return torch.autocast(
            self.real.device.type, self.dtype if enabled else None, enabled=enabled, cache_enabled=False
        )

    def _lap(self, name: str) -> None:
        if self.clock is not None:
            self.clock.lap(name)
