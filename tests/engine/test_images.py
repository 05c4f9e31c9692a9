"""Pictures: the arithmetic of the range, grids, and PNG files as Pillow reads them back."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastgan_engine.images import grid, numbered_images, save_grid, save_image, to_uint8


def test_to_uint8_inverts_the_scaling_of_training_images() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    scaled = pixels.float() / 127.5 - 1
    assert torch.equal(to_uint8(scaled), pixels.permute(0, 2, 3, 1))


def test_to_uint8_clamps_and_rounds() -> None:
    values = torch.tensor([-40.0, -1.001, -1.0, -0.998, 0.0, 0.999, 1.0, 7.0]).view(1, 1, 2, 4)
    assert to_uint8(values).flatten().tolist() == [0, 0, 0, 0, 128, 255, 255, 255]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_to_uint8_of_other_types_computes_in_fp32(dtype: torch.dtype) -> None:
    images = torch.linspace(-1, 1, 48).view(1, 3, 4, 4).to(dtype).requires_grad_()
    assert torch.equal(to_uint8(images), to_uint8(images.detach().float()))


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_a_saved_image_reads_back_equal(tmp_path: Path, channels: int, mode: str) -> None:
    image = torch.randint(0, 256, (5, 7, channels), dtype=torch.uint8)
    save_image(tmp_path / "new" / "x.png", image)
    with Image.open(tmp_path / "new" / "x.png") as read:
        assert (read.format, read.mode, read.size) == ("PNG", mode, (7, 5))
        assert np.array_equal(np.asarray(read).reshape(5, 7, channels), image.numpy())
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["x.png"]


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 2), (1, 5, 7, 3)])
def test_what_is_no_image_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"an image must be uint8 \[H, W, 1 \| 3 \| 4\]"):
        save_image(tmp_path / "x.png", torch.zeros(shape, dtype=torch.uint8))
    assert not list(tmp_path.iterdir())


def test_floats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"got torch\.float32"):
        save_image(tmp_path / "x.png", torch.zeros(4, 4, 3))


@pytest.mark.parametrize(
    ("count", "columns", "cells"),
    [(1, None, (1, 1)), (5, None, (2, 3)), (9, None, (3, 3)), (5, 5, (1, 5)), (3, 2, (2, 2))],
)
def test_grid(count: int, columns: int | None, cells: tuple[int, int]) -> None:
    images = torch.randint(0, 200, (count, 6, 4, 3), dtype=torch.uint8)
    canvas = grid(images, columns)
    rows, across = cells
    assert canvas.shape == (rows * 6 + (rows - 1) * 2, across * 4 + (across - 1) * 2, 3)
    for index, image in enumerate(images):
        row, column = divmod(index, across)
        assert torch.equal(canvas[row * 8 : row * 8 + 6, column * 6 : column * 6 + 4], image)
    assert (canvas == 255).sum() == canvas.numel() - images.numel()  # the rest is white


def test_save_grid(tmp_path: Path) -> None:
    images = torch.randint(0, 256, (4, 8, 8, 3), dtype=torch.uint8)
    save_grid(tmp_path / "x.png", images, columns=4)
    with Image.open(tmp_path / "x.png") as read:
        assert read.size == (4 * 8 + 3 * 2, 8)
        assert np.array_equal(np.asarray(read)[:, 30:], images[3].numpy())


def test_a_shorter_series_leaves_nothing_of_a_longer_one(tmp_path: Path) -> None:
    mine = [tmp_path / "000004.txt", tmp_path / "notes.png"]
    for value, count in ((10, 4), (20, 2)):
        with numbered_images(tmp_path) as write:
            for _ in range(count):
                write(torch.full((2, 2, 3), value, dtype=torch.uint8))
        for file in mine:
            file.touch()
    found = sorted(tmp_path.glob("*.png"))
    assert [file.name for file in found] == ["000000.png", "000001.png", "notes.png"]
    assert [int(np.asarray(Image.open(file)).max()) for file in found[:2]] == [20, 20]
    assert all(file.exists() for file in mine)


def test_a_series_that_breaks_off_removes_nothing(tmp_path: Path) -> None:
    with numbered_images(tmp_path) as write:
        for _ in range(3):
            write(torch.zeros(2, 2, 3, dtype=torch.uint8))
    with pytest.raises(KeyboardInterrupt), numbered_images(tmp_path):
        raise KeyboardInterrupt
    assert len(list(tmp_path.iterdir())) == 3
