"""What the tabs do is what the library does."""

import shutil
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from PIL import Image

from fastgan_engine.api import load_run
from fastgan_engine.errors import UserError
from fastgan_engine.images import grid
from fastgan_engine.latent.images import OneImage
from fastgan_engine.latent.inversion import invert
from fastgan_engine.latent.latents import Latents, draw, load_latents
from fastgan_engine.latent.metrics import build_metric
from fastgan_engine.latent.mixing import mixing_table
from fastgan_engine.latent.rendering import render
from fastgan_engine.networks import Generator
from fastgan_engine.sampling import sample
from fastgan_engine.ui import Studio
from tests.engine.weights import assert_same_state, copied


@pytest.fixture
def studio(run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Studio:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    (tmp_path / "files").mkdir()
    return Studio(load_run(run_folder), tmp_path / "files")


def pixels(picture: Path | Image.Image) -> np.ndarray:
    if isinstance(picture, Image.Image):
        return np.asarray(picture)
    with Image.open(picture) as image:
        return np.asarray(image)


def test_samples_are_those_of_the_library(studio: Studio, generator: Generator) -> None:
    (expected,) = sample(generator, 3, seed=5, truncation=0.7)
    shown = studio.samples(3, 5, 0.7)
    assert [name for _, name in shown] == ["5:0", "5:1", "5:2"]
    assert np.array_equal(np.stack([pixels(picture) for picture, _ in shown]), expected)
    assert np.array_equal(pixels(studio.samples_file(3, 5, 0.7)), grid(expected))


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (4, "RGBA")])
def test_grey_and_transparent_samples(channels: int, mode: str, studio: Studio) -> None:
    torch.manual_seed(0)
    studio.generator = Generator(64, nz=4, ngf=4, nc=channels)
    ((picture, _),) = studio.samples(1, 0, 1)
    assert picture.mode == mode
    assert np.array_equal(pixels(picture), next(sample(studio.generator, 1))[0].squeeze(2))


def test_mixtures_are_those_of_the_library(studio: Studio, generator: Generator) -> None:
    content, style = draw(generator, 0, range(2)).scaled(0.8), draw(generator, 3, [0]).scaled(0.8)
    expected = grid(mixing_table(generator, content, style), columns=2)
    assert np.array_equal(pixels(studio.mix("0:0, 0:1", "3", 0.8)), expected)


def test_videos_go_through_the_samples(studio: Studio, generator: Generator) -> None:
    steps: list[tuple[int, int]] = []
    mp4 = iio.imread(studio.interpolate("2:0, 2:1", 5, 10, False, 0.9, "mp4", lambda *done: steps.append(done)))
    assert mp4.shape == (6, 64, 64, 3)
    assert steps == [(done, 6) for done in range(1, 7)]
    with Image.open(studio.interpolate("2:0, 2:1", 5, 10, True, 0.9, "gif")) as gif:
        assert gif.n_frames == 10
        first = coarse(np.asarray(gif.convert("RGB")))
    ends = draw(generator, 2, [0, 1])
    still = Latents(ends.z, ends.pick([0, 0]).noise).scaled(0.9)  # the noise of the first one throughout
    start, end = map(coarse, torch.cat(list(render(generator, still))).numpy())
    apart = np.abs(start - end).mean()
    for frame, wanted in ((first, start), (coarse(mp4[0]), start), (coarse(mp4[-1]), end)):
        assert np.abs(frame - wanted).mean() < 0.3 * apart


def coarse(image: np.ndarray) -> np.ndarray:
    """Means of 8 x 8 pixels, which what a video's format loses hardly changes."""
    return image.reshape(8, 8, 8, 8, 3).mean((1, 3))


def test_an_inversion_comes_near_and_can_be_mixed(studio: Studio, photo: Path) -> None:
    before = copied(studio.generator.state_dict())
    steps: list[tuple[int, int]] = []
    found = studio.invert(photo, "pixels", 30, 2, lambda *done: steps.append(done))
    assert steps[-1] == (60, 60)
    target = pixels(photo).astype(int)
    assert np.array_equal(pixels(found.target), target)
    for picture, distance in ((found.start, found.before), (found.result, found.after)):
        rms = np.sqrt((((pixels(picture) - target) / 255.0) ** 2).mean())
        assert distance == pytest.approx(rms, rel=0.02)
    assert found.after < found.before
    same = invert(
        studio.generator, OneImage(photo, pixels(photo)), build_metric("pixels", size=64), steps=30, restarts=2
    )
    assert np.array_equal(pixels(found.result), same.result[0])
    latents = load_latents(found.latents, studio.generator)
    (image,) = torch.cat(list(render(studio.generator, latents)))
    assert np.abs(pixels(found.result).astype(int) - image.numpy()).max() <= 1
    assert found.latents.name == "my-photo-1.safetensors"
    table = pixels(studio.mix(found.latents.name, "0", 1))
    assert np.abs(table[66:, :64].astype(int) - image.numpy()).max() <= 1
    assert pixels(studio.interpolate(f"0, {found.latents.name}", 1, 10, False, 1, "gif")).shape == (64, 64)
    assert all(parameter.requires_grad for parameter in studio.generator.parameters())
    assert_same_state(studio.generator.state_dict(), before)


def test_lpips_is_offered_where_its_weights_are(studio: Studio, tmp_path: Path) -> None:
    assert studio.metrics() == ["pixels"]
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "squeezenet1_1-b8a52dc0.pth").touch()
    there = Studio(studio.run, studio.folder, weights_dir=tmp_path / "weights")
    assert there.metrics() == ["lpips-squeeze", "pixels"]


def test_what_cannot_be_done_is_said(studio: Studio, photo: Path, tmp_path: Path) -> None:
    damaged = shutil.copy(photo, tmp_path / "damaged.png")
    Path(damaged).write_bytes(photo.read_bytes()[:300])
    with pytest.raises(UserError, match=r"^damaged\.png cannot be used: "):
        studio.invert(Path(damaged), "pixels", 1, 1)
    with pytest.raises(UserError, match="got 'seven', expected a SEED"):
        studio.mix("1, seven", "2", 1)
    with pytest.raises(UserError, match=r"13 rows x 12 columns are too many .* at most 144"):
        studio.mix(",".join("1" * 13), ",".join("2" * 12), 1)
    with pytest.raises(UserError, match=r"got 1 latent\(s\), expected 2 or more"):
        studio.interpolate("1", 3, 10, False, 1, "gif")
    assert list(studio.folder.iterdir()) == []
