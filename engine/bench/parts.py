"""Runs measurements one after the other, each in a process of its own: one that fails does not stop the next.

Standard library only, so that ``benchmarks/gpu_check.py`` can use it where nothing is installed yet.
"""

import importlib.util
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Less time than this is not worth starting a part in, s.
WORTHWHILE = 5.0


@dataclass(frozen=True)
class Part:
    """A command, the most seconds it may take, and the modules without which it is skipped."""

    name: str
    command: Sequence[str]
    seconds: float
    needs: Sequence[str] = ()

    @property
    def missing(self) -> list[str]:
        return [module for module in self.needs if importlib.util.find_spec(module) is None]


def run_part(
    part: Part, out: Path, *, seconds: float, cwd: Path | None = None, environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Runs one, its output shown and kept in ``out/NAME.log``; skips it, saying why, where it cannot run."""
    if missing := part.missing:
        print(f"\n=== {part.name}: skipped, needs {', '.join(missing)}", flush=True)
        return {"part": part.name, "skipped": f"needs {', '.join(missing)}"}
    if seconds < WORTHWHILE:
        print(f"\n=== {part.name}: skipped, no time left", flush=True)
        return {"part": part.name, "skipped": "no time left"}
    print(f"\n=== {part.name}: {' '.join(part.command)}", flush=True)
    limit = min(part.seconds, seconds)
    begin = time.perf_counter()
    with (out / f"{part.name}.log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            part.command, cwd=cwd, env=environment, text=True, encoding="utf-8", errors="replace",
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        timer = threading.Timer(limit, process.kill)
        timer.start()
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            log.write(line)
        code = process.wait()
        timer.cancel()
    elapsed = time.perf_counter() - begin
    return {"part": part.name, "exit": code, "seconds": round(elapsed, 1), "out_of_time": elapsed >= limit}


def outcome(result: Mapping[str, Any]) -> str:
    """In words."""
    if "skipped" in result:
        return f"skipped: {result['skipped']}"
    if result["out_of_time"]:
        return f"out of time after {result['seconds']:.0f} s"
    return f"done in {result['seconds']:.0f} s" if result["exit"] == 0 else f"failed (exit {result['exit']})"
