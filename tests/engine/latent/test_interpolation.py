"""Frames between latents: the ends, the loop, the noise, the cells, the chunks."""

import pytest
import torch
from torch import Tensor

from fastgan_engine.errors import UserError
from fastgan_engine.latent.interpolation import interpolate
from fastgan_engine.latent.latents import Latents, draw
from fastgan_engine.networks import Generator
from fastgan_engine.sampling import images_of

ROUNDING = 1  # of 255: batches of another size


def frames(generator: Generator, keyframes: Latents, **options: object) -> Tensor:
    video = interpolate(generator, keyframes, **options)  # type: ignore[arg-type]
    made = torch.stack(list(video)).int()
    assert made.shape == (video.count, video.height, video.width, 3)
    return made


def still(generator: Generator, latents: Latents) -> Tensor:
    """The latents' images under the first one's noise."""
    noise = latents.pick([0] * len(latents)).noise
    return images_of(generator, latents.z, noise).int()


@pytest.fixture(scope="module")
def keyframes(generator: Generator) -> Latents:
    return draw(generator, 0, range(3))


def test_keyframes_are_met_and_the_noise_stays(generator: Generator, keyframes: Latents) -> None:
    made = frames(generator, keyframes, frames=4)
    assert len(made) == 9
    assert (made[::4] - still(generator, keyframes)).abs().max() <= ROUNDING
    other_noise = images_of(generator, keyframes.z, keyframes.noise).int()
    assert (made[8] - other_noise[2]).abs().max() > ROUNDING  # else this test would not see the noise


def test_between_is_the_generators_image_of_the_arc(generator: Generator, keyframes: Latents) -> None:
    a, b = keyframes.z[0].double(), keyframes.z[1].double()
    angle = torch.acos(a @ b / a.norm() / b.norm())
    halfway = (a / a.norm() + b / b.norm()) / (2 * torch.cos(angle / 2)) * (a.norm() + b.norm()) / 2
    expected = still(generator, Latents(halfway.float()[None], keyframes.pick([0]).noise))[0]
    for easing in ("linear", "smooth"):
        made = frames(generator, keyframes.pick([0, 1]), frames=2, easing=easing)
        assert (made[1] - expected).abs().max() <= ROUNDING


def test_the_last_frame_of_a_loop_goes_on_to_the_first(generator: Generator, keyframes: Latents) -> None:
    made = frames(generator, keyframes, frames=6, loop=True, easing="linear")
    assert len(made) == 18
    steps = (made - made.roll(-1, 0)).abs().float().mean(dim=(1, 2, 3))
    assert steps[-1] <= steps.max()
    around = frames(generator, keyframes.pick([2, 0, 1]), frames=6, loop=True, easing="linear")
    same_noise = Latents(keyframes.z, keyframes.pick([2, 2, 2]).noise)
    assert (frames(generator, same_noise, frames=6, loop=True, easing="linear").roll(6, 0) - around).abs().max() <= 1
    backwards = frames(generator, keyframes.pick([0, 2]), frames=6, easing="linear")
    assert (made[-1] - backwards[1]).abs().max() <= ROUNDING  # one step from the first towards the last keyframe


def test_truncation(generator: Generator, keyframes: Latents) -> None:
    made = frames(generator, keyframes, frames=1, truncation=0.5)
    expected = still(generator, Latents(keyframes.z * 0.5, keyframes.noise))
    assert (made - expected).abs().max() <= ROUNDING


@pytest.mark.parametrize("chunk", [1, 4, 7])
def test_cells_are_ways_of_their_own(generator: Generator, chunk: int) -> None:
    latents = draw(generator, 0, range(8))
    made = frames(generator, latents, frames=3, rows=2, columns=2, chunk=chunk)
    assert made.shape == (4, 130, 130, 3)
    for cell in range(4):
        alone = frames(generator, latents.pick([2 * cell, 2 * cell + 1]), frames=3)
        top, left = cell // 2 * 66, cell % 2 * 66
        assert (made[:, top : top + 64, left : left + 64] - alone).abs().max() <= ROUNDING


def test_frames_are_made_as_they_are_asked_for(generator: Generator, keyframes: Latents) -> None:
    calls = []

    class Counting(Generator):
        def forward(self, z: Tensor, *rest: object) -> list[Tensor]:
            calls.append(len(z))
            return super().forward(z, *rest)  # type: ignore[arg-type]

    counting = Counting(64, nz=16, ngf=8)
    counting.load_state_dict(generator.state_dict())
    video = iter(interpolate(counting, keyframes, frames=1000, chunk=2))
    for _ in range(3):
        next(video)
    assert calls == [2, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frames": 0}, "frames: got 0, expected 1 or more"),
        ({"chunk": 0}, "chunk: got 0, expected 1 or more"),
        ({"rows": 0}, "grid: cells: got 0, expected 1 or more"),
        ({"rows": 2}, r"got 3 latent\(s\), expected a multiple of the grid's 2 cells, 2 or more for each"),
        ({"columns": 3}, r"got 3 latent\(s\), expected a multiple of the grid's 3 cells"),
    ],
)
def test_arguments_out_of_range(generator: Generator, keyframes: Latents, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        interpolate(generator, keyframes, **options)


def test_one_latent_is_no_way(generator: Generator, keyframes: Latents) -> None:
    with pytest.raises(UserError, match=r"got 1 latent\(s\), expected 2 or more"):
        interpolate(generator, keyframes.pick([0]))
