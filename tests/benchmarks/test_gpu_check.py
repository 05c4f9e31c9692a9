"""``benchmarks/gpu_check.py`` on a machine without a GPU: what it would run, and what it says is missing."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_check.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True)


def test_a_dry_run_lists_the_parts_within_reason_and_runs_nothing(tmp_path: Path) -> None:
    done = run("--dry-run", "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    facts, lacking, *lines = done.stdout.splitlines()
    assert "torch" in json.loads(facts)
    assert lacking.startswith("missing: ")
    names = [line.split()[0] for line in lines]
    assert names[0] == "step"
    assert {"kernels", "quality", "vram-4gib-256", "vram-8gib-1024", "throughput-256"} <= set(names)
    assert not (tmp_path / "out").exists()


def test_a_part_that_lacks_a_module_is_skipped_with_the_reason(tmp_path: Path) -> None:
    hidden = tmp_path / "hide"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(
        "import importlib.util as u\n"
        "find = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name == 'pydantic' else find(name, *more)\n"
    )
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--out", str(tmp_path / "out"), "--only", "quality,data"],
        capture_output=True, text=True, env={"PYTHONPATH": str(hidden), "PATH": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "missing: pydantic" in done.stdout
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [part["skipped"] for part in report["parts"]] == ["needs pydantic"] * 2


def test_a_folder_without_wheels_is_told(tmp_path: Path) -> None:
    done = run("--wheels", str(tmp_path), "--only", "nothing", "--out", str(tmp_path / "out"))
    assert f"no wheels in {tmp_path}" in done.stdout


def test_wheels_that_cannot_be_installed_stop_nothing(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "broken-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("broken.py", "")
    done = run("--wheels", str(tmp_path), "--only", "nothing", "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert "pip failed: " in done.stdout
