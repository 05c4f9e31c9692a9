"""``fastgan-engine data check|prepare|demo``: what is wrong with a folder, a packed set, a set to try things on."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from fastgan_engine.cli.outcome import data_errors, progress_bar, warn
from fastgan_engine.pipelines import defaults

if TYPE_CHECKING:
    from fastgan_engine.pipelines import DataReport

app = typer.Typer(help="Check a folder of images, prepare a packed set, draw the demo set.", no_args_is_help=True)

Source = Annotated[
    Path, typer.Argument(metavar="DIR", help="Folder of images, searched with its subfolders, or a .zip.")
]
ImSize = Annotated[int, typer.Option(min=1, help="Training size, pixels on each side.")]


@app.command()
def check(
    source: Source,
    im_size: ImSize = defaults.IM_SIZE,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole report as JSON.")] = False,
) -> None:
    """Open every image and report what is wrong. Nothing is written.

    Exit code 0: every image can be used. 2: some cannot; they are listed by name, and training would leave them out
    with a warning (or stop, with --strict).
    """
    from fastgan_engine.pipelines import check as check_source

    with data_errors(), progress_bar("checking") as progress:
        report = check_source(source, im_size=im_size, progress=progress)
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=1))
    else:
        _print_report(report)
    if report.problems or not report.images:
        raise typer.Exit(2)


@app.command()
def prepare(
    source: Source,
    im_size: ImSize = defaults.IM_SIZE,
    fit: Annotated[str, typer.Option(help=f"Images that are not square: {', '.join(defaults.FITS)}.")] = defaults.FIT,
    background: Annotated[
        str, typer.Option(help="Colour under transparent parts and around padding, e.g. white or #fff8e0.")
    ] = defaults.BACKGROUND,
    channels: Annotated[int, typer.Option(help="1 (grey), 3 (RGB) or 4 (RGBA).")] = defaults.CHANNELS,
    encoding: Annotated[
        str, typer.Option(help="Images that are not JPEG files of the right size already: lossless (PNG) or jpeg.")
    ] = defaults.ENCODING,
    out: Annotated[
        Path | None,
        typer.Option(help="Where to keep prepared sets.", show_default="$FASTGAN_CACHE, or the user's cache folder"),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop if any file cannot be used.")] = False,
) -> None:
    """Verify every image and pack the set at its training size, once.

    Training does this by itself; the folder printed here can be moved to another machine and given to --data.
    """
    from fastgan_engine.pipelines import prepare as prepare_source

    with data_errors(), progress_bar("preparing") as progress:
        prepared = prepare_source(
            source,
            out,
            im_size=im_size,
            channels=channels,
            fit=cast(defaults.Fit, fit),  # checked there
            background=background,
            encoding=cast(defaults.Encoding, encoding),
            strict=strict,
            warn=warn,
            progress=progress,
        )
    size = f"{prepared.im_size} x {prepared.im_size}, {prepared.channels} channel(s)"
    typer.echo(f"{prepared.count} images, {size}, packed as {prepared.packing}")
    typer.echo(prepared.folder)


@app.command()
def demo(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to draw into: new or empty, or one begun before.")],
    count: Annotated[int, typer.Option(help="Number of images.")] = defaults.DEMO_COUNT,
    size: Annotated[int, typer.Option(help="Pixels on each side.")] = defaults.DEMO_SIZE,
    seed: Annotated[int, typer.Option(help="Another seed, other flowers.")] = defaults.DEMO_SEED,
) -> None:
    """Draw the built-in set: flowers. No file that exists is ever overwritten."""
    from fastgan_engine.pipelines import draw_demo

    with data_errors(), progress_bar("drawing") as progress:
        draw_demo(out, count=count, size=size, seed=seed, progress=progress)
    typer.echo(f"{count} flowers, {size} x {size}, in {out}")


def _print_report(report: DataReport) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from fastgan_engine.pipelines.sources import display_name

    console = Console()
    table = Table(title=Text(f"{len(report.images)} usable images in {report.source}"), title_justify="left")
    for heading in ("format", "mode", "pixels", "images"):
        table.add_column(heading, justify="right" if heading == "images" else "left")
    for (format_, mode), count in Counter((image.format, image.mode) for image in report.images).most_common():
        sizes = [(i.width, i.height) for i in report.images if (i.format, i.mode) == (format_, mode)]
        table.add_row(format_, mode, _size_range(sizes), str(count))
    if report.images:
        console.print(table)
        size = report.im_size
        console.print(Text(f"Training at {size} x {size} would prepare {len(report.images)} image(s)."))
    for note in report.notes:
        console.print(Text.assemble(("note: ", "cyan"), note))
    if report.problems:
        console.print(Text(f"{len(report.problems)} file(s) cannot be used and would be left out:", style="bold red"))
        for problem in report.problems:
            console.print(Text(f"  {display_name(problem.name)}: {problem.reason}"), soft_wrap=True)
    elif report.images:
        console.print(Text("No problems.", style="green"))
    else:
        console.print(Text("No image files found.", style="bold red"))


def _size_range(sizes: list[tuple[int, int]]) -> str:
    """``512 x 512``, or the smallest and the largest by area."""
    ordered = sorted(sizes, key=lambda size: size[0] * size[1])
    ends = dict.fromkeys((ordered[0], ordered[-1]))
    return " to ".join(f"{width} x {height}" for width, height in ends)
