"""Atomic writes, and the names and order of a run's files."""

import os
import stat
from pathlib import Path

import pytest

from fastgan_engine.atomic import atomic_write
from fastgan_engine.run_folder import RunFolder


def test_the_file_appears_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b.bin"
    with atomic_write(target) as temporary:
        assert temporary.suffix == ".bin"
        temporary.write_bytes(b"new")
        assert not target.exists()
    assert target.read_bytes() == b"new"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "x"
    target.write_bytes(b"old")

    def write() -> None:
        with atomic_write(target) as temporary:
            temporary.write_bytes(b"half of the n")
            raise error

    with pytest.raises(error):
        write()
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_contents_reach_the_disk_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, events = tmp_path / "x", []
    sync, replace = os.fsync, Path.replace

    def watched_sync(handle: int) -> None:
        events.append("sync folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "sync file")
        sync(handle)

    def watched_replace(self: Path, other: Path) -> Path:
        events.append("rename")
        return replace(self, other)

    monkeypatch.setattr(os, "fsync", watched_sync)
    monkeypatch.setattr(Path, "replace", watched_replace)
    with atomic_write(target) as temporary:
        temporary.write_bytes(b"x")
    assert events == ["sync file", "rename", "sync folder"]


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_permissions_are_the_usual_ones(tmp_path: Path) -> None:
    (tmp_path / "ordinary").touch()
    with atomic_write(tmp_path / "x"):
        pass
    assert (tmp_path / "x").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


class TestRunFolder:
    def test_names(self) -> None:
        folder = RunFolder(Path("run"))
        assert folder.checkpoint(1000) == Path("run/checkpoints/step-0001000.pt")
        assert folder.snapshot(1000) == Path("run/snapshots/step-0001000.safetensors")
        assert folder.sample(0) == Path("run/samples/step-0000000.png")
        assert folder.reconstruction(12_345_678) == Path("run/reconstructions/step-12345678.png")
        assert (folder.config, folder.log) == (Path("run/config.toml"), Path("run/log.jsonl"))

    def test_files_come_in_the_order_of_their_steps(self, tmp_path: Path) -> None:
        folder = RunFolder(tmp_path)
        folder.snapshots.mkdir()
        names = ["step-9.safetensors", "step-0000010.safetensors", "step-12345678.safetensors"]
        for name in (*names, ".step-0000099-ab.safetensors", "step-best.safetensors", "step-0000011.txt"):
            (folder.snapshots / name).touch()
        assert [file.name for file in folder.all_snapshots()] == names
        assert folder.latest_snapshot() == folder.snapshot(12_345_678)

    def test_nothing_yet(self, tmp_path: Path) -> None:
        folder = RunFolder(tmp_path / "missing")
        assert folder.all_checkpoints() == []
        assert folder.latest_checkpoint() is None
        assert folder.latest_snapshot() is None
        assert not folder.path.exists()
