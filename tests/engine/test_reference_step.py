"""The reference iteration against the released loop, stated again here in fp64 with autograd and nothing of ours.

Only the networks are shared; they are called as the released loop calls its own.
"""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fastgan_engine.build import build_networks
from fastgan_engine.draws import Draws, draw
from fastgan_engine.kernels.diffaug import DiffAugParams
from fastgan_engine.reconstruction import ReconstructionLoss
from fastgan_engine.reference_step import ReferenceStep
from fastgan_engine.state import Networks

from .small import BATCH, NZ, SIZE, small_config

POLICY = "color,translation"
DECAY = 0.75  # far from 1, so that a wrong average shows


def wide(value):  # type: ignore[no-untyped-def]
    """Every floating tensor of (nested) draws in fp64."""
    if isinstance(value, Tensor):
        return value.double() if value.is_floating_point() else value
    if isinstance(value, dict):
        return {key: wide(item) for key, item in value.items()}
    if isinstance(value, tuple):
        items = [wide(item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    return value


def inputs(seed: int, policy: str = POLICY) -> tuple[Tensor, Draws]:
    generator = torch.Generator().manual_seed(seed)
    reals = torch.rand(BATCH, 3, SIZE, SIZE, generator=generator, dtype=torch.float64) * 2 - 1
    return reals, wide(draw(BATCH, im_size=SIZE, nz=NZ, policy=policy, generator=generator))


def networks(**model: object) -> Networks:
    made = build_networks(small_config(model=model), torch.device("cpu"), channels_last=False)  # which fp64 is slow in
    for network in (made.generator, made.discriminator, made.ema):
        network.double()
    return made


def adam(network: torch.nn.Module) -> torch.optim.Adam:
    return torch.optim.Adam(network.parameters(), lr=2e-4, betas=(0.5, 0.999))


def reference(nets: Networks, kind: str = "l1", loss: ReconstructionLoss | None = None) -> ReferenceStep:
    loss = loss or ReconstructionLoss(kind)  # type: ignore[arg-type]
    return ReferenceStep(nets, loss, adam(nets.generator), adam(nets.discriminator), ema_decay=DECAY)


def augmented(images: Tensor, params: DiffAugParams) -> Tensor:
    """DiffAugment's `color,translation`, step after step and image by image."""
    out = []
    for index, x in enumerate(images):
        b, s, c, y0, x0 = (value[index] for value in params[:5])
        x = x + b
        mean = x.mean(0, keepdim=True)
        x = (x - mean) * s + mean
        mean = x.mean()
        x = (x - mean) * c + mean
        margin = SIZE // 8
        rows, columns = margin + int(y0), margin + int(x0)
        padded = F.pad(x, (margin,) * 4)
        out.append(padded[:, rows : rows + x.shape[1], columns : columns + x.shape[2]])
    return torch.stack(out)


class ReleasedLoop:
    """The iteration as FASTGAN's authors wrote it: one function for D, called twice, then G, then the average."""

    def __init__(self, nets: Networks, percept: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.g, self.d, self.percept = nets.generator, nets.discriminator, percept
        self.opt_g, self.opt_d = adam(self.g), adam(self.d)
        self.average = [p.detach().clone() for p in self.g.parameters()]

    def train_d_real(self, images: Tensor, draws: Draws) -> tuple[float, float]:
        part, half = int(draws.part), SIZE // 2
        logits, (big, small, quarter) = self.d([images, F.interpolate(images, size=half)], "real", part=part)
        top, left = (0, 0, half, half)[part], (0, half, 0, half)[part]
        crop = images[:, :, top : top + half, left : left + half]
        hinge = F.relu(draws.margins_real - logits).mean()
        reconstruction = (
            self.percept(big, F.interpolate(images, big.shape[2])).sum()
            + self.percept(small, F.interpolate(images, small.shape[2])).sum()
            + self.percept(quarter, F.interpolate(crop, quarter.shape[2])).sum()
        )
        (hinge + reconstruction).backward()
        return hinge.item(), reconstruction.item()

    def train_d_fake(self, images: list[Tensor], draws: Draws) -> float:
        error = F.relu(draws.margins_fake + self.d([image.detach() for image in images], "fake")).mean()
        error.backward()
        return error.item()

    def __call__(self, reals: Tensor, draws: Draws) -> tuple[float, ...]:
        big, small = self.g(draws.z, draws.noise)
        reals = augmented(reals, draws.augment_real)
        fakes = [augmented(big, draws.augment_big), augmented(small, draws.augment_small)]

        self.d.zero_grad()
        real, reconstruction = self.train_d_real(reals, draws)
        fake = self.train_d_fake(fakes, draws)
        self.opt_d.step()

        self.g.zero_grad()
        error = -self.d(fakes, "fake").mean()
        error.backward()
        self.opt_g.step()

        for average, p in zip(self.average, self.g.parameters(), strict=True):
            average.mul_(DECAY).add_(p.detach(), alpha=1 - DECAY)
        return real, fake, reconstruction, error.item()


def mean_absolute(a: Tensor, b: Tensor) -> Tensor:
    return torch.stack([(x - y).abs().mean() for x, y in zip(a, b, strict=True)])


def assert_same(ours: torch.nn.Module, theirs: torch.nn.Module) -> None:
    torch.testing.assert_close(dict(ours.state_dict()), dict(theirs.state_dict()), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", ["l1", "lpips-squeeze"])
def test_two_iterations_are_the_released_ones(kind: str) -> None:
    ours, theirs = networks(), networks()
    assert_same(ours.discriminator, theirs.discriminator)
    loss = ReconstructionLoss(kind, random_weights=True).double()  # type: ignore[arg-type]
    step = reference(ours, loss=loss)
    released = ReleasedLoop(theirs, loss.lpips if loss.lpips is not None else mean_absolute)
    before = [p.detach().clone() for p in ours.generator.parameters()]
    for seed in (1, 2):
        reals, draws = inputs(seed)
        losses = step(reals, draws)
        assert [float(value) for value in losses] == pytest.approx(released(reals, draws), rel=1e-9)
    assert_same(ours.generator, theirs.generator)
    assert_same(ours.discriminator, theirs.discriminator)
    torch.testing.assert_close(list(ours.ema.parameters()), released.average, rtol=1e-9, atol=1e-10)
    assert all((p - b).abs().max() > 1e-6 for p, b in zip(ours.generator.parameters(), before, strict=True))


def test_gradients_left_from_elsewhere_do_not_reach_the_updates() -> None:
    """Such as D's gradients of the G pass of the iteration before."""
    clean, dirty = networks(), networks()
    step, stale = reference(clean), reference(dirty)
    for network in (dirty.generator, dirty.discriminator):
        for p in network.parameters():
            p.grad = torch.full_like(p, 1e3)
    reals, draws = inputs(1)
    assert stale(reals, draws) == step(reals, draws)
    assert_same(dirty.generator, clean.generator)
    assert_same(dirty.discriminator, clean.discriminator)


def test_reconstruction_is_summed_and_hinge_averaged_over_the_batch() -> None:
    """Every image twice: batch statistics, and so all images, stay what they are."""
    reals, draws = inputs(1)

    def twice(x: Tensor | None) -> Tensor | None:
        return None if x is None else torch.cat([x, x])

    def twice_in_halves(margins: Tensor) -> Tensor:  # those of the big images come first, then those of the small ones
        big, small = margins.chunk(2)
        return torch.cat([big, big, small, small])

    doubled = Draws(
        z=torch.cat([draws.z, draws.z]),
        noise={size: tuple(torch.cat([m, m]) for m in maps) for size, maps in draws.noise.items()},  # type: ignore[misc]
        margins_real=twice_in_halves(draws.margins_real),
        margins_fake=twice_in_halves(draws.margins_fake),
        augment_real=DiffAugParams(*map(twice, draws.augment_real)),
        augment_big=DiffAugParams(*map(twice, draws.augment_big)),
        augment_small=DiffAugParams(*map(twice, draws.augment_small)),
        part=draws.part,
    )
    once = reference(networks())(reals, draws)
    again = reference(networks())(torch.cat([reals, reals]), doubled)
    assert again.reconstruction.item() == pytest.approx(2 * once.reconstruction.item(), rel=1e-9)
    for name in ("d_real", "d_fake"):
        assert getattr(again, name).item() == pytest.approx(getattr(once, name).item(), rel=1e-9)


def test_without_decoders_there_is_no_reconstruction() -> None:
    step = reference(networks(decode=False), kind="none")
    losses = step(*inputs(1))
    assert losses.reconstruction == 0
    assert losses.d_real > 0


def test_autocast_changes_the_losses_by_roundings_only() -> None:
    reals, draws = inputs(1)
    wanted = reference(networks())(reals, draws)
    nets = networks()
    for network in (nets.generator, nets.discriminator, nets.ema):
        network.float()
    step = reference(nets)
    step.autocast = torch.autocast("cpu", torch.bfloat16)
    narrow = Draws(*(item.float() if torch.is_tensor(item) and item.is_floating_point() else item for item in draws))
    narrow = narrow._replace(noise={k: (a.float(), b.float()) for k, (a, b) in draws.noise.items()})
    losses = step(reals.float(), narrow)
    for name in ("d_real", "d_fake", "reconstruction"):
        assert getattr(losses, name).item() == pytest.approx(getattr(wanted, name).item(), rel=0.05)
