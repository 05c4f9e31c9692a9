"""The page: what the runs tell, laid into the template."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from fastgan_engine.atomic import atomic_write
from fastgan_engine.html.charts import make_charts
from fastgan_engine.html.frames import Frame, make_frames
from fastgan_engine.html.history import History, read_histories
from fastgan_engine.html.tables import environment_rows, evaluations_table, overview, setting_rows, start_times
from fastgan_engine.run_folder import RunFolder
from fastgan_engine.screen import Screen

HERE = Path(__file__).parent
PICTURE_BUDGET = 10 * 2**20
"""Bytes that all pictures of a page may take."""


@dataclass(frozen=True, kw_only=True)
class Viewer:
    """Pictures of one kind of one run, with a slider over them."""

    run: str
    kind: str
    frames: list[Frame]


KINDS = {
    "Samples": "Generated images of the averaged generator, the same latents at each step.",
    "Reconstructions": "Rows: training images, what D's decoders make of them (from the large, then from the small "
    "image), a quarter of each, and what the third decoder makes of that.",
}


def write_report(folders: Sequence[Path], out: Path, *, picture_budget: int = PICTURE_BUDGET) -> None:
    """Writes one self-contained HTML file about the runs in ``folders``, whole or not at all.

    Reads what the runs have written so far: a run may be under way. picture_budget: bytes that all pictures together
    may take; there are fewer and smaller ones where they would take more.

    Raises:
        UserError: a folder that is no run.
    """
    page = render(read_histories(folders), picture_budget)
    with atomic_write(out) as temporary:
        temporary.write_text(page, encoding="utf-8")


def write_report_or_say(folder: RunFolder, screen: Screen) -> None:
    """The report of a run that trains. Where it fails, for whatever reason, the run loses a page, not its training."""
    try:
        write_report([folder.path], folder.report)
    except Exception as error:
        screen.event(f"note: {folder.report} was not written ({type(error).__name__}: {error})")


def render(histories: Sequence[History], picture_budget: int = PICTURE_BUDGET) -> str:
    """The page as text."""
    return _template().render(
        title=" and ".join(history.name for history in histories),
        written=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        histories=histories,
        overview=overview(histories),
        viewers=_viewers(histories, picture_budget),
        kinds=KINDS,
        charts=make_charts(histories),
        evaluations=evaluations_table(histories),
        settings=setting_rows(histories),
        environment=environment_rows(histories),
        starts={history.name: start_times(history) for history in histories},
        style=(HERE / "style.css").read_text(encoding="utf-8"),
        script=(HERE / "script.js").read_text(encoding="utf-8"),
    )


def _viewers(histories: Sequence[History], budget: int) -> list[Viewer]:
    files = {
        (history.name, kind): found
        for kind in KINDS
        for history in histories
        if (found := history.folder.all_samples() if kind == "Samples" else history.folder.all_reconstructions())
    }
    share = budget // max(1, len(files))
    return [
        Viewer(run=run, kind=kind, frames=frames)
        for (run, kind), found in files.items()
        if (frames := make_frames(found, budget=share))
    ]


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html.jinja")
