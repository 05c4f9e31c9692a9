"""Checking and preparing a source: bad files, the cache, zip archives."""

import io
import json
import os
import shutil
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastgan_engine.pipelines import DataError, check, default_cache_dir, open_prepared, prepare
from fastgan_engine.pipelines import sources as sources_module

from .bad_files import encode, photo, write_bad_files

SIZE = 16


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five good images, in two levels."""
    images = tmp_path / "images"
    (images / "below").mkdir(parents=True)
    for index in range(5):
        name = f"below/{index}.png" if index % 2 else f"{index}.png"
        (images / name).write_bytes(encode(photo(SIZE, SIZE, seed=index), "PNG"))
    return images


class Warnings(list[str]):
    """A ``warn`` that remembers."""

    def __call__(self, message: str) -> None:
        self.append(message)


def ready(source: Path, cache: Path, warn: Warnings | None = None, **settings):
    """``prepare`` at the tests' size; without a ``warn``, a warning is a failure."""
    warnings = Warnings() if warn is None else warn
    prepared = prepare(source, cache, **{"im_size": SIZE, **settings}, warn=warnings)
    assert warn is not None or warnings == []
    return prepared


def inode(prepared) -> tuple[int, int]:
    """What changes when a set is written anew."""
    info = (prepared.folder / "manifest.json").stat()
    return info.st_ino, info.st_mtime_ns


# Bad files


def test_check_reports_every_bad_file_by_name(tmp_path):
    listed = write_bad_files(tmp_path / "bad")
    assert len([file for file in listed if not file.usable]) >= 25
    report = check(tmp_path / "bad", im_size=64)
    problems = dict(report.problems)
    assert sorted(problems) == sorted(file.name for file in listed if not file.usable)
    assert sorted(image.name for image in report.images) == sorted(file.name for file in listed if file.usable)
    for file in listed:
        if not file.usable:
            assert file.reason in problems[file.name]
            assert "\n" not in problems[file.name]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_prepare_keeps_exactly_what_check_calls_usable(tmp_path, fit, channels):
    listed = write_bad_files(tmp_path / "bad")
    warn = Warnings()
    prepared = ready(tmp_path / "bad", tmp_path / "cache", warn, fit=fit, channels=channels)
    assert prepared.names == sorted(file.name for file in listed if file.usable)
    assert prepared.problems == check(tmp_path / "bad").problems
    for index in range(prepared.count):
        assert prepared.array(index).shape == (SIZE, SIZE, channels)
    assert len(warn) == 21  # twenty by name, and how many more
    assert "archive.jpg" in warn[0]
    assert f"{len(prepared.problems) - 20} more" in warn[-1]


def test_strict_lists_the_problems(folder, tmp_path):
    (folder / "text.png").write_text("no image")
    (folder / "new\nline.jpg").write_bytes(b"")
    for _ in range(2):  # the second time from the cache
        with pytest.raises(DataError, match="2 unusable") as caught:
            ready(folder, tmp_path / "cache", strict=True)
        assert "text.png: text, not an image" in str(caught.value)
        assert "new\\nline.jpg: empty file" in str(caught.value)


