"""Pixels of every kind of file, against values worked out without the code under test."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from fastgan_engine.pipelines.decode import decode
from fastgan_engine.pipelines.errors import DataError
from fastgan_engine.pipelines.fit import fit_image, parse_colour

from .bad_files import encode, photo


def pixels(data: bytes, size: int, *, channels: int = 3, fit="squash", background="white") -> np.ndarray:
    decoded = decode(data, target=size)
    image = fit_image(decoded, im_size=size, channels=channels, fit=fit, background=parse_colour(background))
    return np.asarray(image)


def flat(mode: str, value: object, size: int = 8) -> bytes:
    return encode(Image.new(mode, (size, size), value), "PNG")


# Transparency


@pytest.mark.parametrize(
    ("background", "bg"), [("white", (255, 255, 255)), ("#204060", (32, 64, 96)), ((1, 2, 3), (1, 2, 3))]
)
@pytest.mark.parametrize("alpha", [0, 1, 77, 128, 254, 255])
def test_transparency_is_composited_on_the_background(background, bg, alpha):
    got = pixels(flat("RGBA", (255, 0, 0, alpha)), 8, background=background)
    want = np.array([255, 0, 0]) * alpha / 255 + np.array(bg) * (1 - alpha / 255)
    assert np.abs(got - want).max() <= 1


def test_grey_with_alpha_is_composited():
    got = pixels(flat("LA", (100, 51)), 8)  # 51 / 255 = 1/5
    assert np.abs(got.astype(float) - (100 / 5 + 255 * 4 / 5)).max() <= 1


def test_colour_key_is_transparent():
    image = Image.new("RGB", (4, 4), (9, 8, 7))
    image.putpixel((0, 0), (200, 100, 50))
    got = pixels(encode(image, "PNG", transparency=(9, 8, 7)), 4, background=(0, 0, 255))
    assert got[0, 0].tolist() == [200, 100, 50]
    assert got[3, 3].tolist() == [0, 0, 255]


def test_palette_with_alpha():
    image = Image.new("P", (4, 4), 1)
    image.putpalette([10, 20, 30, 200, 100, 50])
    got = pixels(encode(image, "PNG", transparency=bytes([255, 0])), 4, background="black")
    assert got.max() == 0
    got = pixels(encode(image, "PNG", transparency=bytes([0, 255])), 4, background="black")
    assert (got == [200, 100, 50]).all()


def test_four_channels_keep_alpha_and_clear_pixels_take_the_background():
    image = np.zeros((8, 8, 4), np.uint8)
    image[:4] = (200, 100, 50, 255)
    image[4:] = (1, 2, 3, 0)  # what hides under nothing is arbitrary
    got = pixels(encode(Image.fromarray(image), "PNG"), 8, channels=4)
    assert (got[:4] == (200, 100, 50, 255)).all()
    assert (got[4:] == (255, 255, 255, 0)).all()


def test_resizing_does_not_bleed_hidden_colours():
    image = np.zeros((64, 64, 4), np.uint8)
    image[:, :32] = (255, 0, 0, 255)
    image[:, 32:] = (0, 255, 0, 0)  # green that nobody sees
    got = pixels(encode(Image.fromarray(image), "PNG"), 10, background="black")
    assert got[..., 1].max() == 0


# Depth and colour


def test_grey_16_bit_is_scaled_not_clipped():
    values = np.array([[0, 257, 32768, 65535]] * 4, dtype=np.uint16)
    want = np.round(values / 257.0)
    for format_ in ("PNG", "TIFF"):
        got = pixels(encode(Image.fromarray(values), format_), 4, channels=1)
        assert np.array_equal(got, want), format_


@pytest.mark.parametrize("top", [1.0, 255.0, 65535.0])
def test_float_grey_is_scaled_by_the_range_it_uses(top):
    values = (np.linspace(0, 1, 16, dtype=np.float32) * top).reshape(4, 4)
    got = pixels(encode(Image.fromarray(values), "TIFF"), 4, channels=1)
    assert np.abs(got - values.astype(np.float64) * 255 / top).max() <= 0.5 + 1e-3


def test_float_grey_out_of_range_is_refused():
    for bad in (-1.0, 1e6, np.nan, np.inf):
        with pytest.raises(DataError, match="grey values"):
            decode(encode(Image.fromarray(np.full((4, 4), bad, np.float32)), "TIFF"), target=4)


def test_grey_becomes_three_equal_channels_and_back():
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    data = encode(Image.fromarray(values), "PNG")
    assert np.array_equal(pixels(data, 16), np.repeat(values[..., None], 3, -1))
    assert np.array_equal(pixels(data, 16, channels=1), values)


def test_colour_to_grey_is_rec_601_luma():
    got = pixels(flat("RGB", (200, 100, 50)), 8, channels=1)
    assert np.abs(got - (0.299 * 200 + 0.587 * 100 + 0.114 * 50)).max() <= 0.5 + 1e-6


def test_bilevel():
    assert pixels(flat("1", 1), 8).min() == 255


@pytest.mark.parametrize("adobe", [True, False], ids=["inverted", "plain"])
def test_cmyk(adobe):
    image = Image.new("CMYK", (8, 8), (0, 128, 255, 64))
    if adobe:  # Pillow writes JPEG as Photoshop does: inverted, with an Adobe marker
        data, tolerance = encode(image, "JPEG", quality=100), 3
        assert b"Adobe" in data
    else:
        data, tolerance = encode(image, "TIFF"), 1
    want = [(255 - ink) * (255 - 64) / 255 for ink in (0, 128, 255)]
    assert np.abs(pixels(data, 8) - np.array(want)).max() <= tolerance


def test_a_colour_profile_is_applied():
    """sRGB's profile with red and blue exchanged (and its name, by which sRGB is recognised) exchanges them."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for old, new in ((b"rXYZ", b"?XYZ"), (b"bXYZ", b"rXYZ"), (b"?XYZ", b"bXYZ")):
        profile = profile.replace(old, new, 1)
    profile = profile.replace("sRGB".encode("utf-16-be"), "else".encode("utf-16-be"))
    for image in (photo(16, 16), photo(16, 16).convert("RGBA")):
        got = pixels(encode(image, "PNG", icc_profile=profile), 16).astype(int)
        assert np.abs(got - np.asarray(photo(16, 16))[..., ::-1]).max() <= 1


