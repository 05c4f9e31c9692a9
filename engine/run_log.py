"""The lasting record of a run: one JSON object a tick or evaluation, and TensorBoard event files beside it."""

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from fastgan_engine.atomic import atomic_write
from fastgan_engine.report import TickReport
from fastgan_engine.run_folder import RunFolder

GROUPS = ("loss", "eval", "diversity")


class RunLog:
    """Appends to ``log.jsonl`` and, if asked, TensorBoard.

    A run resumed from an earlier step drops the records past it, so that each step is told once.
    """

    def __init__(self, folder: RunFolder, *, tensorboard: bool, start_step: int) -> None:
        folder.path.mkdir(parents=True, exist_ok=True)
        _drop_after(folder.log, start_step)
        self._file = folder.log.open("a", encoding="utf-8")
        self._writer = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(folder.tensorboard), purge_step=start_step + 1)

    def tick(self, report: TickReport) -> None:
        self.record(report.step, report.record())

    def record(self, step: int, values: Mapping[str, object]) -> None:
        """Writes what was found at a step; numbers also to TensorBoard, in a group for each of GROUPS."""
        self._file.write(json.dumps({"time": round(time.time(), 3), "step": step, **values}) + "\n")
        self._file.flush()
        if self._writer is not None:
            for name, value in values.items():
                if isinstance(value, int | float) and name not in ("step", "steps"):
                    self._writer.add_scalar(_grouped(name), value, step)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()
        if self._writer is not None:
            self._writer.close()


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file that have a step, one a line; lines cut short by a crash are passed over."""
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            yield record


def _grouped(name: str) -> str:
    """TensorBoard draws names of one group, before the slash, together."""
    group, _, rest = name.partition("_")
    return f"{group}/{rest}" if group in GROUPS else name


def _drop_after(path: Path, step: int) -> None:
    if not path.exists():
        return
    text = path.read_text(encoding="utf-8", errors="replace")
    kept = "".join(line + "\n" for line in text.splitlines() if _step_of(line) <= step)
    if kept != text:
        with atomic_write(path) as temporary:
            temporary.write_text(kept, encoding="utf-8")


def _step_of(line: str) -> float:
    """The step of a record; a line cut short or garbled by a crash counts as past everything."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
