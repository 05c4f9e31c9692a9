"""``bench kernels`` as a user runs it; what it reports is tested with the kernels."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fastgan_engine.bench import compile_report
from fastgan_engine.cli import app
from fastgan_engine.errors import UserError

ROW: dict[str, Any] = {
    "kernel": "pool4_kernel", "arch": "sm_86", "dtype": "bfloat16", "registers": 40, "spill_bytes": 0,
    "shared_bytes": 512, "load_bytes": 16, "bytes_moved": 2_100_000, "bytes_minimum": 2_000_000,
}  # fmt: skip


def run(*arguments: str) -> str:
    return CliRunner().invoke(app, ["bench", "kernels", *arguments], catch_exceptions=False).output


def test_without_a_gpu_it_says_what_can_be_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match=r"none is visible here; with --compile-only"):
        run()


def test_architectures_are_for_compiling_only() -> None:
    with pytest.raises(UserError, match="--arch goes with --compile-only"):
        run("--arch", "sm_86")


@pytest.mark.parametrize(
    ("flags", "archs"), [([], compile_report.ARCHS), (["--arch", "sm_75, sm_86"], ["sm_75", "sm_86"])]
)
def test_compiling_writes_a_table_and_json(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flags: list[str], archs: list[str]
) -> None:
    seen = []

    def report(archs: list[str], progress: compile_report.Progress) -> list[dict[str, Any]]:
        seen.append(archs)
        progress("recording", 0, None)
        progress("pool4_kernel for sm_86", 0, 1)
        return [ROW]

    monkeypatch.setattr(compile_report, "compile_report", report)
    monkeypatch.chdir(tmp_path)
    out = run("--compile-only", *flags, "--json", "kernels.json")
    assert seen == [archs]
    assert json.loads((tmp_path / "kernels.json").read_text(encoding="utf-8")) == [ROW]
    _, heading, line, _ = (line.split() for line in out.splitlines() if line)
    assert heading[:2] == ["sm_86,", "bfloat16"]
    assert line == ["pool4", "40", "0", "512", "16", "2.1", "1.050"]


def test_progress_counts_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastgan_engine.kernels.launch.INTERPRETED", False)
    monkeypatch.setattr(compile_report, "iteration_launches", lambda *_: [])
    monkeypatch.setattr(compile_report, "by_kernel", lambda _: {"a": [_Named("a")], "b": [_Named("b")]})
    monkeypatch.setattr(
        compile_report, "report_row", lambda launches, arch, _: {"kernel": launches[0].name, "arch": arch}
    )
    heard: list[tuple[str, int, int | None]] = []
    rows = compile_report.compile_report(["sm_75", "sm_86"], progress=lambda *what: heard.append(what))
    assert rows == [{"kernel": name, "arch": arch} for arch in ("sm_75", "sm_86") for name in "ab"]
    assert [done for _, done, total in heard if total == 4] == [0, 1, 2, 3]
    assert heard[-1][0] == "b for sm_86"


class _Named:
    def __init__(self, name: str) -> None:
        self.name = name
