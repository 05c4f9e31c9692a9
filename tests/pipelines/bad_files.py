"""A folder of files as users really have them: some unusable, some only odd.

``write_bad_files`` is for every test that wants to show that such a folder crashes nothing. It writes no good image.
"""

import io
import os
import struct
import sys
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image


class BadFile(NamedTuple):
    """One file, and whether it can be used nonetheless."""

    name: str
    usable: bool
    reason: str = ""  # a part of the reason that must be given; "" for usable files


def photo(width: int = 48, height: int = 32, seed: int = 0) -> Image.Image:
    """A smooth RGB image with some noise, so that its files are long enough to be cut."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    ramp = np.stack([255 * x / width, 255 * y / height, 255 * (x + y) / (width + height)], -1)
    return Image.fromarray(np.clip(ramp + rng.normal(0, 12, ramp.shape), 0, 255).astype(np.uint8))


def encode(image: Image.Image, format_: str, **options: object) -> bytes:
    """The file of ``image``."""
    buffer = io.BytesIO()
    image.save(buffer, format=format_, **options)
    return buffer.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """A PNG chunk with its length and checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def write_bad_files(folder: Path) -> list[BadFile]:
    """Fill ``folder`` with some fifty bad or odd files; return what each of them is."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = []
    for files, usable in ((_unusable(), False), (_odd(), True)):
        for name, (data, reason) in files.items():
            (folder / name).write_bytes(data)
            listed.append(BadFile(name, usable, reason))
    return listed + _not_files(folder) + _odd_names(folder)


def _unusable() -> dict[str, tuple[bytes, str]]:
    jpeg, png = encode(photo(), "JPEG", quality=95), encode(photo(), "PNG")
    webp, gif = encode(photo(), "WEBP", lossless=True), encode(photo(), "GIF")
    tiff, bmp = encode(photo(), "TIFF"), encode(photo(), "BMP")
    negative = Image.fromarray(np.full((8, 8), -3.0, np.float32))
    endless = Image.fromarray(np.full((8, 8), np.nan, np.float32))
    return {
        "empty.jpg": (b"", "empty"),
        "empty.png": (b"", "empty"),
        "text.png": (b"this is not an image\n" * 5, "text"),
        "page.jpg": (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "HTML"),
        "drawing.svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        "paper.png": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "PDF"),
        "archive.jpg": (b"PK\x03\x04" + bytes(60), ".zip"),
        "pointer.png": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "Git LFS"),
        "phone.heic": (b"\x00\x00\x00\x18ftypheic" + bytes(40), "HEIC"),
        "noise.jpg": (np.random.default_rng(1).bytes(4000), "not an image"),
        "zeros.png": (bytes(4000), "not an image"),
        "truncated.jpg": (jpeg[: len(jpeg) // 2], "truncated"),
        "header-only.jpg": (jpeg[:20], "damaged"),
        "truncated.png": (png[: len(png) // 2], "truncated"),
        "no-end.png": (png[:-12], "truncated or damaged"),
        "bad-crc.png": (_flip_byte(png, len(png) // 2), "damaged"),
        "corrupt-stream.png": (_corrupt_idat(png), "truncated or damaged"),
        "truncated.webp": (webp[: len(webp) // 2], "truncated"),
        "truncated.gif": (gif[: len(gif) // 3], "truncated"),
        "truncated.tif": (tiff[: len(tiff) // 2], "truncated"),
        "truncated.bmp": (bmp[: len(bmp) // 2], "truncated"),
        "bomb.png": (_bomb(50_000, 50_000), "too many pixels"),
        "no-size.png": (_bomb(0, 0), "damaged"),
        "negative.tif": (encode(negative, "TIFF"), "grey values"),
        "nan.tif": (encode(endless, "TIFF"), "grey values"),
        "corrupt-stream.jpg": (jpeg[:-400] + b"\xff\x01\xff\x02" + jpeg[-396:], "damaged"),
        "corrupt-tables.jpg": (_corrupt_tables(jpeg), "damaged"),
    }


def _odd() -> dict[str, tuple[bytes, str]]:
    clear = photo().convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    palette = clear.quantize(32)
    key = photo().convert("P", palette=Image.Palette.ADAPTIVE, colors=16)
    frames = [photo(seed=seed) for seed in range(3)]
    grey16 = Image.fromarray(np.arange(48 * 32, dtype=np.uint16).reshape(32, 48) * 40)
    unit = Image.fromarray(np.linspace(0, 1, 48 * 32, dtype=np.float32).reshape(32, 48))
    cmyk = photo().convert("CMYK")
    jpeg = encode(photo(), "JPEG", quality=95)
    exif = Image.Exif()
    exif[0x0112] = 6
    files = {
        "1x1.png": encode(photo(1, 1), "PNG"),
        "wide.png": encode(photo(10_000, 1), "PNG"),
        "tall.jpg": encode(photo(1, 10_000), "JPEG"),
        "grey.jpg": encode(photo().convert("L"), "JPEG"),
        "grey16.png": encode(grey16, "PNG"),
        "grey16.tif": encode(grey16, "TIFF"),
        "float.tif": encode(unit, "TIFF"),
        "bilevel.png": encode(photo().convert("1"), "PNG"),
        "cmyk.jpg": encode(cmyk, "JPEG"),
        "cmyk.tif": encode(cmyk, "TIFF"),
        "grey-alpha.png": encode(clear.convert("LA"), "PNG"),
        "alpha.png": encode(clear, "PNG"),
        "alpha.webp": encode(clear, "WEBP"),
        "alpha.bmp": _bmp_with_alpha(),
        "palette-alpha.png": encode(palette, "PNG"),
        "palette-key.png": encode(key, "PNG", transparency=3),
        "animated.gif": encode(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "animated.webp": encode(frames[0], "WEBP", save_all=True, append_images=frames[1:]),
        "animated.png": encode(frames[0], "PNG", save_all=True, append_images=frames[1:]),
        "progressive.jpg": encode(photo(), "JPEG", progressive=True),
        "rotated.jpg": encode(photo(), "JPEG", exif=exif.tobytes()),
        "bad-exif.jpg": encode(photo(), "JPEG", exif=b"Exif\x00\x00" + b"\xff" * 40),
        "bad-profile.jpg": encode(photo(), "JPEG", icc_profile=b"not a profile" * 20),
        "silently-damaged.jpg": jpeg[:-500] + bytes(200) + jpeg[-300:],  # libjpeg sees nothing wrong
        "really-a-jpeg.png": encode(photo(), "JPEG"),
        "SHOUTING.JPG": encode(photo(), "JPEG"),
    }
    return {name: (data, "") for name, data in files.items()}


def _not_files(folder: Path) -> list[BadFile]:
    """A folder named like an image is walked like any other; links and pipes lead nowhere."""
    (folder / "folder.png").mkdir(exist_ok=True)
    if sys.platform == "win32":
        return []
    (folder / "broken-link.jpg").symlink_to(folder / "nowhere.jpg")
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    os.mkfifo(folder / "pipe.png")
    listed = [BadFile("broken-link.jpg", False, "broken link"), BadFile("pipe.png", False, "not a regular file")]
    secret = folder / "secret.png"
    secret.write_bytes(encode(photo(), "PNG"))
    secret.chmod(0)
    root = os.geteuid() == 0  # whom no permission stops
    return [*listed, BadFile("secret.png", root, "" if root else "permission")]


def _odd_names(folder: Path) -> list[BadFile]:
    names = ["näme ☃.png", "[red]markup[bold].png", "-dash.png", "a b  c.png", "'quote\".png"]
    if sys.platform == "linux":
        names += ["new\nline.png", "bell\x07.png", os.fsdecode(b"latin-\xe9.png")]
    elif sys.platform == "win32":
        names.remove("'quote\".png")
    data = encode(photo(), "PNG")
    for name in names:
        (folder / name).write_bytes(data)
    return [BadFile(name, True) for name in names]


def _flip_byte(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :]


def _corrupt_idat(png: bytes) -> bytes:
    """Damage inside the compressed pixels, under checksums that match."""
    start = png.index(b"IDAT") + 4
    length = struct.unpack(">I", png[start - 8 : start - 4])[0]
    pixels = bytearray(png[start : start + length])
    pixels[length // 2 : length // 2 + 40] = b"\xff" * 40
    return png[: start - 8] + png_chunk(b"IDAT", bytes(pixels)) + png[start + length + 4 :]


def _corrupt_tables(jpeg: bytes) -> bytes:
    """A JPEG whose Huffman table claims an impossible length."""
    start = jpeg.index(b"\xff\xc4")
    return jpeg[: start + 2] + b"\x00\x03" + jpeg[start + 4 :]


def _bomb(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = png_chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + pixels + png_chunk(b"IEND", b"")


def _bmp_with_alpha() -> bytes:
    """A 32-bit BMP with an alpha mask (BITMAPV4 header), which Pillow reads and does not write."""
    width, height = 16, 16
    pixels = np.full((height, width, 4), (0, 0, 255, 128), np.uint8).tobytes()  # BGRA: red, half transparent
    masks = (0x00FF0000, 0x0000FF00, 0x000000FF, 0xFF000000)
    info = struct.pack("<IiiHHIIiiII4I", 108, width, height, 1, 32, 3, len(pixels), 2835, 2835, 0, 0, *masks)
    info = info.ljust(108, b"\x00")
    offset = 14 + len(info)
    return b"BM" + struct.pack("<IHHI", offset + len(pixels), 0, 0, offset) + info + pixels
