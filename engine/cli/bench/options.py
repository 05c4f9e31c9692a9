"""Options that the commands of ``bench`` share, and what becomes of them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from fastgan_engine.errors import UserError

ImSize = Annotated[int | None, typer.Option(help="64, 128, 256, 512 or 1024.")]
ImSizes = Annotated[list[str] | None, typer.Option("--im-size", help="64, 128, 256, 512 or 1024; or a comma list.")]
Batch = Annotated[int | None, typer.Option(help="Images a step.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Dtype = Annotated[str | None, typer.Option(help="Of the engine: auto, fp32, bf16 or fp16.")]
Settings = Annotated[list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Any setting.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Also write the figures here.")]
PlotFile = Annotated[Path | None, typer.Option("--plot", help="Also draw them here, as PNG (needs matplotlib).")]


def parse_sizes(texts: Sequence[str] | None) -> list[int | None]:
    """Sizes of ``--im-size``, repeated or as comma lists; None, the default, where it was not given.

    Raises:
        UserError: not a number.
    """
    names = [part.strip() for text in texts or [] for part in text.split(",") if part.strip()]
    for name in names:
        if not name.isdecimal():
            raise UserError(f"--im-size: got {name!r}, expected numbers such as 256 or 256,512")
    return [int(name) for name in names] or [None]


def write_json(path: Path, values: Any) -> None:
    """Writes figures, and says so."""
    from fastgan_engine.atomic import atomic_write
    from fastgan_engine.cli.outcome import writing

    with writing(path), atomic_write(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    typer.echo(f"wrote {path}")
