"""The stages' sizes against the published example, and images of every kind."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastgan_engine.config.single import Single
from fastgan_engine.errors import UserError
from fastgan_engine.single.pyramid import build_pyramid, fit_size, load_image, stage_sizes
from tests.engine.single.small import CPU, picture, small_single


def test_the_published_example() -> None:
    assert [height for height, _ in stage_sizes((152, 250), Single())] == [26, 31, 40, 57, 106, 152]
    assert stage_sizes((152, 250), Single())[-1] == (152, 250)


def test_harmonize_shrinks_by_a_constant_factor_from_120() -> None:
    sizes = stage_sizes((240, 250), Single(mode="harmonize"))
    assert sizes[-1] == (240, 250)
    assert [height for height, _ in sizes] == pytest.approx([120, 240 * 0.5**0.5, 240], abs=1)
    assert len(sizes) == 3


@pytest.mark.parametrize(("mode", "coarsest"), [("generate", 25), ("retarget", 25), ("animate", 20), ("edit", 25)])
def test_the_coarsest_stage(mode: str, coarsest: int) -> None:
    sizes = stage_sizes((167, 250), Single(mode=mode))
    assert min(sizes[0]) in (coarsest, coarsest + 1)
    assert len(sizes) == (3 if mode == "edit" else 6)
    assert all(small[0] < large[0] for small, large in itertools.pairwise(sizes))


def test_the_longest_side_is_shrunk_to_the_largest_allowed() -> None:
    assert fit_size((433, 650), 250) == (167, 250)  # 166.5, rounded up
    assert fit_size((650, 433), 250) == (250, 167)
    assert fit_size((120, 200), 250) == (120, 200)


@pytest.mark.parametrize("size", [(25, 250), (10, 40)])
def test_an_image_no_larger_than_the_coarsest_stage_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(UserError, match=rf"{size[1]} x {size[0]} .* more than the 25 pixels"):
        stage_sizes(size, Single())


def test_the_pyramid_holds_the_image_at_each_size() -> None:
    image, single = picture(), small_single()
    sizes = stage_sizes((image.height, image.width), single)
    reals = build_pyramid(image, sizes, CPU)
    assert [tuple(real.shape[2:]) for real in reals] == sizes
    expected = np.asarray(image, dtype=np.float64) / 127.5 - 1
    assert np.abs(reals[-1][0].permute(1, 2, 0).numpy() - expected).max() < 1e-6
    for real in reals:  # antialiased: a small one is the mean of the large one
        assert real.mean().item() == pytest.approx(expected.mean(), abs=0.03)


def _save(tmp_path: Path, image: Image.Image, suffix: str = ".png", **options: object) -> Path:
    path = tmp_path / f"image{suffix}"
    image.save(path, **options)
    return path


class TestAnyImage:
    def test_transparent(self, tmp_path: Path) -> None:
        image = Image.new("RGBA", (30, 20), (255, 0, 0, 0))
        image.paste((0, 0, 255, 255), (0, 0, 15, 20))
        loaded = np.asarray(load_image(_save(tmp_path, image), largest=250, background="#00ff00"))
        assert loaded[5, 5].tolist() == [0, 0, 255]
        assert loaded[5, 25].tolist() == [0, 255, 0]

    def test_grey_of_16_bits(self, tmp_path: Path) -> None:
        values = np.full((20, 30), 0x8000, dtype=np.uint16)
        loaded = np.asarray(load_image(_save(tmp_path, Image.fromarray(values)), largest=250))
        assert loaded.shape == (20, 30, 3)
        assert set(loaded.ravel()) <= {127, 128}

    def test_cmyk(self, tmp_path: Path) -> None:
        loaded = load_image(_save(tmp_path, Image.new("CMYK", (30, 20), (0, 0, 0, 0)), ".jpg"), largest=250)
        assert np.asarray(loaded).min() > 250

    def test_rotated_by_exif_and_too_large(self, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned by a quarter
        path = _save(tmp_path, Image.new("RGB", (400, 100), "blue"), ".jpg", exif=exif)
        assert load_image(path, largest=200).size == (50, 200)

    def test_what_is_no_image_is_named(self, tmp_path: Path) -> None:
        path = tmp_path / "notes.png"
        path.write_text("hello")
        with pytest.raises(UserError, match=r"notes\.png: text, not an image"):
            load_image(path, largest=250)
        with pytest.raises(UserError, match=r"cannot read the image .*missing\.png: No such file"):
            load_image(tmp_path / "missing.png", largest=250)
