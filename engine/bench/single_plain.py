"""ConSinGAN's iteration as one would write it down first: the reference of tests and of ``bench single``.

It computes everything anew: a G forward for each D step, the frozen stages in every graph, the whole reconstruction
each time, PyTorch's own bicubic upsampling, the gradient penalty by a double backward, Adam a tensor at a time.
Source: Hinz et al., WACV 2021, and the released code.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastgan_engine.config.single import Single
from fastgan_engine.single.inputs import Draws
from fastgan_engine.single.networks import CONVS, MARGIN, SLOPE, Discriminator, Generator
from fastgan_engine.single.resize import Size
from fastgan_engine.single.state import SingleState
from fastgan_engine.single.step import G_STEPS, SingleLosses


def upsample(x: Tensor, size: Size) -> Tensor:
    return F.interpolate(x, size=size, mode="bicubic", align_corners=True)


def convolve(block: Any, x: Tensor) -> Tensor:
    """A stage's unpadded convolutions."""
    for index, conv in enumerate(block.convs):
        x = conv(x)
        if block.norms:
            x = block.norms[index](x)
        x = F.leaky_relu(x, SLOPE)
    return x


def generate(
    generator: Generator, noise: Sequence[Tensor], sizes: Sequence[Size], amplitudes: Sequence[float]
) -> Tensor:
    x = convolve(generator.head, F.pad(noise[0], [1] * 4))
    larger = generator.varies_borders
    if larger:
        x = upsample(x, (x.shape[2] + 2, x.shape[3] + 2))
    x = convolve(generator.stages[0], F.pad(x, [CONVS - 1 if larger else CONVS] * 4))
    for index in range(1, len(noise)):
        height, width = sizes[index]
        skip = upsample(x, (height, width))
        if larger:
            x = upsample(x, (height + 2 * MARGIN, width + 2 * MARGIN)) + noise[index] * amplitudes[index]
        else:
            x = F.pad(skip + noise[index] * amplitudes[index], [CONVS] * 4)
        x = convolve(generator.stages[index], x) + skip
    tail = generator.tail
    return F.conv2d(F.pad(x, [1] * 4), tail.weight, tail.bias).tanh()


def discriminate(discriminator: Discriminator, x: Tensor) -> Tensor:
    for conv in discriminator.convs[:-1]:
        x = F.leaky_relu(conv(x), SLOPE)
    return discriminator.convs[-1](x)


class PlainStep:
    """``step(draws)`` updates a copy of the state's networks, at the stage they are in."""

    def __init__(self, state: SingleState, single: Single, real: Tensor, sizes: list[Size]) -> None:
        self.single, self.real, self.sizes = single, real.contiguous(), sizes
        self.fixed, self.amplitudes = list(state.fixed), list(state.amplitudes)
        self.generator = copy.deepcopy(state.networks.generator).to(memory_format=torch.contiguous_format)
        self.discriminator = copy.deepcopy(state.networks.discriminator).to(memory_format=torch.contiguous_format)
        stages = self.generator.stages
        trained = stages[-single.train_depth :]
        groups = [
            {"params": block.parameters(), "lr": single.lr * single.lr_scale ** (len(trained) - 1 - index)}
            for index, block in enumerate(trained)
        ]
        if state.stage < single.train_depth:
            groups.append({"params": self.generator.head.parameters(), "lr": single.lr * single.lr_scale**state.stage})
        groups.append({"params": self.generator.tail.parameters(), "lr": single.lr})
        betas = (single.beta1, single.beta2)
        self.opt_g = torch.optim.Adam(groups, lr=single.lr, betas=betas, foreach=False)
        self.opt_d = torch.optim.Adam(self.discriminator.parameters(), lr=single.lr, betas=betas, foreach=False)

    def __call__(self, draws: Draws) -> SingleLosses:
        single, real, D = self.single, self.real, self.discriminator
        for mix in draws.mixes:
            self.opt_d.zero_grad()
            d_real = -discriminate(D, real).mean()
            fake = self._generate(draws.noise)
            d_fake = discriminate(D, fake.detach()).mean()
            penalty = single.penalty * self._penalty(mix * real + (1 - mix) * fake.detach())
            (d_real + d_fake + penalty).backward()
            self.opt_d.step()
        adversarial = -discriminate(D, fake).mean()
        reconstruction = single.reconstruction * (self._generate(self.fixed) - real).square().mean()
        self.generator.zero_grad()
        (adversarial + reconstruction).backward()
        for _ in range(G_STEPS):
            self.opt_g.step()
        losses = (d_real, d_fake, penalty, reconstruction, adversarial)
        return SingleLosses(*(loss.detach() for loss in losses))

    def _generate(self, noise: Sequence[Tensor]) -> Tensor:
        return generate(self.generator, [z.contiguous() for z in noise], self.sizes, self.amplitudes)

    def _penalty(self, x: Tensor) -> Tensor:
        x = x.requires_grad_()
        scores = discriminate(self.discriminator, x)
        gradient = torch.autograd.grad(scores, x, torch.ones_like(scores), create_graph=True)[0]
        return ((gradient.norm(2, dim=1) - 1) ** 2).mean()
