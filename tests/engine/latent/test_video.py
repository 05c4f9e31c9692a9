"""Videos, read back by the libraries that others read them with."""

import importlib
from pathlib import Path
from types import ModuleType

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from fastgan_engine.errors import UserError
from fastgan_engine.latent.video import as_rgb, check_target, open_video

FRAMES = 7


def moving(height: int, width: int, channels: int = 3) -> Tensor:
    """Smooth colours that change from frame to frame: what an encoder and halved colour resolution keep."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    planes = [y, x, (x + y) / 2, torch.ones_like(x)][:channels]
    still = torch.stack(planes, 2)
    return torch.stack([(still * 200 + 5 * frame).to(torch.uint8) for frame in range(FRAMES)])


def write(path: Path, frames: Tensor, fps: float = 30) -> Path:
    with open_video(path, fps) as put:
        for frame in frames:
            put(frame)
    return path


@pytest.mark.parametrize(("height", "width"), [(64, 64), (130, 196)], ids=["image", "grid"])
def test_mp4(tmp_path: Path, height: int, width: int) -> None:
    frames = moving(height, width)
    path = write(tmp_path / "x.mp4", frames, fps=25)
    read = iio.imread(path, plugin="FFMPEG")
    assert read.shape == (FRAMES, height, width, 3)
    assert abs(read.astype(float) - frames.numpy()).mean() < 2
    about = iio.immeta(path, plugin="FFMPEG")
    assert (about["codec"], about["fps"]) == ("h264", 25)
    assert about["pix_fmt"].startswith("yuv420p(tv, bt709")


def test_mp4_colours(tmp_path: Path) -> None:
    colour = torch.tensor([200, 60, 120], dtype=torch.uint8)  # another matrix would change its brightness by 15
    read = iio.imread(write(tmp_path / "x.mp4", colour.expand(2, 64, 64, 3)), plugin="FFMPEG")
    assert abs(read.astype(int) - colour.numpy()).max() <= 3


def test_gif(tmp_path: Path) -> None:
    frames = moving(66, 50)
    with Image.open(write(tmp_path / "x.gif", frames, fps=20)) as image:
        assert (image.n_frames, image.size) == (FRAMES, (50, 66))  # type: ignore[attr-defined]
        assert image.info["loop"] == 0  # for ever
        for index, frame in enumerate(frames):
            image.seek(index)
            assert image.info["duration"] == 50
            assert abs(np.asarray(image.convert("RGB")).astype(int) - frame.numpy()).max() < 24  # 256 colours


@pytest.mark.parametrize(("fps", "milliseconds"), [(30, 30), (60, 20), (120, 20), (1, 1000)])
def test_a_gif_counts_in_hundredths_of_a_second(tmp_path: Path, fps: float, milliseconds: int) -> None:
    with Image.open(write(tmp_path / "x.gif", moving(8, 8), fps=fps)) as image:
        image.seek(1)
        assert image.info["duration"] == milliseconds


def test_folder(tmp_path: Path) -> None:
    frames = moving(8, 8, channels=4)
    write(tmp_path / "new", frames)
    files = sorted((tmp_path / "new").iterdir())
    assert [file.name for file in files] == [f"{index:06d}.png" for index in range(FRAMES)]
    for file, frame in zip(files, frames, strict=True):
        with Image.open(file) as image:
            assert np.array_equal(np.asarray(image), frame.numpy())


@pytest.mark.parametrize("name", ["x.mp4", "x.gif"])
def test_whole_or_not_at_all(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("mine")

    def interrupted() -> None:
        with open_video(path) as put:
            put(moving(64, 64)[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert path.read_text() == "mine"


def test_another_ending(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--out: expected a name ending in \.mp4 or \.gif, or a folder .* got x\.webm"):
        check_target(Path("x.webm"))
    (tmp_path / "v1.0").mkdir()
    check_target(tmp_path / "v1.0")  # a folder that is there may be called anything


@pytest.mark.parametrize("missing", ["imageio", "imageio_ffmpeg"])
def test_without_the_library(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def without(name: str, package: str | None = None) -> ModuleType:
        if name.partition(".")[0] == missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(UserError, match=rf"needs the package {missing}.*pip install 'fastgan-engine\[video\]'"):
        check_target(Path("x.mp4"))
    check_target(Path("x.gif"))  # Pillow is always there


def test_grey_and_transparent_frames() -> None:
    grey = torch.tensor([[[0], [128]]], dtype=torch.uint8)
    assert as_rgb(grey).tolist() == [[[0, 0, 0], [128, 128, 128]]]
    clear = torch.tensor([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 100, 200, 51]]], dtype=torch.uint8)
    assert as_rgb(clear).tolist() == [[[10, 20, 30], [255, 255, 255], [204, 224, 244]]]
