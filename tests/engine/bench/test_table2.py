"""The paper's ablation as a command: runs that are trained once, evaluated, and tabulated beside the paper's."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from fastgan_engine.bench import paper, table2
from fastgan_engine.bench.table2_report import notes, table
from fastgan_engine.cli import app
from fastgan_engine.config import resolve
from fastgan_engine.errors import UserError
from fastgan_engine.evaluation.runs import Evaluation, evaluate
from fastgan_engine.pipelines import draw_demo
from fastgan_engine.run_folder import RunFolder
from fastgan_engine.trainer import Trainer

SETTINGS = [
    "model.im_size=64", "model.ngf=8", "model.ndf=8", "model.nz=16", "loss.reconstruction=l1", "train.batch=2",
    "engine.device=cpu", "precision.dtype=fp32", "log.report=false", "log.tensorboard=false", "log.sample_every=0",
]  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("table2")
    draw_demo(folder / "photos", count=4, size=64)
    return folder


def run(home: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Result:
    monkeypatch.chdir(home)
    monkeypatch.setenv("FASTGAN_CACHE", str(home / "cache"))
    sets = [part for text in SETTINGS for part in ("--set", text)]
    return CliRunner().invoke(
        app, ["bench", "table2", "--data", "photos", "--count", "4", "--metrics", "swd", *sets, *arguments]
    )


def test_variants_are_trained_once_and_evaluated(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two = ("--variants", "full,baseline", "--json", "t.json")
    result = run(home, monkeypatch, "--steps", "1", *two)
    assert result.exit_code == 0, result.output
    rows = json.loads((home / "t.json").read_text())["rows"]
    assert [(row["set"], row["variant"], row["step"]) for row in rows] == [
        ("photos", "baseline", 1),
        ("photos", "full", 1),
    ]
    for row in rows:  # what `evaluate` says of the run
        assert row["values"] == evaluate([home / row["source"]], metrics=["swd"], count=4)[0].values
    assert resolve(config_file=home / "table2/photos/baseline/config.toml").model.decode is False

    again = run(home, monkeypatch, "--steps", "1", *two)
    assert again.output.count("already trained") == 2
    assert json.loads((home / "t.json").read_text())["rows"] == rows

    longer = run(home, monkeypatch, "--steps", "2", *two)
    assert longer.output.count("from step 1 to 2") == 2, longer.output


def test_other_settings_or_fewer_steps_are_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(home / "other")
    folder.checkpoints.mkdir(parents=True)
    folder.checkpoint(20).touch()
    config = resolve(sets=[*SETTINGS, "train.steps=20"])
    folder.config.write_text(config.to_toml())
    table2.check_same_run(folder, resolve(sets=[*SETTINGS, "train.steps=30", "log.tick=3"]))
    with pytest.raises(UserError, match=r"model.ngf = 8, this one has 16; choose another --out"):
        table2.check_same_run(folder, resolve(sets=[*SETTINGS, "train.steps=20", "model.ngf=16"]))
    with pytest.raises(UserError, match="already past 10 steps"):
        table2.check_same_run(folder, resolve(sets=[*SETTINGS, "train.steps=10"]))


def test_interruption_ends_the_table_and_says_how_to_go_on(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "train", lambda self: False)
    result = run(home, monkeypatch, "--steps", "1", "--out", "interrupted")
    assert result.exit_code == 130
    assert "The same command again goes on" in result.output


def test_auto_takes_swd_where_weights_are_missing_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(table2, "can_measure_fid", lambda folder: False)
    assert table2.choose_metrics("auto", 10, None, said.append) == ("swd",)
    assert "compared by swd" in said[0]
    monkeypatch.setattr(table2, "can_measure_fid", lambda folder: True)
    assert table2.choose_metrics("auto", 10, None, said.append) == ("fid", "kid")
    assert len(said) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "nowhere does not exist"),
        (["--data", "elsewhere/photos"], "are both called photos"),
        (["--variants", "skip,encode"], "--variants: got 'encode'"),
        (["--metrics", "is"], "--metrics: unknown metric 'is'"),
    ],
)
def test_wrong_input_is_one_line(
    home: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    (home / "elsewhere" / "photos").mkdir(parents=True, exist_ok=True)
    error = run(home, monkeypatch, *arguments).exception
    assert isinstance(error, UserError)
    assert message in str(error)


def test_table_has_the_papers_columns_and_marks_what_is_missing() -> None:
    def row(data: str, variant: str, fid: float) -> table2.Row:
        found = Evaluation(
            source=Path("r"), weights=Path("w"), step=5, count=100, seed=0, data=Path(data), reals=10, data_hash=data,
            values={"fid": fid, "kid": 0.001},
        )  # fmt: skip
        return table2.Row(data, variant, found)

    rows = [row("dogs", "baseline", 80.0), row("dogs", "full", 20.5), row("cats", "baseline", 70.0)]
    made = table(rows)
    columns = [list(column.cells) for column in made.columns]
    assert [str(cell) for cell in columns[1]] == ["80.00", "20.50"]
    assert [cell.style for cell in columns[1]] == ["", "bold"]  # type: ignore[union-attr]
    assert [str(cell) for cell in columns[3]] == ["70.00", "-"]
    assert columns[5] == ["108.19", "50.66"]
    assert len(columns) == 1 + 4 + len(paper.FID)
    assert any("FID estimates covariances" in note for note in notes(rows, resolve(sets=SETTINGS)))
