"""``bench all`` and the runner below it: one part that fails stops nothing, and everything is told."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fastgan_engine.bench import everything
from fastgan_engine.bench.parts import Part, outcome, run_part
from fastgan_engine.cli import app


def python(code: str, **more: Any) -> Part:
    return Part("p", [sys.executable, "-c", code], more.pop("seconds", 30.0), **more)


@pytest.mark.parametrize(
    ("part", "left", "expected"),
    [
        (python("print('hello')"), 30, "done in"),
        (python("raise SystemExit(3)"), 30, "failed (exit 3)"),
        (python("import time; time.sleep(60)", seconds=0.5), 30, "out of time after"),
        (python("", needs=("sys", "no_such_module")), 30, "skipped: needs no_such_module"),
        (python(""), 1, "skipped: no time left"),
    ],
    ids=["done", "failed", "too long", "needs", "no time"],
)
def test_how_a_part_ends(tmp_path: Path, part: Part, left: float, expected: str) -> None:
    assert outcome(run_part(part, tmp_path, seconds=left)).startswith(expected)


def test_what_a_part_prints_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_part(python("import sys; print('out'); print('err', file=sys.stderr)"), tmp_path, seconds=30)
    assert set((tmp_path / "p.log").read_text().split()) == {"out", "err"}
    assert "out" in capsys.readouterr().out


def test_one_that_fails_stops_nothing_and_the_index_names_all(tmp_path: Path) -> None:
    picture = f"open({str(tmp_path / 'b.png')!r}, 'w')"
    chosen = [Part("a", [sys.executable, "-c", "1/0"], 30), Part("b", [sys.executable, "-c", picture], 30)]
    everything.run_all(chosen, tmp_path, {"machine": "this"})
    index = (tmp_path / everything.INDEX).read_text()
    assert "| a | failed (exit 1) |  |  | [a.log](a.log) |" in index
    assert "| [b.png](b.png) | [b.log](b.log) |" in index
    assert "![b](b.png)" in index
    assert [part["part"] for part in json.loads((tmp_path / everything.REPORT).read_text())["parts"]] == ["a", "b"]


def bench_options() -> dict[str, set[str]]:
    """Options of every command of ``bench``."""
    import typer.main

    group: Any = typer.main.get_command(app)
    return {name: {o for p in c.params for o in p.opts} for name, c in group.commands["bench"].commands.items()}


@pytest.mark.parametrize("cuda", [False, True])
@pytest.mark.parametrize("quick", [False, True])
def test_every_command_it_runs_knows_its_options(quick: bool, cuda: bool) -> None:
    known = bench_options()
    chosen = everything.parts(Path("/out"), set(known), quick=quick, cuda=cuda)
    assert {"throughput", "data", "quality"} <= {part.name for part in chosen}
    for part in chosen:
        options = {word for word in part.command[4:] if word.startswith("--")}
        assert options <= known[part.name], part.name
        assert str(Path("/out") / f"{part.name}.json") in part.command


def test_the_command_runs_them_and_fails_where_one_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Part("broken", [sys.executable, "-c", "1/0"], 30)
    monkeypatch.setattr(everything, "parts", lambda *_, **__: [broken])
    result = CliRunner().invoke(app, ["bench", "all", "--quick", "--out", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "broken      failed (exit 1)" in result.output
    assert (tmp_path / "out" / "index.md").exists()
