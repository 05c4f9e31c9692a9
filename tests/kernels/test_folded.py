"""The folded form of spectral norm before batch norm, BN(conv(x, W)) with sigma in its eps, against the exact one.

On a pair of convolution and batch norm that has been trained, in fp64, where nothing but the form differs.
"""

from dataclasses import dataclass
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fastgan_engine.kernels.norm_glu import norm_glu
from fastgan_engine.kernels.norm_lrelu import norm_lrelu
from fastgan_engine.kernels.spectral import SpectralBatch, SpectralLayer

STEPS, RATE = 20, 0.02
CHANNELS, OUTPUTS = 6, 16


@dataclass
class Pair:
    """A convolution under spectral norm, and the batch norm behind it."""

    weight: Tensor
    u: Tensor
    v: Tensor
    scale: Tensor
    shift: Tensor
    noise_weight: Tensor

    @property
    def parameters(self) -> list[Tensor]:
        return [self.weight, self.scale, self.shift, self.noise_weight]


def new_pair() -> Pair:
    """Initialised as the released networks are, in double precision."""
    generator = torch.Generator().manual_seed(0)
    normal = partial(torch.randn, generator=generator, dtype=torch.float64)
    return Pair(
        weight=(0.02 * normal(OUTPUTS, CHANNELS, 3, 3)).contiguous(memory_format=torch.channels_last).requires_grad_(),
        u=F.normalize(normal(OUTPUTS), dim=0),
        v=F.normalize(normal(CHANNELS * 9), dim=0),
        scale=(1 + 0.02 * normal(OUTPUTS)).requires_grad_(),
        shift=torch.zeros(OUTPUTS, dtype=torch.float64, requires_grad=True),
        noise_weight=torch.zeros(1, dtype=torch.float64, requires_grad=True),
    )


def forward(pair: Pair, x: Tensor, noise: Tensor | None, op: str, *, folded: bool, training: bool = True) -> Tensor:
    batch = SpectralBatch([SpectralLayer(pair.weight, pair.u, pair.v)], impl="reference")
    state = batch.step(training)
    if folded:
        # A detached sigma: its gradient is what this form drops.
        y, sigma = F.conv2d(x, pair.weight, padding=1), state.sigma[0].detach()
    else:
        y, sigma = F.conv2d(x, batch.normalised(state, x.dtype)[0], padding=1), None
    y = y.contiguous(memory_format=torch.channels_last)
    running = (torch.zeros(OUTPUTS, dtype=x.dtype), torch.ones(OUTPUTS, dtype=x.dtype))
    if op == "norm_lrelu":
        return norm_lrelu(y, pair.scale, pair.shift, *running, sigma=sigma, impl="reference")
    noisy = {} if noise is None else {"noise": noise, "noise_weight": pair.noise_weight}
    return norm_glu(y, pair.scale, pair.shift, *running, sigma=sigma, **noisy, impl="reference")


def batch_of(seed: int, op: str) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, noise and what to regress to."""
    generator = torch.Generator().manual_seed(seed)
    normal = partial(torch.randn, generator=generator, dtype=torch.float64)
    outputs = OUTPUTS if op == "norm_lrelu" else OUTPUTS // 2
    return normal(4, CHANNELS, 8, 8), normal(4, 1, 8, 8), normal(4, outputs, 8, 8)


def loss_of(pair: Pair, op: str, *, noisy: bool, folded: bool, training: bool = True, seed: int = 0) -> Tensor:
    x, noise, target = batch_of(seed, op)
    y = forward(pair, x, noise if noisy else None, op, folded=folded, training=training)
    return F.mse_loss(y, target)


def trained(op: str, *, noisy: bool) -> Pair:
    """After some steps of the exact form."""
    pair = new_pair()
    optimizer = torch.optim.Adam(pair.parameters, lr=RATE)
    first = loss_of(pair, op, noisy=noisy, folded=False).item()
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = loss_of(pair, op, noisy=noisy, folded=False)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.97 * first
    return pair


def gradients(pair: Pair, op: str, *, noisy: bool, folded: bool) -> list[Tensor | None]:
    """Of all parameters; the singular vectors stay, so that both forms see one sigma."""
    loss = loss_of(pair, op, noisy=noisy, folded=folded, training=False)
    return list(torch.autograd.grad(loss, pair.parameters, allow_unused=True))


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("op", ["norm_glu", "norm_lrelu"])
def test_trained_without_noise_only_eps_is_lost(op: str) -> None:
    pair = trained(op, noisy=False)
    x, _, _ = batch_of(1, op)
    exact, folded = (forward(pair, x, None, op, folded=folded, training=False) for folded in (False, True))
    torch.testing.assert_close(folded, exact, rtol=1e-12, atol=1e-12)
    of_exact, of_folded = (gradients(pair, op, noisy=False, folded=folded) for folded in (False, True))
    assert 0 < distance(of_folded[0], of_exact[0]) < 3e-4
    for got, expected in zip(of_folded[1:3], of_exact[1:3], strict=True):
        assert distance(got, expected) < 1e-12


def test_trained_with_noise_the_dropped_gradient_grows_with_it() -> None:
    """What is dropped is (w / sigma) dL/dw: nothing at the released start, w = 0, half a percent once w is learned."""
    op = "norm_glu"
    pair = trained(op, noisy=True)
    learned = pair.noise_weight.item()
    x, noise, _ = batch_of(1, op)
    distances = []
    for noise_weight in (0.0, learned, 0.5):
        pair.noise_weight.data.fill_(noise_weight)
        exact, folded = (forward(pair, x, noise, op, folded=folded, training=False) for folded in (False, True))
        torch.testing.assert_close(folded, exact, rtol=1e-12, atol=1e-12)
        of_exact, of_folded = (gradients(pair, op, noisy=True, folded=folded) for folded in (False, True))
        distances.append(distance(of_folded[0], of_exact[0]))
        for got, expected in zip(of_folded[1:], of_exact[1:], strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)
    assert 0.01 < abs(learned) < 0.1
    assert distances[0] < 3e-4 < 1e-3 < distances[1] < 1e-2 < 0.5 < distances[2]
