"""The nearest training images, against distances computed pair by pair."""

import numpy as np
import pytest
import torch
from torch import Tensor

from fastgan_engine.latent.metrics import Lpips, Pixels
from fastgan_engine.latent.neighbors import YARDSTICK, Neighbor, Neighbors, neighbors
from fastgan_engine.perceptual import build_lpips
from tests.engine.latent.sets import InMemory, random_pixels


def rms(a: Tensor, b: Tensor) -> float:
    """At 32 x 32, of two images of 64 x 64."""
    small = [x.double().view(32, 2, 32, 2, -1).mean((1, 3)) / 255 for x in (a, b)]
    return float((small[0] - small[1]).square().mean().sqrt())


@pytest.mark.parametrize("chunk", [1, 3, 16])
def test_by_hand(chunk: int) -> None:
    reals, samples = random_pixels(7), random_pixels(3, seed=1)
    done: list[tuple[int, int]] = []
    found = neighbors(samples, InMemory(reals), Pixels(32), k=7, chunk=chunk, progress=lambda *step: done.append(step))
    for sample, row in zip(samples, found.nearest, strict=True):
        both = np.array([[rms(sample, real), rms(sample, real.flip(1))] for real in reals])
        order = both.min(1).argsort()
        assert [n.index for n in row] == order.tolist()
        assert [n.mirrored for n in row] == [bool(both[i].argmin()) for i in order]
        assert [n.distance for n in row] == pytest.approx(both.min(1)[order], rel=1e-5)
    expected = [
        min(min(rms(reals[a], reals[b]), rms(reals[a], reals[b].flip(1))) for b in range(7) if b != a) for a in range(7)
    ]
    assert found.yardstick == pytest.approx(expected, rel=1e-5)
    assert done[-1] == (7, 7)


def test_a_training_image_is_its_own_neighbour_at_distance_0() -> None:
    reals = random_pixels(5)
    samples = torch.stack([reals[3], reals[1].flip(1), random_pixels(1, seed=9)[0]])
    found = neighbors(samples, InMemory(reals), Pixels(32), k=1, chunk=2)
    assert found.nearest[0] == [Neighbor(3, 0.0, False)]
    assert found.nearest[1] == [Neighbor(1, 0.0, True)]
    assert found.suspects == [0, 1]
    assert found.distances[2] > 0.1


def test_by_lpips() -> None:
    torch.manual_seed(0)
    reals = random_pixels(4)
    found = neighbors(reals[[2]], InMemory(reals), Lpips(build_lpips("squeeze", None), 64), k=1, chunk=3)
    (row,) = found.nearest
    assert (row[0].index, row[0].mirrored) == (2, False)
    assert row[0].distance < 1e-9  # another batch rounds otherwise
    assert min(found.yardstick) > 1e-4


def test_more_neighbours_than_images_and_a_single_image() -> None:
    reals = random_pixels(1)
    found = neighbors(random_pixels(2, seed=1), InMemory(reals), Pixels(32), k=5)
    assert [[n.index for n in row] for row in found.nearest] == [[0], [0]]
    assert found.yardstick == []
    assert found.suspects == []


def test_the_yardstick_is_spread_over_a_large_set() -> None:
    reals = random_pixels(3 * YARDSTICK)
    reals[-1] = reals[-2]  # the last of the set is looked at
    found = neighbors(random_pixels(1, seed=1), InMemory(reals), Pixels(32), chunk=32)
    assert len(found.yardstick) == YARDSTICK
    assert found.yardstick[-1] == 0
    assert min(found.yardstick[:-1]) > 0.1


def test_suspects_are_nearer_than_any_two_of_the_yardstick() -> None:
    rows = [[Neighbor(0, distance, False)] for distance in (0.3, 0.19, 0.2)]
    assert Neighbors(rows, [0.5, 0.2]).suspects == [1]