def test_problems_are_told_again_from_the_cache(folder, tmp_path):
    (folder / "text.png").write_text("no image")
    first, second = Warnings(), Warnings()
    assert inode(ready(folder, tmp_path / "cache", first)) == inode(ready(folder, tmp_path / "cache", second))
    assert first == second == ["left out text.png: text, not an image"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no image files"),
        ({"a.txt": b"x", "b.txt": b"x", ".hidden.png": b"x"}, "2 .txt"),
        ({"a.png": b""}, "a.png: empty file"),
    ],
)
def test_nothing_usable_is_an_error(tmp_path, files, message):
    source = tmp_path / "source"
    source.mkdir()
    for name, data in files.items():
        (source / name).write_bytes(data)
    with pytest.raises(DataError, match=message):
        ready(source, tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.*"))  # no half-written set
    assert check(source).images == []


def test_a_source_that_is_none(tmp_path):
    (tmp_path / "file.png").write_bytes(encode(photo(), "PNG"))
    (tmp_path / "broken.zip").write_bytes(b"PK\x03\x04 and nothing more")
    for name, message in (("nowhere", "no such"), ("file.png", "neither"), ("broken.zip", "neither")):
        for use in (check, lambda source: ready(source, tmp_path / "cache")):
            with pytest.raises(DataError, match=message):
                use(tmp_path / name)


def test_a_file_that_cannot_be_read_is_a_problem(folder, monkeypatch):
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied") if path.name == "0.png" else OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    report = check(folder)
    assert report.images == []
    assert dict(report.problems)["0.png"] == "no permission to read it"
    assert "Input/output error" in dict(report.problems)["2.png"]


def test_a_huge_file_is_not_even_read(folder, monkeypatch):
    monkeypatch.setattr(sources_module, "MAX_FILE_BYTES", 100)
    report = check(folder)
    assert report.images == []
    assert all("larger than" in problem.reason for problem in report.problems)


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_linked_folders_are_followed_once(folder, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "linked.png").write_bytes(encode(photo(seed=9), "PNG"))
    (folder / "link").symlink_to(tmp_path / "other", target_is_directory=True)
    (tmp_path / "other" / "back").symlink_to(folder, target_is_directory=True)
    report = check(folder)
    assert [image.name for image in report.images][-1] == "link/linked.png"
    assert len(report.images) == 6


# The report


def test_the_report_describes_the_images(folder):
    (folder / "photo.jpg").write_bytes(encode(photo(48, 32), "JPEG"))
    image = next(image for image in check(folder).images if image.name == "photo.jpg")
    assert (image.width, image.height, image.mode, image.format) == (48, 32, "RGB", "JPEG")


def test_notes(folder):
    shutil.copy(folder / "0.png", folder / "twin.png")
    (folder / "photo.jpg").write_bytes(encode(photo(60, 20), "JPEG"))
    (folder / "clear.png").write_bytes(encode(Image.new("RGBA", (SIZE, SIZE), (9, 9, 9, 9)), "PNG"))
    (folder / "opaque.png").write_bytes(encode(Image.new("RGBA", (SIZE, SIZE), (9, 9, 9, 255)), "PNG"))
    (folder / "README.txt").write_text("about the images")
    (folder / "Thumbs.db").write_bytes(b"junk")
    (folder / "__MACOSX").mkdir()
    (folder / "__MACOSX" / "._0.png").write_bytes(b"junk")
    report = check(folder, im_size=2 * SIZE + 1)
    assert report.problems == []
    assert report.ignored == {".txt": 1}
    duplicates, small, wide, clear, other = report.notes
    assert duplicates.startswith("1 exact duplicate")
    assert "0.png = twin.png" in duplicates
    assert small.startswith("8 small")
    assert wide.startswith("1 image(s) are not square")
    assert "3.0 times (photo.jpg)" in wide
    assert clear.startswith("1 image(s) have transparent")
    assert other.endswith("1 .txt")


def test_the_report_is_json(tmp_path):
    write_bad_files(tmp_path / "bad")
    report = check(tmp_path / "bad").to_dict()
    assert json.loads(json.dumps(report)) == report


def test_progress(folder, tmp_path):
    for use in (
        lambda progress: check(folder, progress=progress),
        lambda progress: prepare(folder, tmp_path, im_size=SIZE, warn=print, progress=progress),
    ):
        seen: list[tuple[int, int]] = []
        use(lambda done, total, seen=seen: seen.append((done, total)))
        assert seen == [(done, 5) for done in range(1, 6)]


# The prepared set


def test_a_prepared_set_holds_the_pixels_in_the_order_of_the_names(folder, tmp_path):
    prepared = ready(folder, tmp_path / "cache")
    assert prepared.names == ["0.png", "2.png", "4.png", "below/1.png", "below/3.png"]
    assert (prepared.count, prepared.im_size, prepared.channels) == (5, SIZE, 3)
    for index, seed in enumerate((0, 2, 4, 1, 3)):
        want = np.asarray(photo(SIZE, SIZE, seed=seed))
        assert np.array_equal(prepared.array(index), want)
        with Image.open(io.BytesIO(prepared.encoded(index))) as image:
            assert image.format == "PNG"
            assert np.array_equal(np.asarray(image), want)


def test_the_cache_is_used_again(folder, tmp_path):
    first = ready(folder, tmp_path / "cache")
    second = ready(folder, tmp_path / "cache")
    assert inode(first) == inode(second)
    assert first.hash == second.hash


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "new.png").write_bytes(encode(photo(seed=9), "PNG")),
        lambda folder: (folder / "0.png").unlink(),
        lambda folder: (folder / "0.png").write_bytes(encode(photo(SIZE, SIZE, seed=9), "PNG")),
        lambda folder: (folder / "0.png").rename(folder / "z.png"),
    ],
    ids=["added", "removed", "replaced", "renamed"],
)
def test_a_changed_source_is_prepared_again(folder, tmp_path, change):
    first = ready(folder, tmp_path / "cache")
    change(folder)
    second = ready(folder, tmp_path / "cache")
    assert first.hash != second.hash
    assert first.folder == second.folder
    assert len(list(first.folder.iterdir())) == 2  # the old pack is gone
    assert np.array_equal(first.array(0), np.asarray(photo(SIZE, SIZE)))  # and whoever had it open still reads it


def test_touching_a_file_changes_no_hash(folder, tmp_path):
    first = ready(folder, tmp_path / "cache")
    os.utime(folder / "0.png", (1, 1))
    assert ready(folder, tmp_path / "cache").hash == first.hash


def test_each_choice_of_settings_has_its_own_set(folder, tmp_path):
    choices = [
        {},
        {"im_size": 8},
        {"channels": 1},
        {"channels": 4},
        {"fit": "crop"},
        {"fit": "pad"},
        {"background": "black"},
    ]
    sets = [ready(folder, tmp_path / "cache", **choice) for choice in choices]
    assert len({prepared.folder for prepared in sets}) == len(choices)
    for choice, prepared in zip(choices, sets, strict=True):
        assert inode(ready(folder, tmp_path / "cache", **choice)) == inode(prepared)


