"""The best value, and how long it has been the best; also as read from a log."""

import json
from pathlib import Path

import pytest

from fastgan_engine.evaluation.standing import Standing, log_record, read_history, standing


def test_lower_or_higher_is_better() -> None:
    history = [(10, 3.0), (20, 1.0), (30, 2.0), (40, 1.0)]
    assert standing("fid", history) == Standing(
        metric="fid", step=40, value=1.0, best_step=20, best_value=1.0, since_best=2
    )
    assert standing("recall", history).best_step == 10
    assert standing("recall", history).since_best == 3


def test_text() -> None:
    assert standing("fid", [(1_000, 30.104)]).text() == "30.10 at step 1,000; the best so far"
    assert standing("fid", [(1_000, 30.1), (2_000, 31.2)]).text() == "31.20 at step 2,000; best 30.10 at step 1,000"
    assert standing("kid", [(5, 0.0123)]).text().startswith("12.30 ")  # in thousandths, as in the table


def write(path: Path, *lines: object) -> None:
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))


def test_history_is_read_back(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    write(
        log,
        {"step": 10, "loss_g": 0.5},
        {"step": 10, **log_record({"fid": 3.0, "swd": 0.1}, 50)},
        "garbled",
        "[1]",
        {"step": 20, **log_record({"fid": 2.0, "swd": 0.2}, 50)},
        {"step": 25, **log_record({"fid": 1.0}, 60)},
        {"step": 30, **log_record({"fid": 1.0}, 50)},
    )
    assert read_history(log, "fid", count=50, until=20) == [(10, 3.0), (20, 2.0)]
    assert read_history(log, "swd", count=50, until=99) == [(10, 0.1), (20, 0.2)]
    assert read_history(log, "kid", count=50, until=99) == []


@pytest.mark.parametrize("exists", [True, False])
def test_new_run_has_no_history(exists: bool, tmp_path: Path) -> None:
    if exists:
        (tmp_path / "log.jsonl").touch()
    assert read_history(tmp_path / "log.jsonl", "fid", count=50, until=99) == []
