"""The random numbers of an iteration: shapes, distributions, and one generator behind them all."""

import pytest
import torch

from fastgan_engine.build import build_networks
from fastgan_engine.draws import Draws, draw

from .small import NZ, small_config


def draws(seed: int = 0, batch: int = 2, im_size: int = 64, policy: str = "color,translation,cutout") -> Draws:
    return draw(batch, im_size=im_size, nz=NZ, policy=policy, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("im_size", [64, 256, 1024])
def test_shapes(im_size: int) -> None:
    made = draws(batch=3, im_size=im_size)
    assert made.z.shape == (3, NZ)
    assert made.margins_real.shape == made.margins_fake.shape == (150,)
    assert made.part.shape == ()
    assert all(value.shape == (3,) for params in made[4:7] for value in params)
    sizes = {64: [8, 32], 256: [8, 32, 128], 1024: [8, 32, 128, 512]}[im_size]
    assert {size: [tuple(m.shape) for m in maps] for size, maps in made.noise.items()} == {
        size: [(3, 1, size, size)] * 2 for size in sizes
    }


@pytest.mark.parametrize(("im_size", "small"), [(64, 32), (128, 64), (256, 128)])
def test_each_image_is_augmented_at_its_own_size(im_size: int, small: int) -> None:
    """Shifts go up to an eighth of the side."""
    made = draws(batch=2000, im_size=im_size)
    largest = [int(params.shift_x.abs().max()) for params in made[4:7]]  # type: ignore[union-attr]
    assert largest == [im_size // 8, im_size // 8, small // 8]


def test_networks_take_them() -> None:
    networks = build_networks(small_config(), torch.device("cpu"))
    made = draws()
    images = networks.generator(made.z, made.noise)
    assert networks.discriminator(images).shape == made.margins_real.shape
    assert list(made.noise) == networks.generator.noise_sizes()


def test_latents_and_noise_are_normal() -> None:
    made = draws(batch=512)
    for values in (made.z, *made.noise[8]):
        n = values.numel()
        assert abs(values.mean()) < 5 / n**0.5
        assert abs(values.var() - 1) < 5 * (2 / n) ** 0.5
        assert abs((values.abs() < 0.6745).double().mean() - 0.5) < 2.5 / n**0.5  # the quartiles
    first, second = made.noise[8]
    assert not torch.equal(first, second)


def test_margins_are_uniform_and_drawn_apart() -> None:
    made = draws(batch=200)
    for margins in (made.margins_real, made.margins_fake):
        assert margins.min() >= 0.8
        assert margins.max() < 1
        assert margins.mean() == pytest.approx(0.9, abs=5 * 0.2 / (12 * margins.numel()) ** 0.5)
    assert not torch.equal(made.margins_real, made.margins_fake)


def test_reals_and_both_fakes_are_augmented_independently() -> None:
    made = draws(batch=8)
    assert not torch.equal(made.augment_real.brightness, made.augment_big.brightness)  # type: ignore[arg-type]
    assert not torch.equal(made.augment_big.brightness, made.augment_small.brightness)  # type: ignore[arg-type]


def test_every_quadrant_comes_up() -> None:
    generator = torch.Generator().manual_seed(0)
    parts = [
        int(draw(1, im_size=64, nz=1, policy="", generator=generator).part) for _ in range(60)
    ]  # one is missing with a probability of 1e-7
    assert set(parts) == {0, 1, 2, 3}


def test_same_seed_same_draws_whatever_the_global_state() -> None:
    torch.manual_seed(1)
    first = draws(7)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    second = draws(7)
    assert torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert not torch.equal(draws(8).z, first.z)


def test_no_policy_no_augmentation() -> None:
    made = draws(policy="")
    assert all(value is None for params in made[4:7] for value in params)
