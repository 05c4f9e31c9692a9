"""log.jsonl and TensorBoard: each step is told once, whatever was interrupted."""

import json
import time
from pathlib import Path

import pytest

from fastgan_engine.run_folder import RunFolder
from fastgan_engine.run_log import RunLog

from .reports import report


def write(folder: RunFolder, steps: list[int], *, start: int = 0, tensorboard: bool = False, g: float = 1.0) -> None:
    with RunLog(folder, tensorboard=tensorboard, start_step=start) as log:
        for step in steps:
            log.tick(report(step=step, losses={"d_real": 0.5, "g": g * step}))


def records(folder: RunFolder) -> list[dict]:
    return [json.loads(line) for line in folder.log.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "deep" / "run")


def test_one_record_a_tick_with_the_time_of_day(folder: RunFolder) -> None:
    before = time.time()
    write(folder, [20, 40])
    first, second = records(folder)
    assert (first["step"], second["step"]) == (20, 40)
    assert first["loss_g"] == 20
    assert before - 1e-3 <= first["time"] <= second["time"] <= time.time() + 1e-3


def test_record_is_in_the_file_while_training_goes_on(folder: RunFolder) -> None:
    with RunLog(folder, tensorboard=False, start_step=0) as log:
        log.tick(report(step=20))
        assert [r["step"] for r in records(folder)] == [20]


def test_resumed_run_drops_the_records_past_its_step(folder: RunFolder) -> None:
    write(folder, [20, 40, 60, 80])
    write(folder, [60], start=40, g=-1)
    assert [(r["step"], r["loss_g"]) for r in records(folder)] == [(20, 20), (40, 40), (60, -60)]


def test_run_that_starts_over_drops_all(folder: RunFolder) -> None:
    write(folder, [20, 40])
    write(folder, [20], g=-1)
    assert [(r["step"], r["loss_g"]) for r in records(folder)] == [(20, -20)]


@pytest.mark.parametrize(
    "tail",
    [b'{"time": 1.0, "step": 4', b"{", b"\0" * 40, b'{"time": "\xff\xfe', b"12", b"null", b'{"step": null}\n', b"\n\n"],
    ids=["cut", "brace", "zeros", "not UTF-8", "number", "null", "no step", "blank"],
)
def test_torn_last_line_is_dropped(tail: bytes, folder: RunFolder) -> None:
    write(folder, [20])
    with folder.log.open("ab") as file:
        file.write(tail)
    write(folder, [60], start=40)
    assert [r["step"] for r in records(folder)] == [20, 60]


def test_last_line_that_lacks_only_its_end_is_kept(folder: RunFolder) -> None:
    write(folder, [20, 40])
    folder.log.write_bytes(folder.log.read_bytes().removesuffix(b"\n"))
    write(folder, [60], start=40)
    assert [r["step"] for r in records(folder)] == [20, 40, 60]


def test_failure_while_dropping_leaves_the_log(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, [20, 40, 60])
    before = folder.log.read_bytes()

    def full(self: Path, *arguments: object, **settings: object) -> int:
        with self.open("w") as file:
            file.write("{")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        RunLog(folder, tensorboard=False, start_step=20)
    assert folder.log.read_bytes() == before


def test_without_tensorboard_none_is_written(folder: RunFolder) -> None:
    write(folder, [20])
    assert not folder.tensorboard.exists()


def test_tensorboard_reads_the_scalars_back_and_a_resumed_run_overwrites(folder: RunFolder) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write(folder, [20, 40, 60], tensorboard=True)
    write(folder, [60, 80], start=40, tensorboard=True, g=-1)
    events = EventAccumulator(str(folder.tensorboard))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss/g")] == [(20, 20), (40, 40), (60, -60), (80, -80)]
    assert [e.value for e in events.Scalars("ms_step")] == pytest.approx([64.8] * 4)
    tags = set(events.Tags()["scalars"])
    assert {"images_per_second", "ms_data", "ms_d", "ms_g", "memory_used_gib", "loss/d_real"} <= tags
    assert not tags & {"step", "steps", "scale"}  # the axis itself, and what this run does not have


def test_what_is_found_between_ticks_is_a_line_and_scalars_of_its_own(folder: RunFolder) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with RunLog(folder, tensorboard=True, start_step=0) as log:
        log.record(30, {"eval_fid": 31.5, "collapse": True})
    (found,) = records(folder)
    assert found.pop("time") > 0
    assert found == {"step": 30, "eval_fid": 31.5, "collapse": True}
    events = EventAccumulator(str(folder.tensorboard))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("eval/fid")] == [(30, 31.5)]
    assert [(e.step, e.value) for e in events.Scalars("collapse")] == [(30, 1)]
