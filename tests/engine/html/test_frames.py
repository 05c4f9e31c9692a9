"""Pictures within a budget."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastgan_engine.html.frames import MAX_FRAMES, make_frames

from .runs import write_picture


def pictures(folder: Path, count: int, side: int) -> list[Path]:
    files = [folder / f"step-{index * 100:07d}.png" for index in range(count)]
    for index, file in enumerate(files):
        write_picture(file, side, seed=index)
    return files


def decoded(uri: str) -> Image.Image:
    kind, _, text = uri.partition(",")
    assert kind == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(text, validate=True)))


def test_few_small_pictures_stay_as_they_are(tmp_path: Path) -> None:
    files = pictures(tmp_path, 4, 48)
    Image.new("RGB", (48, 32), (200, 30, 60)).save(files[1])
    frames = make_frames(files, budget=2**20)
    assert [frame.step for frame in frames] == [0, 100, 200, 300]
    assert [frame.key for frame in frames] == [True, True, False, True]
    picture = decoded(frames[1].uri)
    assert picture.size == (frames[1].width, frames[1].height) == (48, 32)
    assert np.abs(np.asarray(picture).astype(int) - (200, 30, 60)).max() <= 6


@pytest.mark.parametrize("count", [MAX_FRAMES, MAX_FRAMES + 1, 150])
def test_many_are_thinned_evenly(count: int, tmp_path: Path) -> None:
    frames = make_frames(pictures(tmp_path, count, 4), budget=2**20)
    assert MAX_FRAMES / 2 <= len(frames) <= MAX_FRAMES
    steps = [frame.step for frame in frames]
    assert (steps[0], steps[-1]) == (0, (count - 1) * 100)
    assert len(set(np.diff(steps)[:-1])) == 1
    assert [frame.step for frame in frames if frame.key] == [0, steps[(len(steps) - 1) // 2], steps[-1]]


@pytest.mark.parametrize("budget", [400_000, 60_000])
def test_the_budget_holds_for_noise_too(budget: int, tmp_path: Path) -> None:
    frames = make_frames(pictures(tmp_path, 20, 200), budget=budget)
    assert sum(len(frame.uri) for frame in frames) <= budget
    assert len(frames) >= 5
    assert frames[-1].step == 1900
    assert all(frame.width < 200 for frame in frames)


def test_a_picture_cut_short_is_left_out_and_a_changed_one_read_anew(tmp_path: Path) -> None:
    files = pictures(tmp_path, 3, 16)
    files[1].write_bytes(files[1].read_bytes()[:100])
    before = make_frames(files, budget=2**20)
    assert [frame.step for frame in before] == [0, 200]
    write_picture(files[2], 16, seed=99)
    assert make_frames(files, budget=2**20)[-1].uri != before[-1].uri
    assert make_frames(files[:1], budget=2**20)[0].key
    assert make_frames([], budget=2**20) == []
