"""``check``: what a folder of images holds, what is wrong with it, and what preparing it would do."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from .decode import decode, quiet_pillow
from .defaults import IM_SIZE
from .errors import DataError
from .sources import Entry, Listing, Problem, describe_ignored, display_name, open_source
from .threads import ordered_map

SMALL_FACTOR = 2.0  # an image enlarged by more than this looks soft
STRETCH_FACTOR = 1.25  # sides further apart than this look distorted when squashed


@dataclass(frozen=True)
class ImageInfo:
    """One usable image: pixels as displayed, Pillow's mode and format, and what is special about it."""

    name: str
    width: int
    height: int
    mode: str
    format: str
    bytes: int
    sha256: str
    transparent: bool
    animated: bool


@dataclass(frozen=True)
class DataReport:
    """What ``check`` found.

    Attributes:
        images: usable files, sorted by name.
        problems: files that would be left out, with the reason.
        notes: sentences about what is usable and yet worth knowing (duplicates, small images, stretched ones, ...).
        ignored: files that are no images by their ending, counted by it.
    """

    source: str
    im_size: int
    images: list[ImageInfo]
    problems: list[Problem]
    notes: list[str]
    ignored: dict[str, int]

    def to_dict(self) -> dict[str, object]:
        """The report as plain JSON types."""
        return asdict(self) | {"problems": [problem._asdict() for problem in self.problems]}


def check(source: Path, *, im_size: int = IM_SIZE, progress: Callable[[int, int], None] | None = None) -> DataReport:
    """Open and fully decode every image of a folder (recursive) or a .zip.

    Args:
        im_size: pixels a side that training would use; the notes on small images depend on it.
        progress: called with (files done, files in all).

    Raises:
        DataError: ``source`` itself cannot be read. A bad file in it is reported, never raised.
    """
    images: list[ImageInfo] = []
    with open_source(Path(source)) as listing, quiet_pillow():
        problems = list(listing.problems)
        for done, result in enumerate(ordered_map(lambda e: _inspect(e, im_size), listing.entries), start=1):
            if isinstance(result, Problem):
                problems.append(result)
            else:
                images.append(result)
            if progress:
                progress(done, len(listing.entries))
        notes = _notes(images, listing, im_size)
        return DataReport(str(source), im_size, images, sorted(problems), notes, dict(listing.ignored))


def read_entry(entry: Entry) -> bytes:
    """The bytes of a file.

    Raises:
        DataError: with the reason only.
    """
    try:
        return entry.read()
    except PermissionError:
        raise DataError("no permission to read it") from None
    except Exception as error:  # a damaged .zip member raises many types, an I/O error is an OSError
        raise DataError(f"cannot be read ({error})") from error


def _inspect(entry: Entry, im_size: int) -> ImageInfo | Problem:
    try:
        data = read_entry(entry)
        decoded = decode(data, target=im_size)
    except DataError as error:
        return Problem(entry.name, str(error))
    alpha = decoded.image.getchannel("A") if decoded.image.mode in ("LA", "RGBA") else None
    return ImageInfo(
        name=entry.name,
        width=decoded.width,
        height=decoded.height,
        mode=decoded.mode,
        format=decoded.format,
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        transparent=alpha is not None and bool(np.asarray(alpha).min() < 255),
        animated=decoded.frames > 1,
    )


def _notes(images: list[ImageInfo], listing: Listing, im_size: int) -> list[str]:
    notes = []
    if twins := _duplicates(images):
        extra = sum(len(names) - 1 for names in twins)
        pairs = _names([f"{first} = {second}" for first, second, *_ in twins])
        notes.append(f"{extra} exact duplicate(s), which training sees more often than the rest: {pairs}")
    if small := [i.name for i in images if min(i.width, i.height) * SMALL_FACTOR < im_size]:
        notes.append(f"{len(small)} small image(s) would be enlarged more than {SMALL_FACTOR:g} times: {_names(small)}")
    if wide := [i for i in images if _stretch(i) > STRETCH_FACTOR]:
        most = max(wide, key=_stretch)
        notes.append(
            f"{len(wide)} image(s) are not square: squash would stretch them by up to {_stretch(most):,.1f} times "
            f"({display_name(most.name)}); crop and pad keep proportions"
        )
    if clear := sum(i.transparent for i in images):
        notes.append(f"{clear} image(s) have transparent parts: laid on the background colour unless channels is 4")
    if moving := [i.name for i in images if i.animated]:
        notes.append(f"{len(moving)} file(s) hold more than one picture, of which the first is used: {_names(moving)}")
    if listing.ignored:
        notes.append(f"other files, ignored: {describe_ignored(listing.ignored)}")
    return notes


def _stretch(image: ImageInfo) -> float:
    return max(image.width, image.height) / min(image.width, image.height)


def _duplicates(images: list[ImageInfo]) -> list[list[str]]:
    counts = Counter(image.sha256 for image in images)
    twins: dict[str, list[str]] = defaultdict(list)
    for image in images:
        if counts[image.sha256] > 1:
            twins[image.sha256].append(image.name)
    return list(twins.values())


def _names(names: list[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(display_name(name) for name in names[:most]) + more
