"""Options that the commands of ``bench`` share."""

from pathlib import Path
from typing import Annotated

import typer

ImSize = Annotated[int | None, typer.Option(help="64, 128, 256, 512 or 1024.")]
Batch = Annotated[int | None, typer.Option(help="Images a step.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Also write the figures here.")]
