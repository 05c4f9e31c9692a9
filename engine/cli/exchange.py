"""``fastgan-engine import`` and ``export``: released checkpoints in; safetensors and the released format out."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fastgan_engine.cli.outcome import refuse_to_overwrite, waiting, writing
from fastgan_engine.cli.sample import Force, Source
from fastgan_engine.errors import UserError
from fastgan_engine.run_folder import SNAPSHOT_SUFFIX


class Format(StrEnum):
    """What `export` writes."""

    SAFETENSORS = "safetensors"
    RELEASED = "released"
    RELEASED_ALL = "released-all"


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .pth of the released FastGAN code.")],
    out: Annotated[Path, typer.Option(help="Folder of the new run.")],
    step: Annotated[
        int | None, typer.Option(min=0, help="Its training step.", show_default="as Adam counted, else 0")
    ] = None,
) -> None:
    """Make a run of a released checkpoint.

    N.pth (g, d) and all_N.pth (with averages and optimizers) are read, with or without module. prefixes. The missing
    batch-norm statistics of the averaged generator are measured. From all_N.pth training can go on.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out: {out} exists; a run is imported into a new folder")
    with waiting("loading"):
        from fastgan_engine.hardware import pick_device
        from fastgan_engine.importing import import_released
        from fastgan_engine.released import load_released
        from fastgan_engine.run_folder import RunFolder

        released = load_released(file, pick_device("auto"))
    with waiting("measuring batch-norm statistics"), writing(out):
        written = import_released(released, RunFolder(out), step if step is not None else released.step or 0)
    typer.echo(f"wrote {written.snapshot}")
    if written.checkpoint:
        typer.echo(f"wrote {written.checkpoint}")
    typer.echo(f"look at it:  fastgan-engine sample {out}")
    if written.checkpoint:
        typer.echo(f"train on:    fastgan-engine train --resume auto --out {out} --data IMAGES --steps N")


def export(
    source: Source,
    out: Annotated[Path, typer.Option(help="File to write.")],
    format_: Annotated[
        Format,
        typer.Option(
            "--format",
            help="safetensors: the averaged generator. released: {g, d} for the released code, g averaged. "
            "released-all: with live weights and optimizers, to train further there.",
        ),
    ] = Format.SAFETENSORS,
    force: Force = False,
) -> None:
    """Write the networks of a run or a file in another format."""
    if format_ is Format.SAFETENSORS and out.suffix != SNAPSHOT_SUFFIX:
        raise UserError(
            f"--out: expected a name ending in {SNAPSHOT_SUFFIX}, got {out}; for a .pth, add --format released"
        )
    refuse_to_overwrite(out, force)
    with waiting("exporting"):
        from fastgan_engine.exporting import export_released, export_snapshot

        with writing(out):
            if format_ is Format.SAFETENSORS:
                export_snapshot(source, out)
            else:
                export_released(source, out, everything=format_ is Format.RELEASED_ALL)
    typer.echo(f"{out} ({out.stat().st_size / 2**20:.0f} MiB)")
