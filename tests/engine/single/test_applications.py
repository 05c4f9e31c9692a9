"""Samples by seed and index, the animation's walk, and the changed copies that a run learns to undo."""

import itertools

import numpy as np
import pytest
import torch

from fastgan_engine.errors import UserError
from fastgan_engine.single.applications import SingleModel, animate, sample
from fastgan_engine.single.augment import disguise, shuffle_tiles
from tests.engine.single.small import begun, picture, small_single


def model(mode: str = "generate") -> SingleModel:
    single = small_single(mode=mode, stages=3)
    state, _, sizes = begun(single, 2, torch.float32)
    return SingleModel(single, state.networks.generator, picture(), sizes, state.fixed, state.amplitudes)


def test_image_i_of_a_seed_is_the_same_whatever_the_count_and_others_differ() -> None:
    made = model()
    one, two = list(sample(made, 1, seed=3)), list(sample(made, 2, seed=3))
    assert torch.equal(one[0], two[0])
    assert not torch.equal(two[0], two[1])
    assert not torch.equal(two[0], next(sample(made, 1, seed=4)))
    assert two[0].shape == (28, 40, 3)
    assert two[0].dtype == torch.uint8


@pytest.mark.parametrize("first", [0, 1, 2])
def test_only_the_noise_of_the_stages_from_the_first_on_moves(first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made, given = model("animate"), []
    monkeypatch.setattr(SingleModel, "make", lambda self, noise: given.append(noise))
    list(animate(made, 3, first=first, beta=0.8))
    for noise in given:
        moves = [not torch.equal(now, still) for now, still in zip(noise, made.fixed, strict=True)]
        assert moves == [stage >= first for stage in range(3)]


def test_a_stage_that_there_is_not_cannot_move() -> None:
    with pytest.raises(UserError, match=r"--first: got 3, but the run's stages are 0 to 2"):
        next(animate(model("animate"), 1, first=3, beta=0.8))


def test_a_smooth_walk_moves_less_from_frame_to_frame_than_a_restless_one() -> None:
    made = model("animate")

    def restlessness(beta: float) -> float:
        frames = [frame.float() for frame in animate(made, 6, first=0, beta=beta)]
        return float(np.mean([(a - b).abs().mean() for a, b in itertools.pairwise(frames)]))

    assert restlessness(0.99) < 0.5 * restlessness(0.5)


def test_shuffled_tiles_come_from_the_image_and_one_to_five_of_them_move() -> None:
    height, width = 60, 80
    places = np.arange(height * width, dtype=np.float32).reshape(height, width, 1).repeat(3, axis=2)
    shares = []
    for seed in range(40):
        shuffled = shuffle_tiles(places, np.random.default_rng(seed))
        assert set(shuffled.ravel()) <= set(places.ravel())
        shares.append(float((shuffled != places).mean()))
    assert min(shares) > 0
    assert max(shares) <= 0.25 + 1e-6  # one tile of at most half of each side


def test_disguises_keep_the_range_and_mostly_cut_out_a_hole() -> None:
    image = np.asarray(picture(80, 60), dtype=np.float32) / 255
    cut = 0
    for seed in range(60):
        before = image.copy()
        changed = disguise(image, np.random.default_rng(seed))
        assert np.array_equal(image, before)
        assert changed.dtype == np.float32
        assert changed.min() >= 0
        assert changed.max() <= 1
        cut += not np.array_equal(changed, image)
    assert 48 <= cut < 60  # 1 - .75 * .1 = .925 of them, .86 to .99 for 60 draws at 3 sigma
