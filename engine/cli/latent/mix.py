"""``fastgan-engine mix``: style mixing."""

from pathlib import Path
from typing import Annotated

import typer

from fastgan_engine.cli.latent import shared
from fastgan_engine.cli.outcome import refuse_to_overwrite, waiting, warn, writing
from fastgan_engine.cli.sample import GRID_PIXELS, Force, Source
from fastgan_engine.errors import UserError

ROWS, COLUMNS = "0:0,0:1,0:2,0:3", "1:0,1:1,1:2,1:3,1:4,1:5"


def mix(
    source: Source,
    rows: Annotated[str, typer.Option(help=f"Contents: {shared.NAMES}.")] = ROWS,
    cols: Annotated[str, typer.Option(help="Styles: likewise.")] = COLUMNS,
    truncation: shared.Truncation = 1.0,
    out: Annotated[Path | None, typer.Option(help="The .png.", show_default="named after the source, here")] = None,
    chunk: shared.Chunk = 8,
    device: shared.Device = "auto",
    force: Force = False,
) -> None:
    """Give each row's image the style of each column's (figure 7 of the paper).

    The first column shows the contents as they are, the first row the styles. Every other image is the content, with
    its high-resolution maps gated by the low-resolution maps of the style (skip-layer excitation): shapes stay, colours
    and texture change.
    """
    out = out or shared.default_out(source, "mix", ".png")
    shared.expect_png(out)
    refuse_to_overwrite(out, force)
    run = shared.open_run(source, device)
    from fastgan_engine.images import save_grid
    from fastgan_engine.latent.latents import read_latents
    from fastgan_engine.latent.mixing import mixing_table

    content, style = (read_latents(run.generator, names).scaled(truncation) for names in (rows, cols))
    cells = (len(content) + 1) * (len(style) + 1)
    if cells * run.generator.im_size**2 > GRID_PIXELS:
        raise UserError(f"--rows, --cols: {cells:,} images are too many for one picture; give fewer")
    with waiting("mixing"):
        table = mixing_table(run.generator, content, style, chunk=chunk, warn=warn)
    with writing(out):
        save_grid(out, table, columns=len(style) + 1)
    typer.echo(f"{len(content)} contents x {len(style)} styles of {run.source}: {out}")
