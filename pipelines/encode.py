"""A training image -> the file that the pack keeps of it: its own JPEG file, a lossless PNG or a new JPEG."""

import io
from typing import NamedTuple

from PIL import Image

from .defaults import Encoding

COMPRESS_LEVEL = 1  # of PNG: higher levels take two to three times as long for 10 % less
QUALITY = 95  # of new JPEG files, with colour at full resolution

_START, _SCAN, _ADOBE = 0xD8, 0xDA, 0xEE
_BASELINE, _PROGRESSIVE = 0xC0, 0xC2
# Sampling factors of Y, Cb and Cr: 4:4:4, 4:2:2 and 4:2:0.
_SAMPLINGS = (b"\x11\x11\x11", b"\x21\x11\x11", b"\x22\x11\x11")


class Encoded(NamedTuple):
    """A file, and exactly what it decodes to."""

    format: str  # "JPEG" or "PNG"
    file: bytes
    pixels: bytes


def encode(image: Image.Image, original: bytes, encoding: Encoding) -> Encoded:
    """The file of ``image`` (L, RGB or RGBA), which was made from the file ``original``.

    A JPEG file that holds these very pixels already stays as it is: smaller than PNG, and a GPU can decode it. Else
    ``lossless`` makes a PNG, and ``jpeg`` (RGB only) a JPEG, which differs from ``image`` a little.
    """
    pixels = image.tobytes()
    if is_common_jpeg(original) and _holds(original, image, pixels):
        return Encoded("JPEG", original, pixels)
    file = io.BytesIO()
    if encoding == "jpeg":
        image.save(file, format="JPEG", quality=QUALITY, subsampling="4:4:4")
        with Image.open(file) as decoded:
            return Encoded("JPEG", file.getvalue(), decoded.tobytes())
    image.save(file, format="PNG", compress_level=COMPRESS_LEVEL)
    return Encoded("PNG", file.getvalue(), pixels)


def is_common_jpeg(file: bytes) -> bool:
    """Whether its headers are those of a JPEG that all decoders, nvJPEG too, read alike.

    That is: baseline or progressive, 8 bits, YCbCr, at 4:4:4, 4:2:2 or 4:2:0. Says nothing about what follows them.
    Source: ITU-T T.81, annex B; for the marker in which transform 0 stands for RGB, Adobe's technical note 5116.
    """
    if file[:2] != bytes((0xFF, _START)):
        return False
    common, at = False, 2
    while at + 4 <= len(file) and file[at] == 0xFF and file[at + 1] != _SCAN:
        marker, end = file[at + 1], at + 2 + int.from_bytes(file[at + 2 : at + 4], "big")
        segment = file[at + 4 : end]
        if marker in (_BASELINE, _PROGRESSIVE):
            bits, components = segment[:1], segment[6:]
            common = bits == b"\x08" and components[1::3] in _SAMPLINGS and components[::3] != b"RGB"
        elif marker == _ADOBE and segment[:5] == b"Adobe" and segment[11:12] == b"\x00":
            return False
        at = end
    return common


def _holds(file: bytes, image: Image.Image, pixels: bytes) -> bool:
    """Whether a JPEG decodes to ``image`` with nothing more to do: no rotation, no colour profile, no resizing."""
    with Image.open(io.BytesIO(file)) as opened:
        same_kind = (opened.format, opened.mode, opened.size) == ("JPEG", image.mode, image.size)
        return same_kind and opened.tobytes() == pixels