def test_lab():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    lab = Image.new("LAB", (8, 8), (138, 128, 128))  # L* = 54.1: middle grey, sRGB 130
    got = pixels(encode(lab, "TIFF", icc_profile=profile), 8)
    lightness = 138 / 255 * 100
    luminance = ((lightness + 16) / 116) ** 3
    want = 255 * (1.055 * luminance ** (1 / 2.4) - 0.055)
    assert np.abs(got - want).max() <= 2


def test_srgb_and_damaged_profiles_change_nothing():
    image = photo(16, 16)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (srgb, b"nonsense" * 30):
        assert np.array_equal(pixels(encode(image, "PNG", icc_profile=profile), 16), np.asarray(image))


# Orientation and geometry

_UPRIGHT = {  # EXIF orientation -> what must be done to the stored rows to show them, by the EXIF standard
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a[::-1].swapaxes(0, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a.swapaxes(0, 1)[::-1],
}


@pytest.mark.parametrize("format_", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation, format_):
    stored = np.asarray(photo(16, 16))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if format_ == "WEBP" else {}
    got = pixels(encode(Image.fromarray(stored), format_, exif=exif, **options), 16)
    assert np.array_equal(got, _UPRIGHT[orientation](stored))


@pytest.mark.parametrize(("orientation", "size"), [(1, (48, 32)), (3, (48, 32)), (6, (32, 48)), (8, (32, 48))])
def test_the_size_is_told_as_displayed(orientation, size):
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode(encode(photo(48, 32), "JPEG", exif=exif), target=32)
    assert (decoded.width, decoded.height) == size


def halves(width: int, height: int) -> bytes:
    """Thirds in a row: red, green, blue."""
    image = np.zeros((height, width, 3), np.uint8)
    for third in range(3):
        image[:, third * width // 3 : (third + 1) * width // 3, third] = 255
    return encode(Image.fromarray(image), "PNG")


def test_squash_keeps_everything():
    got = pixels(halves(96, 32), 33)
    for third, x in enumerate((5, 16, 27)):
        assert (got[:, x] == np.eye(3)[third] * 255).all()


def test_crop_keeps_the_centre():
    got = pixels(halves(96, 32), 32, fit="crop")
    assert (got == (0, 255, 0)).all()


def test_pad_keeps_proportions():
    got = pixels(halves(96, 32), 48, fit="pad", background="#102030")
    assert (got[:16] == (16, 32, 48)).all()
    assert (got[32:] == (16, 32, 48)).all()
    assert (got[18:30, 24] == (0, 255, 0)).all()


def test_pad_is_transparent_with_four_channels():
    got = pixels(halves(96, 32), 48, fit="pad", channels=4)
    assert (got[:16, :, 3] == 0).all()
    assert (got[16:32, :, 3] == 255).all()


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
@pytest.mark.parametrize("size", [(1, 1), (10_000, 1), (1, 10_000), (7, 5)])
def test_extreme_shapes_come_out_square(fit, size):
    assert pixels(encode(photo(*size), "PNG"), 16, fit=fit).shape == (16, 16, 3)


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
def test_an_image_of_the_right_size_is_untouched(fit):
    image = photo(24, 24)
    assert np.array_equal(pixels(encode(image, "PNG"), 24, fit=fit), np.asarray(image))


def test_shrinking_averages():
    """A checkerboard of single pixels must become grey, not aliased."""
    board = (np.indices((128, 128)).sum(0) % 2 * 255).astype(np.uint8)
    got = pixels(encode(Image.fromarray(board), "PNG"), 16, channels=1)
    assert np.abs(got.astype(float) - 127.5).max() <= 2


def test_a_large_jpeg_decoded_small_looks_like_one_decoded_in_full():
    image = photo(960, 960).resize((1600, 1600), Image.Resampling.BICUBIC)
    data = encode(image, "JPEG", quality=95)
    with Image.open(io.BytesIO(data)) as full:
        want = np.asarray(full.resize((64, 64), Image.Resampling.BOX), dtype=float)  # 25 x 25 means
    assert np.abs(pixels(data, 64) - want).mean() < 2


@pytest.mark.parametrize("format_", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_of_an_animation(format_):
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    frames = [Image.new("RGB", (8, 8), colour) for colour in colours]
    options = {"lossless": True} if format_ == "WEBP" else {}
    data = encode(frames[0], format_, save_all=True, append_images=frames[1:], **options)
    assert (pixels(data, 8) == colours[0]).all()
    assert decode(data, target=8).frames == 2


@pytest.mark.parametrize("background", ["no such colour", "", (1, 2), (0, 0, 256), (0.5, 0, 0)])
def test_a_bad_background_is_refused(background):
    with pytest.raises(DataError, match="background"):
        parse_colour(background)
