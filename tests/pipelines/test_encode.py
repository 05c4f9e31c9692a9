"""What the pack keeps of an image: its own file where any decoder finds the training image in it, else PNG or JPEG."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFilter

from fastgan_engine.pipelines import DataError, PreparedSet, prepare
from fastgan_engine.pipelines.encode import is_common_jpeg

from .bad_files import encode, photo

SIZE = 32


def packed(tmp_path: Path, file: bytes, **settings: object) -> PreparedSet:
    """A set of one image."""
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(file)
    options = {"im_size": SIZE, "warn": pytest.fail} | settings
    return prepare(tmp_path / "images", tmp_path / "cache", **options)  # type: ignore[arg-type]


def pixels(file: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))


def jpeg(width: int = SIZE, height: int = SIZE, **options: object) -> bytes:
    return encode(photo(width, height), "JPEG", **{"quality": 90, **options})


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def wide_gamut() -> bytes:
    """A colour profile that changes colours: linear light instead of sRGB's curve."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    curve = bytes(profile).index(b"para\x00\x00\x00\x00")
    profile[curve + 12 : curve + 16] = struct.pack(">i", 1 << 16)  # its exponent, 2.4, as a 16.16 number
    return bytes(profile).replace("sRGB".encode("utf-16-be"), "test".encode("utf-16-be"))


@pytest.mark.parametrize("options", [
    {"subsampling": 0},
    {"subsampling": 1},
    {"subsampling": 2},
    {"subsampling": 2, "progressive": True},
    {"exif": exif(1)},
    {"icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()},
], ids=["4:4:4", "4:2:2", "4:2:0", "progressive", "upright", "sRGB profile"])  # fmt: skip
@pytest.mark.parametrize("encoding", ["lossless", "jpeg"])
def test_a_jpeg_of_the_right_size_stays_as_it_is(tmp_path, options, encoding):
    file = jpeg(**options)
    prepared = packed(tmp_path, file, encoding=encoding)
    assert bytes(prepared.encoded(0)) == file
    assert prepared.formats == {"JPEG": 1}
    assert np.array_equal(prepared.array(0), pixels(file))


@pytest.mark.parametrize("file", [
    jpeg(SIZE + 8, SIZE + 8),
    jpeg(SIZE, SIZE + 8),
    jpeg(exif=exif(6)),
    jpeg(icc_profile=wide_gamut()),
    jpeg(keep_rgb=True),
    encode(photo(SIZE, SIZE).convert("L"), "JPEG"),
    encode(photo(SIZE, SIZE).convert("CMYK"), "JPEG"),
    encode(photo(SIZE, SIZE), "MPO", save_all=True, append_images=[photo(SIZE, SIZE, seed=1)]),
    encode(photo(SIZE, SIZE), "PNG"),
    encode(photo(SIZE, SIZE), "WEBP"),
], ids=["larger", "not square", "rotated", "profile", "RGB inside", "grey", "CMYK", "MPO", "PNG", "WebP"])  # fmt: skip
def test_everything_else_becomes_png_without_loss(tmp_path, file):
    prepared = packed(tmp_path, file)
    assert prepared.formats == {"PNG": 1}
    image = Image.open(io.BytesIO(prepared.encoded(0)))
    assert (image.format, image.mode, image.size) == ("PNG", "RGB", (SIZE, SIZE))


def test_the_profile_of_these_tests_changes_colours(tmp_path):
    file = jpeg(icc_profile=wide_gamut())
    assert np.abs(packed(tmp_path, file).array(0).astype(int) - pixels(file)).max() > 20


@pytest.mark.parametrize("channels", [1, 4])
def test_a_jpeg_has_three_channels(tmp_path, channels):
    assert packed(tmp_path, jpeg(), channels=channels).formats == {"PNG": 1}


def test_jpeg_on_request_is_close_and_small(tmp_path):
    original = photo(64, 64).filter(ImageFilter.GaussianBlur(4))
    prepared = packed(tmp_path, encode(original, "PNG"), encoding="jpeg", im_size=64)
    assert prepared.formats == {"JPEG": 1}
    file = bytes(prepared.encoded(0))
    assert is_common_jpeg(file)
    assert np.array_equal(prepared.array(0), pixels(file))
    difference = prepared.array(0).astype(float) - np.asarray(original)
    assert 0 < np.sqrt(np.mean(difference**2)) < 1  # a level
    assert len(file) < len(encode(original, "PNG"))


def test_the_hash_is_of_the_pixels_not_of_their_file(tmp_path):
    file = jpeg()
    sets = []
    for name, data in (("kept", file), ("png", encode(Image.open(io.BytesIO(file)), "PNG"))):
        (tmp_path / name).mkdir()
        sets.append(packed(tmp_path / name, data))
    assert [dict(one.formats) for one in sets] == [{"JPEG": 1}, {"PNG": 1}]
    assert sets[0].hash == sets[1].hash
    (tmp_path / "lossy").mkdir()
    lossy = packed(tmp_path / "lossy", encode(Image.open(io.BytesIO(file)), "PNG"), encoding="jpeg")
    assert lossy.hash != sets[0].hash


@pytest.mark.parametrize("settings", [{"encoding": "webp"}, {"encoding": "jpeg", "channels": 4}])
def test_an_encoding_that_cannot_be(tmp_path, settings):
    with pytest.raises(DataError, match="encoding"):
        packed(tmp_path, jpeg(), **settings)


@pytest.mark.parametrize(
    "file", [b"", b"\xff\xd8", b"\xff\xd8\xff", jpeg()[:100], b"\xff\xd8" + b"\xff" * 50, bytes(99)]
)
def test_headers_that_end_early_are_not_common(file):
    assert not is_common_jpeg(file)


@pytest.mark.parametrize(("at", "value"), [(1, 0xC9), (1, 0xC3), (4, 12), (11, 0x41)],
                         ids=["arithmetic", "lossless", "12 bits", "4:1:1"])  # fmt: skip
def test_rare_kinds_are_not_common(at, value):
    file = bytearray(jpeg())
    assert is_common_jpeg(bytes(file))
    file[file.index(b"\xff\xc0\x00\x11\x08") + at] = value  # in the frame's header
    assert not is_common_jpeg(bytes(file))
