"""``prepare``: verify, convert and pack every image of a source once; reuse the result until something changes."""

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from .decode import decode, quiet_pillow
from .defaults import BACKGROUND, CHANNEL_COUNTS, CHANNELS, ENCODING, ENCODINGS, FIT, FITS, Encoding, Fit
from .encode import encode
from .errors import DataError
from .fit import fit_image, parse_colour
from .prepared import VERSION, PackedImage, PreparedSet, Settings, is_prepared, open_prepared, write_prepared
from .report import read_entry
from .sources import Entry, Listing, Problem, describe_ignored, display_name, open_source
from .threads import ordered_map

MAX_WARNINGS = 20  # problems told one by one; the rest are counted


def default_cache_dir() -> Path:
    """Where prepared sets are kept: ``$FASTGAN_CACHE``, or else the platform's per-user cache folder."""
    if chosen := os.environ.get("FASTGAN_CACHE"):
        return Path(chosen)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "fastgan-engine"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "fastgan-engine"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fastgan-engine"


def prepare(
    source: Path,
    cache_dir: Path | None = None,
    *,
    im_size: int,
    channels: int = CHANNELS,
    fit: Fit = FIT,
    background: str | tuple[int, int, int] = BACKGROUND,
    encoding: Encoding = ENCODING,
    strict: bool = False,
    warn: Callable[[str], None],
    progress: Callable[[int, int], None] | None = None,
) -> PreparedSet:
    """A set of ``im_size`` x ``im_size`` images made from a folder (recursive) or a .zip, or found already made.

    Each source with each choice of settings has one folder below ``cache_dir``. It is used again while the files'
    names, sizes and times (in a .zip: checksums) are the same and the pack is whole, and is replaced otherwise.

    Args:
        source: a folder of images, a .zip of them, or the folder of a prepared set, which is used as it is.
        cache_dir: None for ``default_cache_dir()``.
        im_size: pixels on each side.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA).
        fit: what becomes of images that are not square: squash, crop or pad.
        background: colour under transparency and around padding.
        encoding: of images that are not JPEG files of the right size and kind already: "lossless" (PNG), or "jpeg"
            (quality 95, 4:4:4; RGB only), for large sets that are streamed.
        strict: raise if any file has a problem, naming them, instead of leaving it out with a warning.
        warn: called with one sentence a problem.
        progress: called with (files done, files in all) while preparing.

    Raises:
        DataError: a setting is wrong, the source cannot be read or has no usable image, the cache cannot be written,
            or ``strict`` and there are problems.
    """
    settings = _settings(im_size, channels, fit, background, encoding)
    if is_prepared(Path(source)):
        prepared = _open_given(Path(source), settings)
    else:
        source = Path(os.path.abspath(source))
        folder = (Path(cache_dir) if cache_dir else default_cache_dir()) / _folder_name(source, settings)
        with open_source(source) as listing:
            found = _reuse(folder, _fingerprint(listing), warn)
            prepared = found or _build(folder, source, listing, settings, progress)
    _tell(prepared.problems, source, strict, warn)
    return prepared


def _settings(
    im_size: int, channels: int, fit: Fit, background: str | tuple[int, int, int], encoding: Encoding
) -> Settings:
    if im_size < 1:
        raise DataError(f"im_size {im_size}: expected a positive number of pixels")
    if channels not in CHANNEL_COUNTS:
        raise DataError(f"channels {channels}: expected 1 (grey), 3 (RGB) or 4 (RGBA)")
    if fit not in FITS:
        raise DataError(f"fit {fit!r}: expected one of {', '.join(FITS)}")
    if encoding not in ENCODINGS:
        raise DataError(f"encoding {encoding!r}: expected one of {', '.join(ENCODINGS)}")
    if encoding == "jpeg" and channels != 3:
        raise DataError(f"encoding jpeg with {channels} channel(s): expected 3 channels, or encoding lossless")
    return Settings(im_size, channels, fit, parse_colour(background), encoding)


