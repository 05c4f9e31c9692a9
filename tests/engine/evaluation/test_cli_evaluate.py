"""`evaluate`: the table, the JSON file, and one line for what is wrong in the input."""

import io
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import typer
from rich.console import Console
from typer.testing import CliRunner

from fastgan_engine.cli.evaluate import evaluate as command
from fastgan_engine.cli.evaluate import table
from fastgan_engine.config import resolve
from fastgan_engine.errors import UserError
from fastgan_engine.evaluation.defaults import NAMES
from fastgan_engine.evaluation.runs import Evaluation, notes
from fastgan_engine.html import write_report
from fastgan_engine.networks import Generator
from fastgan_engine.pipelines import draw_demo
from fastgan_engine.run_folder import RunFolder
from fastgan_engine.snapshot import save_snapshot

app = typer.Typer()
app.command()(command)


def run(*arguments: object) -> str:
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False).output


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two runs on the same six images, in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FASTGAN_CACHE", str(tmp_path / "cache"))
    draw_demo(tmp_path / "photos", count=6, size=64)
    for index, name in enumerate(("one", "two")):
        folder = RunFolder(tmp_path / name)
        torch.manual_seed(index)
        save_snapshot(folder.snapshot(10), Generator(64, nz=16, ngf=8), step=1000 * (index + 1))
        settings = {"data.path": str(tmp_path / "photos"), "model.im_size": 64, "model.nz": 16, "model.ngf": 8}
        folder.config.write_text(resolve(flags=settings).to_toml())
    return ["one", "two"]


def test_several_runs_are_one_table_and_one_file(runs: list[str]) -> None:
    output = run(*runs, "--metrics", "swd", "--count", 5, "--seed", 2, "--json", "values.json")
    records = json.loads(Path("values.json").read_text())
    assert [record["source"] for record in records] == runs
    assert [record["step"] for record in records] == [1000, 2000]
    assert records[0]["weights"].endswith("one/snapshots/step-0000010.safetensors")
    assert [(record["count"], record["seed"], record["reals"]) for record in records] == [(5, 2, 6)] * 2
    lines = [line.split() for line in output.splitlines() if line.strip()]
    assert lines[0] == ["run", "step", "SWD"]
    assert lines[2:4] == [
        [name, step, f"{record['values']['swd']:.4f}"]
        for name, step, record in zip(runs, ("1,000", "2,000"), records, strict=True)
    ]
    assert "5 samples of seed 2 against 6 training images" in output
    assert records[0]["values"] != records[1]["values"]


def test_snapshot_knows_the_images_of_its_run(runs: list[str]) -> None:
    snapshot = "one/snapshots/step-0000010.safetensors"
    run("one", snapshot, "--metrics", "swd", "--count", 4, "--json", "values.json")
    by_folder, by_file = json.loads(Path("values.json").read_text())
    assert by_file.pop("source") == snapshot
    assert by_folder.pop("source") == "one"
    assert by_file == by_folder


def test_the_report_of_a_run_tells_what_was_found(runs: list[str], tmp_path: Path) -> None:
    shutil.copy("one/snapshots/step-0000010.safetensors", tmp_path / "elsewhere.safetensors")
    data = ("--data", "photos", "--metrics", "swd", "--count", 4, "--json", "values.json")
    run("one", "elsewhere.safetensors", *data)
    assert [path.parent.name for path in tmp_path.rglob("evaluations.jsonl")] == ["one"]
    value = json.loads(Path("values.json").read_text())[0]["values"]["swd"]
    write_report([Path("one")], Path("page.html"))
    section = Path("page.html").read_text().partition('<h2 id="evaluations">')[2].partition("</section>")[0]
    cells = re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", section)
    assert cells == ["Run", "Step", "Samples", "Training images", "SWD", "one", "1,000", "4", "6", f"{value:.4f}"]


def test_other_images_can_be_given(runs: list[str], tmp_path: Path) -> None:
    draw_demo(tmp_path / "others", count=4, size=64)
    assert "4 samples of seed 0 against 4 training images" in run(
        "one", "--data", "others", "--metrics", "swd", "--count", 4
    )


def test_json_is_not_overwritten_unasked(runs: list[str]) -> None:
    Path("values.json").write_text("mine")
    arguments = ("one", "--metrics", "swd", "--count", 4, "--json", "values.json")
    with pytest.raises(UserError, match=r"--json: values\.json exists; .* --force"):
        run(*arguments)
    run(*arguments, "--force")
    assert json.loads(Path("values.json").read_text())[0]["source"] == "one"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["one", "three"], "three does not exist; give the folder of a run"),
        (["cache-less"], "holds no snapshot"),
        (["one", "--metrics", "fit"], "--metrics: unknown metric 'fit'; expected a comma list of fid,"),
        (["one", "--metrics", "kid", "--count", "1"], "kid: needs 2 samples or more, got 1"),
        (["one", "--data", "empty"], "empty: no image files"),
        (["one", "--data", "nowhere"], "nowhere"),
        (["loose.safetensors"], r"loose\.safetensors does not tell its training images; give them with --data"),
    ],
)
def test_bad_input_is_one_line(runs: list[str], arguments: list[str], message: str) -> None:
    Path("cache-less").mkdir()
    Path("empty").mkdir()
    Path("loose.safetensors").write_bytes(Path("one/snapshots/step-0000010.safetensors").read_bytes())
    with pytest.raises(UserError, match=message) as raised:
        run(*([] if "--metrics" in arguments else ["--metrics", "swd"]), *arguments)
    assert "\n" not in str(raised.value)


def test_images_that_have_moved_are_asked_for(runs: list[str], tmp_path: Path) -> None:
    (tmp_path / "photos").rename(tmp_path / "moved")
    with pytest.raises(UserError, match=r"the training images of one, .*photos, are not there; give them with --data"):
        run("one", "--metrics", "swd", "--count", 4)


def evaluation(**values: object) -> Evaluation:
    settings = {
        "source": Path("one"), "weights": Path("w"), "step": 1, "count": 5_000, "seed": 0, "data": Path("d"),
        "reals": 5_000, "data_hash": "a", "values": {"fid": 1.0},
    }  # fmt: skip
    return Evaluation(**(settings | values))  # type: ignore[arg-type]


def test_few_images_are_noted_for_fid() -> None:
    assert notes([evaluation()]) == []
    assert notes([evaluation(reals=100, values={"kid": 1.0})]) == []
    (note,) = notes([evaluation(reals=100)])
    assert "as few as 100 images: it comes out too high" in note
    assert "2,048" in note


def test_different_images_are_noted() -> None:
    (note,) = notes([evaluation(), evaluation(data_hash="b")])
    assert "do not compare" in note


def test_all_metrics_of_a_long_path_fit_a_terminal() -> None:
    values = dict.fromkeys(NAMES, 0.1) | {"fid": 123.456}
    recorder = Console(width=80, file=io.StringIO())
    recorder.print(
        table([evaluation(source=Path("runs/photos/" + "x" * 40), step=50_000, values=values, real_diversity=0.5)])
    )
    lines = recorder.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert all(len(line) <= 80 for line in lines)
    assert "".join(line.split()[0] for line in lines if "x" in line) == "runs/photos/" + "x" * 40
    assert "50,000 123.46  100.00 0.100" in "\n".join(lines)
    assert "training images" in "\n".join(lines)
