"""``fastgan-engine report``: a run, or several side by side, as one HTML file."""

from pathlib import Path
from typing import Annotated

import typer

from fastgan_engine.cli.outcome import refuse_to_overwrite, waiting, writing
from fastgan_engine.cli.sample import Force

DEFAULT_OUT = Path("report.html")


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Folders of runs.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option(help="File to write.", show_default="report.html, in the run's folder, or of several runs here"),
    ] = None,
    force: Force = False,
) -> None:
    """Make a page of a run: settings, curves, pictures over time, environment. Of several runs: a comparison.

    The page is one file that opens without a network. Training writes its own; this makes it anew.
    """
    own = len(runs) == 1 and out is None
    out = runs[0] / DEFAULT_OUT if own else out or DEFAULT_OUT
    refuse_to_overwrite(out, force or own)
    with waiting("making the page"):
        from fastgan_engine.html import write_report

        with writing(out):
            write_report(runs, out)
    typer.echo(f"{out} ({out.stat().st_size / 2**20:.1f} MiB)")