def _open_given(folder: Path, settings: Settings) -> PreparedSet:
    prepared = open_prepared(folder)
    if (prepared.im_size, prepared.channels) != (settings.im_size, settings.channels):
        raise DataError(
            f"{folder}: prepared for im_size {prepared.im_size} with {prepared.channels} channels, and im_size "
            f"{settings.im_size} with {settings.channels} is asked for: prepare the original images again"
        )
    return prepared


def _folder_name(source: Path, settings: Settings) -> str:
    key = json.dumps([VERSION, str(source), asdict(settings)])
    return f"{source.stem or 'root'}-{settings.im_size}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"


def _fingerprint(listing: Listing) -> str:
    files = [[entry.name, entry.size, entry.stamp] for entry in listing.entries]
    return hashlib.sha256(json.dumps([files, listing.problems]).encode()).hexdigest()


def _reuse(folder: Path, fingerprint: str, warn: Callable[[str], None]) -> PreparedSet | None:
    if not is_prepared(folder):
        return None
    try:
        prepared = open_prepared(folder)
    except DataError as error:
        warn(f"{error}: preparing it again")
        return None
    return prepared if prepared.listing == fingerprint else None


def _build(
    folder: Path, source: Path, listing: Listing, settings: Settings, progress: Callable[[int, int], None] | None
) -> PreparedSet:
    problems = list(listing.problems)

    def images() -> Iterator[PackedImage]:
        results = ordered_map(lambda entry: _pack(entry, settings), listing.entries)
        for done, result in enumerate(results, start=1):
            if isinstance(result, Problem):
                problems.append(result)
            else:
                yield result
            if progress:
                progress(done, len(listing.entries))
        if len(problems) == len(listing.entries) + len(listing.problems):
            raise DataError(_nothing_usable(source, listing, problems))

    try:
        with quiet_pillow():
            write_prepared(
                folder,
                images(),
                source=str(source),
                listing=_fingerprint(listing),
                settings=settings,
                problems=problems,
            )
    except OSError as error:
        raise DataError(
            f"{folder}: cannot write the prepared set ({error}); choose another place with $FASTGAN_CACHE or make room"
        ) from error
    return open_prepared(folder)


def _pack(entry: Entry, settings: Settings) -> PackedImage | Problem:
    try:
        data = read_entry(entry)
        decoded = decode(data, target=settings.im_size)
    except DataError as error:
        return Problem(entry.name, str(error))
    image = fit_image(
        decoded,
        im_size=settings.im_size,
        channels=settings.channels,
        fit=settings.fit,
        background=settings.background,
    )
    encoded = encode(image, data, settings.encoding)
    return PackedImage(entry.name, encoded.file, encoded.format, hashlib.sha256(encoded.pixels).hexdigest())


def _nothing_usable(source: Path, listing: Listing, problems: list[Problem]) -> str:
    if problems:
        return f"{source}: no usable image; all {len(problems)} files have problems:\n{_list(problems)}"
    found = f" (found: {describe_ignored(listing.ignored)})" if listing.ignored else ""
    return f"{source}: no image files{found}; expected .png, .jpg, .webp or the like, in it or in its subfolders"


def _tell(problems: list[Problem], source: Path, strict: bool, warn: Callable[[str], None]) -> None:
    if problems and strict:
        raise DataError(f"{source}: {len(problems)} unusable file(s), and strict is on:\n{_list(problems)}")
    for problem in problems[:MAX_WARNINGS]:
        warn(f"left out {_line(problem)}")
    if len(problems) > MAX_WARNINGS:
        warn(f"left out {len(problems) - MAX_WARNINGS} more; `fastgan-engine data check` lists them all")


def _list(problems: list[Problem]) -> str:
    lines = [f"  {_line(problem)}" for problem in problems[:MAX_WARNINGS]]
    if len(problems) > MAX_WARNINGS:
        lines.append(f"  and {len(problems) - MAX_WARNINGS} more; `fastgan-engine data check` lists them all")
    return "\n".join(lines)


def _line(problem: Problem) -> str:
    return f"{display_name(problem.name)}: {problem.reason}"
