"""Back-tracking: what the generator made is found again; the best attempt is kept; nothing else is touched."""

import math

import pytest
import torch
from torch import Tensor

from fastgan_engine.errors import UserError
from fastgan_engine.latent.inversion import invert
from fastgan_engine.latent.latents import draw
from fastgan_engine.latent.metrics import Lpips, Pixels
from fastgan_engine.latent.rendering import render
from fastgan_engine.networks import Generator
from fastgan_engine.perceptual import build_lpips
from tests.engine.latent.sets import InMemory, random_pixels
from tests.engine.weights import assert_same_state, copied


def rms(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).div(255).square().mean().sqrt())


@pytest.fixture(scope="module")
def quiet(generator: Generator) -> Generator:
    """Without noise, so that a latent's image hangs on z alone and can be found again."""
    quiet = Generator(64, nz=16, ngf=8)
    quiet.load_state_dict(generator.state_dict())
    with torch.no_grad():
        for parameter in quiet.parameters():
            if parameter.numel() == 1:
                parameter.zero_()
    return quiet.eval()


def test_an_image_of_the_generator_is_found_again(quiet: Generator) -> None:
    (targets,) = render(quiet, draw(quiet, 9, [1]))
    done: list[tuple[int, int]] = []
    found = invert(
        quiet, InMemory(targets), Pixels(64), steps=120, lr=0.2, restarts=4, progress=lambda *step: done.append(step)
    )
    assert (found.after < 0.05 * found.before).all()
    assert done == [(4 * step, 480) for step in range(1, 121)]  # four attempts, at once
    for index, target in enumerate(targets):
        assert found.before[index] == pytest.approx(rms(found.start[index], target), abs=0.003)
        assert found.after[index] == pytest.approx(rms(found.result[index], target), abs=0.003)
    (again,) = render(quiet, found.latents)  # the latents are those of the result
    assert (again.int() - found.result.int()).abs().max() <= 1


def test_by_lpips(quiet: Generator) -> None:
    torch.manual_seed(0)
    network = build_lpips("squeeze", None)
    (targets,) = render(quiet, draw(quiet, 9, range(1)))
    found = invert(quiet, InMemory(targets), Lpips(network, 64), steps=30, lr=0.2, restarts=1)
    assert found.after[0] < 0.5 * found.before[0]
    start, result = (x.permute(0, 3, 1, 2) / 127.5 - 1 for x in (found.start, found.result))
    target = targets.permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        assert float(network(start, target)) == pytest.approx(float(found.before[0]), rel=0.1)
        assert float(network(result, target)) == pytest.approx(float(found.after[0]), rel=0.1)


@pytest.mark.parametrize("chunk", [1, 4])
def test_the_best_attempt_is_kept_and_images_do_not_meet(generator: Generator, chunk: int) -> None:
    """Whatever is tried beside it, an attempt goes the same way."""
    reals = random_pixels(2)
    found = invert(generator, InMemory(reals), Pixels(64), steps=4, restarts=3, seed=5, chunk=chunk)
    for index in range(2):
        alone = invert(generator, InMemory(reals[[index]]), Pixels(64), steps=4, restarts=3, seed=5, chunk=16)
        torch.testing.assert_close(found.latents.z[[index]], alone.latents.z, rtol=1e-3, atol=1e-3)
        single = invert(generator, InMemory(reals[[index]]), Pixels(64), steps=4, restarts=1, seed=5)
        assert alone.after[0] <= single.after[0] + 1e-6
    starts = draw(generator, 5, range(3))
    assert all(any(torch.equal(maps, start) for start in starts.noise[8][0]) for maps in found.latents.noise[8][0])


@pytest.mark.parametrize("training", [True, False])
def test_the_network_is_left_as_it_was(generator: Generator, training: bool) -> None:
    before = copied(generator.state_dict())
    generator.train(training).zero_grad()
    learning = [parameter.requires_grad for parameter in generator.parameters()]
    invert(generator, InMemory(random_pixels(1)), Pixels(64), steps=2, restarts=1)
    assert generator.training is training
    assert [parameter.requires_grad for parameter in generator.parameters()] == learning
    assert all(parameter.grad is None for parameter in generator.parameters())
    assert_same_state(generator.eval().state_dict(), before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps: got 0, expected 1 or more"),
        ({"restarts": 0}, "restarts: got 0, expected 1 or more"),
        ({"chunk": 0}, "chunk: got 0, expected 1 or more"),
        ({"lr": 0.0}, r"lr: got 0\.0, expected more than 0"),
        ({"lr": math.nan}, "lr: got nan, expected more than 0"),
    ],
)
def test_arguments_out_of_range(generator: Generator, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        invert(generator, InMemory(random_pixels(1)), Pixels(64), **options)
