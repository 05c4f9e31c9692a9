"""`fastgan-engine report`: where it writes, and what it says."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from fastgan_engine.cli import app
from fastgan_engine.errors import UserError
from tests.engine.html.runs import write_run


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def report(*arguments: object) -> str:
    return CliRunner().invoke(app, ["report", *map(str, arguments)], catch_exceptions=False).output


def test_a_runs_own_page_is_made_anew(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    folder.report.write_text("old")
    assert report(folder.path).startswith(str(folder.report))
    assert "<title>run · fastgan-engine</title>" in folder.report.read_text(encoding="utf-8")


def test_a_comparison_is_written_here_and_over_nothing(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name).path for name in ("a", "b")]
    assert report(*runs).startswith("report.html (")
    assert "<title>a and b · fastgan-engine</title>" in Path("report.html").read_text(encoding="utf-8")
    with pytest.raises(UserError, match=r"report\.html exists; choose another path, or overwrite it with --force"):
        report(*runs)
    report(*runs, "--force")
    report(runs[0], "--out", tmp_path / "new" / "page.html")
    with pytest.raises(UserError, match=r"page\.html exists"):
        report(runs[0], "--out", tmp_path / "new" / "page.html")


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="runs/9 is no folder; give the folder of a run"):
        report("runs/9")
    assert not any(tmp_path.iterdir())
