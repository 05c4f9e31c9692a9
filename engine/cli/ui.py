"""``fastgan-engine ui``: a page to look at a run with."""

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from fastgan_engine.cli.latent import shared
from fastgan_engine.cli.outcome import warn
from fastgan_engine.cli.sample import Source


def ui(
    source: Source,
    port: Annotated[int, typer.Option(min=1, max=65535, help="First port to try; the next free one is taken.")] = 7860,
    device: shared.Device = "auto",
    weights_dir: Annotated[
        Path | None, typer.Option(help="Folder with LPIPS weights.", show_default="the run's, the torch cache")
    ] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in the browser.")] = True,
) -> None:
    """Look at a run in the browser: samples, mixing, interpolation, inversion of a picture of yours.

    The page is served to this machine alone, and nothing on it asks for anything elsewhere. Ctrl-C ends it.
    """
    run = shared.open_run(source, device)
    from fastgan_engine.ui import serve

    def ready(address: str) -> None:
        typer.echo(f"{run.source} on {address}, Ctrl-C ends it")
        if browser:
            webbrowser.open(address)

    serve(run, port=port, title=source.absolute().name, weights_dir=weights_dir, warn=warn, ready=ready)
