"""Which files a folder or a .zip offers as images, without opening any."""

import os
import stat
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from .errors import DataError

# A file with one of these endings is taken for an image: it is used, or reported as a problem. Others are only counted.
# fmt: off
IMAGE_SUFFIXES = frozenset({
    ".apng", ".arw", ".avif", ".bmp", ".cr2", ".cr3", ".dib", ".dng", ".gif", ".heic", ".heif", ".ico", ".j2k", ".jfif",
    ".jp2", ".jpe", ".jpeg", ".jpg", ".jxl", ".nef", ".pbm", ".pcx", ".pgm", ".png", ".pnm", ".ppm", ".psd", ".qoi",
    ".sgi", ".svg", ".tga", ".tif", ".tiff", ".webp",
})
# fmt: on
# What file managers and archivers leave behind; nobody wants to hear of it.
JUNK_NAMES = frozenset({"__macosx", "thumbs.db", "desktop.ini"})
MAX_FILE_BYTES = 1 << 30  # a larger "image" is a video or a bomb


class Problem(NamedTuple):
    """A file that cannot be used, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Entry:
    """One file that should be an image."""

    name: str  # path below the source, with forward slashes
    size: int  # bytes
    stamp: str  # changes when the file does: its times, or its checksum in a .zip
    read: Callable[[], bytes] = field(compare=False)


@dataclass
class Listing:
    """What a source holds: image files sorted by name, files that cannot even be opened, and the rest by ending."""

    entries: list[Entry] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)

    def add(self, entry: Entry) -> None:
        """File ``entry`` where its name and size say it belongs."""
        suffix = PurePosixPath(entry.name).suffix.lower()
        if suffix not in IMAGE_SUFFIXES:
            self.ignored[suffix or "no ending"] += 1
        elif entry.size > MAX_FILE_BYTES:
            limit = MAX_FILE_BYTES / 2**30
            reason = f"{entry.size / 2**30:.1f} GiB: larger than the {limit:.0f} GiB allowed for one image"
            self.problems.append(Problem(entry.name, reason))
        else:
            self.entries.append(entry)


@contextmanager
def open_source(source: Path) -> Iterator[Listing]:
    """List the images of a folder (with everything below it) or a .zip; its entries can be read inside the ``with``.

    Raises:
        DataError: ``source`` is missing, unreadable, or neither of the two.
    """
    source = Path(source)
    if source.is_dir():
        yield _sorted(_list_folder(source))
    elif not source.exists():
        raise DataError(f"{source}: no such folder or .zip file")
    elif source.is_file() and zipfile.is_zipfile(source):
        try:
            archive = zipfile.ZipFile(source)
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(f"{source}: cannot be opened as a .zip ({error})") from error
        with archive:
            yield _sorted(_list_zip(archive))
    else:
        raise DataError(f"{source}: expected a folder of images or a .zip file, and it is neither")


def display_name(name: str) -> str:
    """``name`` on one printable line: control characters and undecodable bytes are shown as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in name)


def describe_ignored(ignored: Counter[str]) -> str:
    """``3 .txt, 1 .json``, the commonest first."""
    return ", ".join(f"{count} {display_name(suffix)}" for suffix, count in ignored.most_common())


def _sorted(listing: Listing) -> Listing:
    listing.entries.sort(key=lambda entry: entry.name)
    listing.problems.sort()
    return listing


def _is_junk(name: str) -> bool:
    return name.startswith(".") or name.lower() in JUNK_NAMES


def _list_folder(root: Path) -> Listing:
    listing = Listing()
    seen: set[tuple[int, int]] = set()  # folders already walked: links may form a loop

    def unreadable(error: OSError) -> None:
        name = Path(os.fspath(error.filename)).relative_to(root).as_posix()
        listing.problems.append(Problem(name, f"folder cannot be read: {error.strerror}"))

    for folder, subfolders, files in os.walk(root, followlinks=True, onerror=unreadable):
        info = os.stat(folder)
        if (info.st_dev, info.st_ino) in seen:
            subfolders.clear()
            continue
        seen.add((info.st_dev, info.st_ino))
        subfolders[:] = sorted(name for name in subfolders if not _is_junk(name))
        for name in files:
            if not _is_junk(name):
                _add_file(listing, root, Path(folder, name))
    return listing


def _add_file(listing: Listing, root: Path, path: Path) -> None:
    name = path.relative_to(root).as_posix()
    try:
        info = path.stat()
    except OSError as error:
        reason = "broken link" if path.is_symlink() else f"cannot be read: {error.strerror}"
        listing.problems.append(Problem(name, reason))
        return
    if not stat.S_ISREG(info.st_mode):  # opening a pipe would wait for ever
        listing.problems.append(Problem(name, "not a regular file"))
        return
    # The change time too: making a file readable alters only that.
    listing.add(Entry(name, info.st_size, f"{info.st_mtime_ns}/{info.st_ctime_ns}", path.read_bytes))


def _list_zip(archive: zipfile.ZipFile) -> Listing:
    listing = Listing()
    # Of two members with one name the last counts, as when unpacking.
    for name, info in {info.filename: info for info in archive.infolist()}.items():
        if info.is_dir() or any(_is_junk(part) for part in PurePosixPath(name).parts):
            continue
        listing.add(Entry(name, info.file_size, f"{info.CRC:08x}", lambda info=info: archive.read(info)))  # type: ignore[misc]
    return listing
