"""The built-in set: reproducible, varied, centred, and never written over anything."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastgan_engine.pipelines import DataError, check, draw_demo
from fastgan_engine.pipelines.flower import draw_flower


def files(folder: Path) -> dict[str, bytes]:
    """All files of a folder, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_set_is_sound_and_as_asked(tmp_path):
    paths = draw_demo(tmp_path / "demo", count=6, size=48)
    report = check(tmp_path / "demo", im_size=48)
    assert [image.name for image in report.images] == [path.name for path in paths]
    assert {(image.width, image.height, image.mode) for image in report.images} == {(48, 48, "RGB")}
    assert report.problems == []


def test_seed_and_place_decide_the_pixels(tmp_path):
    few = draw_demo(tmp_path / "few", count=2, size=32, seed=1)
    more = draw_demo(tmp_path / "more", count=4, size=32, seed=1)
    other = draw_demo(tmp_path / "other", count=2, size=32, seed=2)
    assert [path.read_bytes() for path in few] == [path.read_bytes() for path in more[:2]]
    assert few[0].read_bytes() != other[0].read_bytes()
    assert len({path.read_bytes() for path in more}) == 4


def test_flowers_are_centred_varied_and_stand_out():
    images = np.stack([draw_flower(32, np.random.default_rng([0, index])) for index in range(64)]).astype(float)
    corner, middle = images[:, :4, :4].mean((1, 2)), images[:, 8:24, 8:24].mean((1, 2))
    contrast = np.abs(corner - middle).max(1)
    assert np.median(contrast) > 60
    assert contrast.min() > 20
    assert images.std(0).mean() > 30  # over the set
    spread = images.std(0).mean(-1)
    assert spread[12:20, 12:20].mean() > spread[:4].mean()  # the flowers vary more than the top of the background


def test_an_interrupted_set_is_completed_and_nothing_redrawn(tmp_path):
    out = tmp_path / "demo"
    paths = draw_demo(out, count=3, size=16)
    whole = files(out)
    paths[1].unlink()
    Image.new("RGB", (16, 16)).save(paths[2])  # someone's own retouching
    mine = paths[2].read_bytes()
    draw_demo(out, count=3, size=16)
    assert paths[1].read_bytes() == whole[paths[1].name]
    assert paths[2].read_bytes() == mine


@pytest.mark.parametrize("name", ["holiday.jpg", "flower-0000.png", "demo.json", ".hidden"])
def test_a_folder_with_other_files_is_left_alone(tmp_path, name):
    (tmp_path / name).write_bytes(b"precious")
    with pytest.raises(DataError, match="not empty"):
        draw_demo(tmp_path, count=2, size=16)
    assert files(tmp_path) == {name: b"precious"}


def test_another_demo_set_is_left_alone(tmp_path):
    draw_demo(tmp_path, count=2, size=16, seed=1)
    before = files(tmp_path)
    for change in ({"seed": 2}, {"size": 32}, {"count": 3}):
        with pytest.raises(DataError, match="not empty"):
            draw_demo(tmp_path, **{"count": 2, "size": 16, "seed": 1, **change})
    assert files(tmp_path) == before


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(DataError, match="cannot write"):
        draw_demo(tmp_path / "out", count=1, size=16)


@pytest.mark.parametrize("wrong", [{"count": 0}, {"size": 15}, {"seed": -1}], ids=lambda wrong: next(iter(wrong)))
def test_bad_numbers(tmp_path, wrong):
    with pytest.raises(DataError, match=next(iter(wrong))):
        draw_demo(tmp_path / "out", **wrong)
    assert not (tmp_path / "out").exists()