def damage_pack(prepared):
    pack = next(prepared.folder.glob("*.pack"))
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.write_bytes(bytes(data))


def cut_pack(prepared):
    pack = next(prepared.folder.glob("*.pack"))
    copy = pack.read_bytes()[:-1]
    pack.unlink()
    pack.write_bytes(copy)


@pytest.mark.parametrize(
    "damage",
    [
        damage_pack,
        cut_pack,
        lambda prepared: next(prepared.folder.glob("*.pack")).unlink(),
        lambda prepared: (prepared.folder / "manifest.json").write_text('{"format": "fastgan-engine prepared set"}'),
    ],
    ids=["one bit", "cut", "no pack", "manifest"],
)
def test_a_damaged_set_is_refused_and_made_again(folder, tmp_path, damage):
    first = ready(folder, tmp_path / "cache")
    hash_, place = first.hash, first.folder
    damage(first)
    with pytest.raises(DataError, match="not a usable prepared set"):
        open_prepared(place)
    warn = Warnings()
    again = ready(folder, tmp_path / "cache", warn)
    assert len(warn) == 1
    assert "again" in warn[0]
    assert again.hash == hash_
    assert open_prepared(place).hash == hash_


def test_an_interrupted_preparation_leaves_no_set_and_keeps_the_old_one(folder, tmp_path):
    first = ready(folder, tmp_path / "cache")
    (folder / "new.png").write_bytes(encode(photo(seed=9), "PNG"))

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(folder, tmp_path / "cache", im_size=SIZE, warn=print, progress=interrupt)
    assert open_prepared(first.folder).hash == first.hash
    assert len(list(first.folder.iterdir())) == 2
    assert ready(folder, tmp_path / "cache").count == 6


def test_what_a_killed_process_left_is_tidied_up(folder, tmp_path):
    place = ready(folder, tmp_path / "cache").folder
    for name, age in ((".writing-dead", 7200), (".writing-alive", 0)):
        (place / name).write_bytes(b"half a pack")
        os.utime(place / name, (time.time() - age,) * 2)
    os.utime(folder / "0.png", (1, 1))
    ready(folder, tmp_path / "cache")
    assert [path.name for path in place.glob(".writing-*")] == [".writing-alive"]


def test_a_prepared_set_can_be_moved_and_used_as_a_source(folder, tmp_path):
    first = ready(folder, tmp_path / "cache")
    moved = tmp_path / "elsewhere"
    shutil.move(first.folder, moved)
    shutil.rmtree(folder)
    assert ready(moved, tmp_path / "unused").hash == first.hash
    assert not (tmp_path / "unused").exists()
    with pytest.raises(DataError, match="prepared for im_size 16"):
        ready(moved, tmp_path / "unused", im_size=32)


def test_the_cache_folder_comes_from_the_environment(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("FASTGAN_CACHE", str(tmp_path / "chosen"))
    assert default_cache_dir() == tmp_path / "chosen"
    assert ready(folder, None).folder.parent == tmp_path / "chosen"


def test_a_cache_that_cannot_be_written_is_named(folder, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(DataError, match="FASTGAN_CACHE"):
        ready(folder, tmp_path / "cache")


@pytest.mark.parametrize(
    "wrong",
    [{"im_size": 0}, {"channels": 2}, {"fit": "stretch"}, {"background": "nothing"}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_bad_settings(folder, tmp_path, wrong):
    with pytest.raises(DataError, match=next(iter(wrong))):
        ready(folder, tmp_path / "cache", **wrong)


# Zip archives


def test_a_zip_gives_the_same_set_as_its_folder(folder, tmp_path):
    archive = Path(shutil.make_archive(str(tmp_path / "images"), "zip", folder))
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("__MACOSX/._0.png", b"junk")
        file.writestr(".DS_Store", b"junk")
    zipped, plain = ready(archive, tmp_path / "cache"), ready(folder, tmp_path / "cache")
    assert zipped.hash == plain.hash
    assert zipped.names == plain.names
    assert inode(zipped) == inode(ready(archive, tmp_path / "cache"))


def test_bad_members_of_a_zip(tmp_path):
    good = encode(photo(SIZE, SIZE), "PNG")
    archive = tmp_path / "images.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for name in ("good.png", "damaged.png", "locked.png"):
            file.writestr(name, good)
        file.writestr("text.png", "text")
    data = bytearray(archive.read_bytes())
    data[data.index(b"damaged.png") + 60] ^= 0xFF  # stored bytes, under the archive's checksum
    entry = data.rindex(b"locked.png") - 46  # its row of the directory at the end
    data[entry + 8] |= 1  # "encrypted"
    archive.write_bytes(bytes(data))
    report = check(archive)
    assert [image.name for image in report.images] == ["good.png"]
    problems = dict(report.problems)
    assert "CRC" in problems["damaged.png"]
    assert "encrypted" in problems["locked.png"]
    assert "text" in problems["text.png"]
