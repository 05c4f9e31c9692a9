"""``fastgan-engine bench table2``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastgan_engine.cli.bench.options import Batch, Device, Dtype, ImSize, JsonFile, Settings, write_json
from fastgan_engine.cli.outcome import data_errors
from fastgan_engine.evaluation import defaults

if TYPE_CHECKING:
    from fastgan_engine.config import Config

STEPS = 10_000
VARIANTS = "baseline,skip,decode,full"
WIDE = 200  # columns, where there is no terminal to fit into


def table2(
    data: Annotated[list[Path], typer.Option("--data", help="Folder or .zip of images; may be repeated.")],
    steps: Annotated[int, typer.Option(min=1, help="Iterations of each variant.")] = STEPS,
    variants: Annotated[str, typer.Option(help="Comma list of them.")] = VARIANTS,
    metrics: Annotated[
        str, typer.Option(help="auto, or a comma list such as fid,kid; auto: these, or swd without weights.")
    ] = defaults.AUTO,
    count: Annotated[int, typer.Option(min=2, help="Samples of each variant.")] = defaults.COUNT,
    out: Annotated[Path, typer.Option(help="Folder of the runs: OUT/SET/VARIANT.")] = Path("table2"),
    profile: Annotated[str | None, typer.Option(help="A card's settings, or auto for this machine's.")] = None,
    im_size: ImSize = None,
    batch: Batch = None,
    weights_dir: Annotated[Path | None, typer.Option(help="Folder with weights, for machines offline.")] = None,
    device: Device = None,
    dtype: Dtype = None,
    settings: Settings = None,
    json_file: JsonFile = None,
) -> None:
    """The paper's ablation on your images: train each variant alike, evaluate, and tabulate beside its own figures.

    Baseline, + skip (skip-layer excitation), + decode (D's decoders), full. The same command again goes on where it
    was interrupted, and does not train a finished variant again.
    """
    from fastgan_engine.config import resolve

    flags = {
        "train.steps": steps, "train.batch": batch, "model.im_size": im_size,
        "loss.weights_dir": None if weights_dir is None else str(weights_dir.expanduser().absolute()),
        "engine.device": device, "precision.dtype": dtype,
    }  # fmt: skip
    base = resolve(profile, flags=flags, sets=settings or [])
    from rich.console import Console

    from fastgan_engine.bench import paper, table2_report
    from fastgan_engine.bench import table2 as bench
    from fastgan_engine.screen import open_screen

    def configure(source: Path, variant: str) -> "Config":
        own = {"data.path": str(source.expanduser().absolute())} | paper.VARIANTS[variant]
        return resolve(profile, flags=flags | own, sets=settings or [])

    names = bench.check_variants([name.strip() for name in variants.split(",") if name.strip()])
    plan = bench.Plan(
        sets=bench.sets_by_name(data),
        variants=names,
        configure=configure,
        out=out,
        metrics=bench.choose_metrics(metrics, count, base.loss.weights_dir, typer.echo),
        count=count,
        screen_of=lambda title: open_screen(base.log.screen, title),
        say=typer.echo,
    )
    with data_errors():
        rows = list(bench.run(plan))
    if rows:
        console = Console()
        if not console.is_terminal:
            console = Console(width=WIDE)
        console.print(table2_report.table(rows))
        for note in table2_report.notes(rows, base):
            console.print(note, highlight=False, markup=False)
        if json_file is not None:
            write_json(json_file, table2_report.as_json(rows, base))
    if len(rows) < len(plan.sets) * len(names):
        typer.echo("interrupted; the state is saved. The same command again goes on")
        raise typer.Exit(130)
