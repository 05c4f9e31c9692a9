"""The commands as a user runs them: what they write, what they say, what they refuse."""

import json
import shutil
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from fastgan_engine.cli import app
from fastgan_engine.errors import UserError
from fastgan_engine.latent.latents import draw, load_latents
from fastgan_engine.latent.rendering import render
from fastgan_engine.networks import Generator
from fastgan_engine.sampling import sample


def run(*arguments: object) -> str:
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False).output


def picture(path: Path | str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


@pytest.fixture
def photos(run_folder: Path, generator: Generator) -> Path:
    """What the run was trained on: its own samples 0 to 4 of seed 1, the one of index 2 mirrored."""
    folder = Path("photos")
    folder.mkdir()
    for index, image in enumerate(torch.cat(list(sample(generator, 5, seed=1)))):
        Image.fromarray((image.flip(1) if index == 2 else image).numpy()).save(folder / f"{index}.png")
    return folder


class TestInterpolate:
    def test_an_mp4_named_after_the_run(self, run_folder: Path) -> None:
        output = run("interpolate", run_folder, "--keyframes", 3, "--frames", 4, "--fps", 24, "--loop")
        assert "12 frames of 64 x 64 through 3 latents of" in output
        assert "shells-interpolation.mp4 (0.5 s at 24 frames/s, " in output
        assert iio.imread("shells-interpolation.mp4", plugin="FFMPEG").shape == (12, 64, 64, 3)

    def test_a_grid_as_gif(self, run_folder: Path) -> None:
        output = run("interpolate", run_folder, "--keyframes", 2, "--frames", 3, "--grid", "2x3", "--out", "x.gif")
        assert "4 frames of 196 x 130 through 12 latents" in output
        assert "at 33.33 frames/s" in output  # what the format can say of 30
        with Image.open("x.gif") as image:
            assert (image.size, image.n_frames) == ((196, 130), 4)  # type: ignore[attr-defined]

    def test_named_latents_into_a_folder(self, run_folder: Path, generator: Generator) -> None:
        output = run("interpolate", run_folder, "--seeds", "3,0:4", "--frames", 2, "--out", "frames")
        assert "frames (000000.png to 000002.png)" in output
        (first,) = sample(generator, 1, seed=3)
        assert abs(picture("frames/000000.png") - first[0].int().numpy()).max() <= 1
        with pytest.raises(UserError, match="--out: frames exists"):
            run("interpolate", run_folder, "--seeds", "3,0:4", "--out", "frames")

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--out", "x.avi"], r"--out: expected a name ending in \.mp4 or \.gif, or a folder .* got x\.avi"),
            (["--grid", "0x2"], "--grid: got '0x2', expected rows x columns such as 2x3"),
            (["--grid", "2"], "--grid: got '2'"),
            (["--seeds", "1,2,3", "--grid", "1x2"], r"got 3 latent\(s\), expected a multiple of the grid's 2 cells"),
            (["--seeds", "1"], r"got 1 latent\(s\), expected 2 or more"),
            (["--latents", "1,x.safetensors"], r"cannot read the latents x\.safetensors: "),
            (["--device", "gpu"], r'engine\.device: got "gpu"'),
            (["--out", "file/x.gif", "--frames", "1"], r"cannot write file/x\.gif: "),
        ],
    )
    def test_errors(self, run_folder: Path, arguments: list[str], message: str) -> None:
        Path("file").touch()
        with pytest.raises(UserError, match=message):
            run("interpolate", run_folder, *arguments)
        assert not list(Path().glob("*.mp4"))


class TestMix:
    def test_a_table(self, run_folder: Path, generator: Generator) -> None:
        output = run("mix", run_folder, "--rows", "0:0,0:1", "--cols", "1:0,1:1,1:2")
        assert "2 contents x 3 styles of" in output
        cells = picture("shells-mix.png")
        assert cells.shape == (3 * 66 - 2, 4 * 66 - 2, 3)
        (contents,), (styles,) = sample(generator, 2, seed=0), sample(generator, 3, seed=1)
        assert abs(cells[66:130, :64] - contents[0].int().numpy()).max() <= 1
        assert abs(cells[:64, 198:262] - styles[2].int().numpy()).max() <= 1

    def test_errors(self, run_folder: Path) -> None:
        with pytest.raises(UserError, match=r"--out: the picture is written as \.png, got x\.jpg"):
            run("mix", run_folder, "--out", "x.jpg")
        with pytest.raises(UserError, match="a latent: got 'nine'"):
            run("mix", run_folder, "--cols", "nine")
        with pytest.raises(UserError, match="nope does not exist"):
            run("mix", "nope")


