"""The sample and reconstruction grids of a run."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastgan_engine.build import build_state
from fastgan_engine.networks import Reconstructions
from fastgan_engine.pictures import save_pictures
from fastgan_engine.run_folder import RunFolder

from .small import SIZE, small_config

GAP = 2


@dataclass
class Images:
    """A prepared set as far as pictures look at it: image i is random with seed i."""

    count: int

    def array(self, index: int) -> np.ndarray:
        return np.random.default_rng(index).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)


def make(tmp_path: Path, images: int = 10, **model: object):  # type: ignore[no-untyped-def]
    state = build_state(small_config(model=model), torch.device("cpu"), torch.float32)
    state.step = 7
    return RunFolder(tmp_path), state, Images(images)


def cell(picture: Image.Image, row: int, column: int, side: int) -> np.ndarray:
    top, left = row * (side + GAP), column * (side + GAP)
    return np.asarray(picture)[top : top + side, left : left + side]


def test_sample_grid_is_of_the_averaged_generator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, state, images = make(tmp_path, decode=False)
    monkeypatch.setattr(state.networks.ema, "forward", lambda z, noise: [torch.zeros(len(z), 3, SIZE, SIZE)])
    path = save_pictures(folder, state, images, count=5, seed=3)
    assert path == folder.sample(7)
    with Image.open(path) as picture:
        assert picture.size == (3 * (SIZE + GAP) - GAP, 2 * (SIZE + GAP) - GAP)
        assert {tuple(map(int, color)) for _, color in picture.getcolors()} == {(128, 128, 128), (255, 255, 255)}


def test_sample_grid_depends_on_the_seed_only(tmp_path: Path) -> None:
    folder, state, images = make(tmp_path, decode=False)
    pictures = []
    for seed in (3, 3, 4):
        torch.rand(1)
        pictures.append(save_pictures(folder, state, images, count=2, seed=seed).read_bytes())
    assert pictures[0] == pictures[1] != pictures[2]
    assert not folder.reconstructions.exists()


def test_rows_of_the_reconstruction_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reals, big, small, quadrant, part; the decoders' images here are of one grey each."""
    folder, state, images = make(tmp_path, images=3)
    seen = []

    def made(self, pair, label, part):  # type: ignore[no-untyped-def]
        assert not self.training
        seen.append((pair, label, part))
        return None, Reconstructions(*(torch.full((3, 3, 32, 32), value) for value in (-1.0, 0.0, 1.0)))

    monkeypatch.setattr(type(state.networks.discriminator), "forward", made)
    save_pictures(folder, state, images, count=1, seed=0)
    ((big, small), label, part) = seen[0]
    reals = np.stack([images.array(i) for i in range(3)])
    assert np.abs(big.permute(0, 2, 3, 1).numpy() * 127.5 + 127.5 - reals).max() < 1e-3
    assert torch.equal(small, big[:, :, ::2, ::2])  # nearest, to half the side
    assert (label, part) == ("real", 0)
    with Image.open(folder.reconstruction(7)) as picture:
        assert picture.size == (3 * (32 + GAP) - GAP, 5 * (32 + GAP) - GAP)
        for column in range(3):
            assert np.array_equal(cell(picture, 0, column, 32), reals[column, ::2, ::2])
            for row, grey in ((1, 0), (2, 128), (4, 255)):
                assert (cell(picture, row, column, 32) == grey).all()
            assert np.array_equal(cell(picture, 3, column, 32), reals[column, :32, :32])


@pytest.mark.parametrize(("count", "columns"), [(2, 2), (30, 8)])
def test_at_most_eight_reals_are_shown_and_the_networks_stay_as_they_are(
    count: int, columns: int, tmp_path: Path
) -> None:
    folder, state, images = make(tmp_path, images=count)
    before = {name: value.clone() for name, value in state.networks.discriminator.state_dict().items()}
    save_pictures(folder, state, images, count=1, seed=0)
    with Image.open(folder.reconstruction(7)) as picture:
        assert picture.width == columns * (32 + GAP) - GAP
    torch.testing.assert_close(dict(state.networks.discriminator.state_dict()), before, rtol=0, atol=0)
    assert state.networks.discriminator.training
