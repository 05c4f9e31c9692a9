"""What is read from a run's folder, whole or damaged."""

import json
from pathlib import Path

import pytest

from fastgan_engine.errors import UserError
from fastgan_engine.html.history import read_histories

from .runs import write_run


def test_every_number_becomes_a_series_and_gaps_stay_gaps(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", records=0)
    lines = [
        {"time": 5.0, "step": 10, "steps": 40, "loss_g": 1.5, "scale": None, "on": True, "word": "x"},
        {"step": 20, "steps": 40, "loss_g": float("nan"), "evaluation": {"fid": 80, "kid": {"mean": 0.1}}},
        {"step": 30, "steps": 40, "loss_g": -2},
        {"step": 20, "eval_fid": 75, "eval_count": 1000},  # a later record of a step wins
        {"step": 30, "evaluation": {"fid": 70.5}},
    ]
    folder.log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (history,) = read_histories([folder.path])
    series = {key: (line.steps.tolist(), line.values.tolist()) for key, line in history.series.items()}
    assert series == {
        "loss_g": ([10, 30], [1.5, -2.0]),
        "on": ([10], [1.0]),
        "fid": ([20, 30], [75.0, 70.5]),
        "kid.mean": ([20], [0.1]),
    }
    assert (history.step, history.steps) == (30, 40)


def test_damaged_files_are_read_as_far_as_they_go(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", records=3)
    with folder.log.open("ab") as file:
        file.write(b'{"step": 40, "loss_g"\n\xff\xfe\n[1, 2]\n{"step": "x"}\n{"loss_g": 1}\n')
    folder.config.write_text("not = [toml")
    folder.environment.unlink()
    (history,) = read_histories([folder.path])
    assert history.series["loss_g"].steps.tolist() == [10, 20, 30]
    assert (history.settings, history.starts) == ({}, [])


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    paths = [tmp_path / "a" / "run", tmp_path / "b" / "run", tmp_path / "b" / "other"]
    for path in paths:
        write_run(path, records=1, pictures=())
    assert [history.name for history in read_histories(paths)] == ["a/run", "b/run", "b/other"]
    assert [history.name for history in read_histories([*paths[1:], paths[1]])] == ["run", "other"]


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere is no folder; give the folder of a run"):
        read_histories([tmp_path / "nowhere"])
    with pytest.raises(UserError, match=r"is no run: it has neither config\.toml nor log\.jsonl"):
        read_histories([tmp_path])
