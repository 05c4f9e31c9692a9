"""Bytes of one file -> an upright 8-bit image, fully decoded; or a ``DataError`` that says what is wrong with them."""

import io
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from .errors import DataError

# Only formats that hold photographs and drawings: others that Pillow opens run programs (EPS) or are no images at all.
# fmt: off
FORMATS = (
    "AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM", "PSD", "QOI", "SGI", "TGA",
    "TIFF", "WEBP",
)
# fmt: on
# A JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, as long as this many source pixels remain for each target pixel.
REDUCING_GAP = 3.0

_MODES_8BIT = ("L", "LA", "RGB", "RGBA", "CMYK")
_HEADS = {  # what a file that Pillow does not know most often is
    b"<svg": "an SVG drawing: export it as PNG",
    b"<!doctype html": "a web page (HTML), not an image",
    b"<html": "a web page (HTML), not an image",
    b"%pdf": "a PDF, not an image",
    b"pk\x03\x04": "a .zip archive, not an image",
    b"version https://git-lfs": "a Git LFS pointer: run `git lfs pull`",
}


@dataclass(frozen=True)
class Decoded:
    """One image as its file describes it.

    Attributes:
        image: upright pixels, mode L, LA, RGB, RGBA or CMYK; a JPEG may be smaller than ``width`` x ``height``.
        width, height: pixels, as displayed (EXIF rotation applied).
        mode, format: Pillow's names of what the file holds.
        icc: colour profile, or None.
        frames: 1, or 2 for "more than one": only the first is decoded.
    """

    image: Image.Image
    width: int
    height: int
    mode: str
    format: str
    icc: bytes | None
    frames: int


def decode(data: bytes, *, target: int) -> Decoded:
    """Decode a file that is to become ``target`` x ``target`` pixels, to its last byte.

    What is truncated or has a wrong checksum is refused. JPEG has no checksums: libjpeg notices some damage to its
    pixel data and patches over the rest without a word, and so does this.

    Raises:
        DataError: with the reason only; the caller knows the file's name.
    """
    try:
        return _decode(data, target)
    except DataError:
        raise
    except Exception as error:  # Pillow's plugins raise some twenty types on damaged files
        raise DataError(_reason(data, error)) from error


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Silence Pillow's warnings about odd files; wrap a whole run, since filters are shared by all threads."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\..*")
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def _decode(data: bytes, target: int) -> Decoded:
    if not data:
        raise DataError("empty file (0 bytes)")
    image = _open(data)
    if image.format == "PNG":
        image.verify()  # checksums, which load() skips; it leaves the image unusable
        image = _open(data)
    format_, mode, (width, height) = image.format or "?", image.mode, image.size
    frames = 2 if _is_animated(image) else 1
    gap = int(target * REDUCING_GAP)
    image.draft(None, (gap, gap))  # None keeps the mode; only JPEG does anything here
    image.load()
    icc = image.info.get("icc_profile")
    reduced = image.size
    image = _upright(image)
    if image.size != reduced:
        width, height = height, width
    return Decoded(_to_8bit(image, format_), width, height, mode, format_, icc, frames)


def _open(data: bytes) -> Image.Image:
    Image.init()
    return Image.open(io.BytesIO(data), formats=[name for name in FORMATS if name in Image.OPEN])


def _is_animated(image: Image.Image) -> bool:
    try:
        return image.format != "MPO" and bool(getattr(image, "is_animated", False))
    except Exception:  # the first frame may be sound and the second one damaged
        return True


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF beside sound pixels
        return image


def _to_8bit(image: Image.Image, format_: str) -> Image.Image:
    """``image`` in one of ``_MODES_8BIT``; transparency of any kind (palette, colour key) becomes alpha."""
    if image.mode.startswith(("I", "F")):
        return _scale_to_8bit(image, format_)
    if image.mode in ("LA", "La"):
        return image.convert("LA")
    if image.has_transparency_data:
        return image.convert("RGBA")
    if image.mode in _MODES_8BIT:
        return image
    if image.mode == "LAB":
        return _convert_profile(image, ImageCms.createProfile("LAB"))
    return image.convert("L" if image.mode == "1" else "RGB")


def _scale_to_8bit(image: Image.Image, format_: str) -> Image.Image:
    """Grey of 16 or 32 bits or float: scaled by the range its values need, never clipped."""
    values = np.asarray(image, dtype=np.float64)
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(values).all() and low >= 0 and high <= 65535):
        raise DataError(f"grey values from {low:g} to {high:g}: expected 0 to 1, 0 to 255 or 0 to 65535")
    if image.mode.startswith("I;16") or (image.mode == "I" and format_ == "PNG") or high > 255:
        full = 65535.0
    else:
        full = 1.0 if image.mode == "F" and high <= 1 else 255.0
    return Image.fromarray(np.round(values * (255.0 / full)).astype(np.uint8))


def to_srgb(image: Image.Image, icc: bytes | None) -> Image.Image:
    """RGB or RGBA pixels in sRGB. A colour profile is applied if it is sound; one that is not is ignored."""
    alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
    opaque = {"LA": "L", "RGBA": "RGB"}.get(image.mode, image.mode)
    rgb = _apply_profile(image.convert(opaque), icc).convert("RGB")
    if alpha is not None:
        rgb.putalpha(alpha)
    return rgb


def _apply_profile(image: Image.Image, icc: bytes | None) -> Image.Image:
    if not icc:
        return image
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        if "srgb" in ImageCms.getProfileDescription(profile).lower():
            return image
        return _convert_profile(image, profile)
    except (OSError, ImageCms.PyCMSError):  # damaged, or made for another kind of image
        return image


def _convert_profile(image: Image.Image, profile: ImageCms.ImageCmsProfile | ImageCms.core.CmsProfile) -> Image.Image:
    converted = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert converted is not None, "profileToProfile returns None only in place"
    return converted


def _reason(data: bytes, error: Exception) -> str:
    """What a person can do something with, for whatever Pillow raised."""
    if isinstance(error, UnidentifiedImageError):
        head = data[:64].lstrip().lower()
        for start, meaning in _HEADS.items():
            if head.startswith(start):
                return meaning
        if head[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftyphevc"):
            return "a HEIC photo: convert it to JPEG or PNG"
        if _is_text(data[:512]):
            return "text, not an image"
        return "not an image, or its first bytes are damaged"
    if isinstance(error, Image.DecompressionBombError):
        return f"too many pixels: more than the {2 * (Image.MAX_IMAGE_PIXELS or 0):,} allowed for one image"
    if isinstance(error, (OSError, SyntaxError, EOFError, ValueError, zlib.error)):
        return f"truncated or damaged ({error})"
    return f"cannot be decoded ({type(error).__name__}: {error})"


def _is_text(data: bytes) -> bool:
    try:
        return all(c.isprintable() or c.isspace() for c in data.decode("utf-8", errors="strict"))
    except UnicodeDecodeError:
        return False
