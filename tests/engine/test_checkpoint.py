"""Checkpoints are whole or absent, the last N are kept, and anything else is refused in the user's words."""

from pathlib import Path
from typing import Any

import pytest
import torch

from fastgan_engine import checkpoint as module
from fastgan_engine.build import build_state
from fastgan_engine.checkpoint import load_checkpoint, save_checkpoint
from fastgan_engine.errors import UserError
from fastgan_engine.run_folder import RunFolder
from fastgan_engine.snapshot import load_snapshot
from fastgan_engine.state import TrainingState

from .small import small_config


@pytest.fixture(scope="module")
def state() -> TrainingState:
    return build_state(small_config(model={"decode": False}), torch.device("cpu"), torch.float32)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def save(folder: RunFolder, state: TrainingState, step: int, keep: int = 2) -> Path:
    state.step = step
    return save_checkpoint(folder, state, keep=keep, config="[train]\n", data_hash="abc")


def steps(folder: RunFolder) -> tuple[list[int], list[int]]:
    return tuple(
        [int(path.stem.removeprefix("step-")) for path in sorted(kind.iterdir())]
        for kind in (folder.checkpoints, folder.snapshots)
    )  # type: ignore[return-value]


def test_content_comes_back(folder: RunFolder, state: TrainingState) -> None:
    path = save(folder, state, 20)
    content = load_checkpoint(path)
    assert (content["config"], content["data_hash"], content["state"]["step"]) == ("[train]\n", "abc", 20)
    wanted = state.state_dict()
    for name in ("generator", "discriminator", "ema"):
        torch.testing.assert_close(content["state"][name], wanted[name], rtol=0, atol=0)


def test_snapshot_beside_it_is_the_averaged_generator(folder: RunFolder, state: TrainingState) -> None:
    with torch.no_grad():
        state.networks.ema.to_big.weight_orig.add_(1)
    save(folder, state, 20)
    snapshot = load_snapshot(folder.snapshot(20))
    assert snapshot.step == 20
    torch.testing.assert_close(
        dict(snapshot.generator.state_dict()), dict(state.networks.ema.state_dict()), rtol=0, atol=0
    )


@pytest.mark.parametrize(("keep", "kept"), [(1, [50]), (2, [40, 50]), (9, [10, 20, 30, 40, 50])])
def test_last_ones_are_kept(keep: int, kept: list[int], folder: RunFolder, state: TrainingState) -> None:
    for step in (10, 20, 30, 40, 50):
        save(folder, state, step, keep)
    assert steps(folder) == (kept, kept)


def test_run_resumed_from_an_earlier_step_has_its_own_latest(folder: RunFolder, state: TrainingState) -> None:
    for step in (100, 200, 300):
        save(folder, state, step, keep=3)
    save(folder, state, 150, keep=3)
    assert folder.latest_checkpoint() == folder.checkpoint(150)
    assert steps(folder) == ([100, 150], [100, 150])


def test_saving_a_step_again_replaces_it(folder: RunFolder, state: TrainingState) -> None:
    save(folder, state, 20)
    save(folder, state, 20)
    assert steps(folder) == ([20], [20])


def test_failed_write_leaves_the_old_file(
    folder: RunFolder, state: TrainingState, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(folder, state, 20, keep=1)
    before = path.read_bytes()

    def full(content: Any, file: Path) -> None:
        Path(file).write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    for step in (20, 40):
        with pytest.raises(OSError, match="No space"):
            save(folder, state, step, keep=1)
    assert path.read_bytes() == before
    assert [file.name for file in folder.checkpoints.iterdir()] == ["step-0000020.pt"]


def test_failed_snapshot_removes_nothing(
    folder: RunFolder, state: TrainingState, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(folder, state, 20, keep=1)

    def full(*arguments: Any, **settings: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "save_snapshot", full)
    with pytest.raises(OSError, match="No space"):
        save(folder, state, 40, keep=1)
    assert steps(folder) == ([20, 40], [20])


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    {
        "cut": lambda: path.write_bytes(content[: len(content) // 2]),
        "empty": lambda: path.write_bytes(b""),
        "text": lambda: path.write_text("hello"),
        "garbled": lambda: path.write_bytes(b"\x80\x02" + bytes(range(200))),
        "folder": lambda: (path.unlink(), path.mkdir()),
        "gone": path.unlink,
        "code": lambda: torch.save(Path("/"), path),
    }[how]()


@pytest.mark.parametrize("how", ["cut", "empty", "text", "garbled", "folder", "gone", "code"])
def test_damaged_file_is_named_in_one_line(how: str, folder: RunFolder, state: TrainingState) -> None:
    path = save(folder, state, 20)
    damage(path, how)
    with pytest.raises(UserError) as raised:
        load_checkpoint(path)
    message = str(raised.value)
    assert f"checkpoint {path} cannot be read" in message
    assert "--resume FILE" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "content",
    [{"g": {}, "d": {}}, {"format": 2, "state": {}}, [1, 2], torch.zeros(3)],
    ids=["released", "newer", "list", "tensor"],
)
def test_other_files_are_told_apart(content: Any, tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save(content, path)
    with pytest.raises(UserError, match=r"is not a training checkpoint of format 1; .*fastgan-engine import"):
        load_checkpoint(path)


def test_python_objects_are_refused_without_advice_to_load_them(tmp_path: Path) -> None:
    path = tmp_path / "step-1.pt"
    torch.save({"format": 1, "state": Path("x")}, path)
    with pytest.raises(UserError, match=r"cannot be read \(it is not a file .* or it holds Python objects\)"):
        load_checkpoint(path)
