"""The packed set on disk: ``manifest.json`` and one file that holds all images as PNG or JPEG.

Layout of a set's folder::

    manifest.json         what is in the pack, where, checksums, settings, and the files that were left out
    images-<hash>.pack    the PNG and JPEG files, one after another

PNG with fast compression is exact: nothing is lost a second time; a photo takes about 110 kB at 256 and 1.2 MB at 1024.
JPEG is smaller and faster, and a GPU can decode it: see ``encode`` for when it is kept. The manifest is written last,
and renamed into place: a set is there whole or not at all.
"""

import hashlib
import io
import json
import mmap
import os
import time
import uuid
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .defaults import Encoding, Fit
from .errors import DataError
from .sources import Problem

MANIFEST = "manifest.json"
FORMAT = "fastgan-engine prepared set"
_TEMPORARY = ".writing-"
VERSION = 2  # raised whenever preparing the same files would give other pixels or another layout


@dataclass(frozen=True)
class Settings:
    """What decides the pixels of a set."""

    im_size: int
    channels: int
    fit: Fit
    background: tuple[int, int, int]
    encoding: Encoding


@dataclass(frozen=True)
class PackedImage:
    """One image on its way into the pack."""

    name: str
    file: bytes
    format: str  # "JPEG" or "PNG"
    pixel_hash: str  # sha256 of the pixels, hexadecimal


class PreparedSet:
    """A set of images of one size, ready to be streamed.

    Attributes:
        folder: where it lies.
        names: of the source files, in the order of the indices.
        formats: how many images are packed as "PNG" and as "JPEG".
        problems: source files that were left out.
        hash: identifies the pixels and their order, whatever the files' names, times and place.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder = folder
        self.settings = Settings(**manifest["settings"] | {"background": tuple(manifest["settings"]["background"])})
        self.hash: str = manifest["hash"]
        self.listing: str = manifest["listing"]
        self.names: list[str] = [image["name"] for image in manifest["images"]]
        self.formats = Counter(image["format"] for image in manifest["images"])
        self.problems = [Problem(**problem) for problem in manifest["problems"]]
        self._spans = [(image["offset"], image["bytes"]) for image in manifest["images"]]
        with open(folder / manifest["pack"], "rb") as pack:
            self._pack = memoryview(mmap.mmap(pack.fileno(), 0, access=mmap.ACCESS_READ))
        self._verify(manifest)

    def _verify(self, manifest: dict[str, Any]) -> None:
        """Compare every image with its checksum: about a second for 4 GB, and it warms the page cache for training."""
        if len(self._pack) != manifest["bytes"]:
            raise ValueError(f"the pack has {len(self._pack)} bytes, expected {manifest['bytes']}")
        for index, image in enumerate(manifest["images"]):
            if zlib.crc32(self.encoded(index)) != image["crc32"]:
                raise ValueError(f"the checksum of {image['name']!r} does not match")

    @property
    def count(self) -> int:
        """Images in the set."""
        return len(self.names)

    @property
    def packing(self) -> str:
        """What the pack holds: ``20 PNG``, ``13 JPEG and 7 PNG``."""
        return " and ".join(f"{count:,} {name}" for name, count in self.formats.most_common())

    @property
    def im_size(self) -> int:
        """Pixels on each side."""
        return self.settings.im_size

    @property
    def channels(self) -> int:
        """1 (grey), 3 (RGB) or 4 (RGBA)."""
        return self.settings.channels

    def encoded(self, index: int) -> memoryview:
        """The PNG or JPEG file of an image; a view into the pack, no copy."""
        offset, length = self._spans[index]
        return self._pack[offset : offset + length]

    def array(self, index: int) -> NDArray[np.uint8]:
        """The pixels of an image, uint8 [H, W, C], in fresh memory."""
        with Image.open(io.BytesIO(self.encoded(index))) as image:
            return np.array(image, dtype=np.uint8).reshape(self.im_size, self.im_size, self.channels)


def is_prepared(folder: Path) -> bool:
    """Whether ``folder`` is a prepared set, sound or not (and not a folder of images that has some manifest.json)."""
    try:
        return bool(json.loads((folder / MANIFEST).read_bytes())["format"] == FORMAT)
    except (OSError, ValueError, LookupError, TypeError):
        return False


def open_prepared(folder: Path) -> PreparedSet:
    """Open a prepared set, and verify every byte of it.

    Raises:
        DataError: missing, damaged, or written by another version.
    """
    folder = Path(folder)
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        if manifest["format"] != FORMAT or manifest["version"] != VERSION:
            raise ValueError(f"{manifest['format']} {manifest['version']}, expected {FORMAT} {VERSION}")
        return PreparedSet(folder, manifest)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(f"{folder}: not a usable prepared set ({error})") from error


def write_prepared(
    folder: Path,
    images: Iterable[PackedImage],
    *,
    source: str,
    listing: str,
    settings: Settings,
    problems: list[Problem],
) -> None:
    """Write a set, replacing the one that is there only once the new one is complete.

    ``images`` is consumed as it is written; ``problems`` may grow meanwhile.

    Raises:
        DataError: there are no images.
        OSError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _temporary(folder) as temporary:
        rows, size = _write_pack(temporary, images)
        if not rows:
            raise DataError(f"{source}: no usable image")
        pixels = "".join(str(row["sha256"]) for row in rows)
        identity = hashlib.sha256(f"{settings.im_size} {settings.channels} {pixels}".encode()).hexdigest()
        pack_path = folder / f"images-{identity[:16]}.pack"
        os.replace(temporary, pack_path)
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "source": source,
        "listing": listing,
        "settings": asdict(settings),
        "hash": identity,
        "pack": pack_path.name,
        "bytes": size,
        "problems": [problem._asdict() for problem in sorted(problems)],
        "images": rows,
    }
    with _temporary(folder) as temporary:
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(manifest, file, indent=1)
            _flush(file)
        os.replace(temporary, folder / MANIFEST)
    _tidy(folder, pack_path)


def _write_pack(path: Path, images: Iterable[PackedImage]) -> tuple[list[dict[str, object]], int]:
    """Write the images one after another; return the manifest's row of each, and the size of the file."""
    rows: list[dict[str, object]] = []
    with open(path, "wb") as pack:
        for image in images:
            rows.append(
                {
                    "name": image.name,
                    "offset": pack.tell(),
                    "bytes": len(image.file),
                    "format": image.format,
                    "crc32": zlib.crc32(image.file),
                    "sha256": image.pixel_hash,
                }
            )
            pack.write(image.file)
        size = pack.tell()
        _flush(pack)
    return rows, size


def _tidy(folder: Path, pack_path: Path) -> None:
    """Delete older packs, and what killed processes left half-written: nobody has added to it for an hour."""
    dead = [path for path in folder.glob(f"{_TEMPORARY}*") if time.time() - path.stat().st_mtime > 3600]
    for old in [*folder.glob("images-*.pack"), *dead]:
        if old != pack_path:
            with suppress(OSError):  # Windows keeps a file that another run has open
                old.unlink()


@contextmanager
def _temporary(folder: Path) -> Iterator[Path]:
    """A path to write to and rename from; gone afterwards, whatever happened."""
    path = folder / f"{_TEMPORARY}{uuid.uuid4().hex}"
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _flush(file: IO[Any]) -> None:
    file.flush()
    os.fsync(file.fileno())