class TestNeighbors:
    def test_copies_are_named(self, run_folder: Path, photos: Path) -> None:
        output = run("neighbors", run_folder, "--seed", 1, "--count", 3, "--k", 2, "--metric", "pixels")
        rows = [line.split() for line in output.splitlines()]
        assert ["0", "0.000", "0.png"] in rows
        assert ["2", "0.000", "2.png", "(mirrored)"] in rows
        assert "nearest of 5 training images, by pixels (RMS at 32 x 32, 0 to 1):" in output
        assert "maybe copies: sample(s) 0, 1, 2" in output
        cells = picture("shells-neighbors.png")
        assert cells.shape == (3 * 148 + 4, 3 * 128 + 4, 3)
        for top in (0, 150, 300):  # side by side, the third one turned as it matches
            assert abs(cells[top : top + 128, :128] - cells[top : top + 128, 130:258]).max() <= 1

    def test_new_images_are_not(self, run_folder: Path, photos: Path) -> None:
        Image.fromarray(255 - picture("photos/0.png").astype(np.uint8)).save("photos/0.png")
        output = run("neighbors", run_folder, "--count", 2, "--metric", "pixels", "--data", "photos")
        assert "samples to their nearest training image:       median" in output
        assert "training images to their nearest other image:  median" in output
        assert "no sample is nearer to a training image than those are to each other" in output

    def test_errors(self, run_folder: Path) -> None:
        with pytest.raises(UserError, match=r"training images of .*shells, .*photos, are not there; .* --data FOLDER"):
            run("neighbors", run_folder, "--metric", "pixels")
        with pytest.raises(UserError, match="nope does not exist; give an image, a folder"):
            run("neighbors", run_folder, "--metric", "pixels", "--data", "nope")
        snapshot = shutil.copy(next(run_folder.rglob("*.safetensors")), "elsewhere.safetensors")
        with pytest.raises(UserError, match="does not tell its training images; give them with --data FOLDER"):
            run("neighbors", snapshot, "--metric", "pixels")


class TestInvert:
    def test_a_folder(self, run_folder: Path, photos: Path, generator: Generator) -> None:
        output = run("invert", run_folder, photos, "--metric", "pixels", "--steps", 3, "--restarts", 2)
        assert "pixels (RMS at 64 x 64, 0 to 1), before and after 3 steps:" in output
        figures = json.loads(Path("shells-photos-inversion.json").read_text())
        assert [row["image"] for row in figures["images"]] == [f"{index}.png" for index in range(5)]
        assert all(row["after"] < row["before"] for row in figures["images"])
        for which in ("before", "after"):
            assert figures[which] == pytest.approx(np.mean([row[which] for row in figures["images"]]))
            assert f"{figures[which]:.3f}" in next(line for line in output.splitlines() if "mean of 5" in line)
        assert (figures["steps"], figures["restarts"], figures["seed"]) == (3, 2, 0)
        assert picture("shells-photos-inversion.png").shape == (5 * 150 - 2, 3 * 130 - 2, 3)
        found = load_latents(Path("shells-photos-inversion.safetensors"), generator)
        assert len(found) == 5
        run("sample", run_folder, "--latents", "shells-photos-inversion.safetensors", "--files", "--out", "again")
        again = np.stack([picture(path) for path in sorted(Path("again").iterdir())])
        target = np.stack([picture(path) for path in sorted(photos.iterdir())])
        distances = np.sqrt((((again - target) / 255) ** 2).mean((1, 2, 3)))
        assert distances == pytest.approx([row["after"] for row in figures["images"]], abs=0.003)

    def test_one_image_of_another_size(self, run_folder: Path, photos: Path) -> None:
        Image.open(photos / "1.png").convert("L").resize((90, 50)).save("grey.jpg")
        output = run("invert", run_folder, "grey.jpg", "--metric", "pixels", "--steps", 1, "--restarts", 1)
        assert "grey.jpg" in output
        assert "mean of" not in output
        assert "shells-grey-inversion.png, shells-grey-inversion.safetensors, shells-grey-inversion.json" in output
        with pytest.raises(UserError, match=r"--out: shells-grey-inversion\.png exists; choose another path"):
            run("invert", run_folder, "grey.jpg", "--metric", "pixels")

    def test_the_start_is_the_seeds_sample(self, run_folder: Path, photos: Path, generator: Generator) -> None:
        run("invert", run_folder, photos / "0.png", "--metric", "pixels", "--steps", 1, "--restarts", 1, "--seed", 6)
        (start,) = render(generator, draw(generator, 6, [0]))
        shown = picture("shells-0-inversion.png")[:128:2, 130:258:2]
        assert abs(shown - start[0].int().numpy()).max() <= 1

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["nope.png"], r"nope\.png does not exist; give an image, a folder of images or a \.zip"),
            (["text.png"], r"text\.png: text, not an image"),
            (["photos", "--out", "x"], r"--out: the picture is written as \.png, got x"),
            (["photos", "--lr", "0"], r"lr: got 0\.0, expected more than 0"),
            (["empty"], "empty: no image files; expected"),
        ],
    )
    def test_errors(self, run_folder: Path, photos: Path, arguments: list[str], message: str) -> None:
        Path("text.png").write_text("an essay")
        Path("empty").mkdir()
        with pytest.raises(UserError, match=message):
            run("invert", run_folder, *arguments, "--metric", "pixels")


def test_lpips_without_weights(run_folder: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(url: str, **settings: object) -> None:
        raise OSError("no connection")

    monkeypatch.setenv("TORCH_HOME", "empty")
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    for command in (["neighbors", run_folder], ["invert", run_folder, photos]):
        with pytest.raises(UserError, match=r"(?s)--metric lpips needs the file .*--weights-dir.*--metric pixels"):
            run(*command)
