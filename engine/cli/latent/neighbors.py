"""``fastgan-engine neighbors``: the memorisation check."""

import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastgan_engine.cli.latent import shared
from fastgan_engine.cli.outcome import data_errors, progress_bar, refuse_to_overwrite, warn, writing
from fastgan_engine.cli.sample import Force, Source
from fastgan_engine.latent import defaults

if TYPE_CHECKING:
    from fastgan_engine.latent.images import Images
    from fastgan_engine.latent.neighbors import Neighbors


def neighbors(
    source: Source,
    count: Annotated[int, typer.Option(min=1, max=256, help="Samples to look at.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, other samples.")] = 0,
    truncation: shared.Truncation = 1.0,
    k: Annotated[int, typer.Option("--k", min=1, max=32, help="Neighbours of each.")] = defaults.NEIGHBORS,
    data: Annotated[
        Path | None, typer.Option(help="The training images.", show_default="those the run was trained on")
    ] = None,
    metric: shared.Metric = defaults.METRIC,
    weights_dir: shared.WeightsDir = None,
    out: Annotated[Path | None, typer.Option(help="The .png.", show_default="named after the source, here")] = None,
    chunk: shared.Chunk = 8,
    device: shared.Device = "auto",
    force: Force = False,
) -> None:
    """Find the training images nearest to samples: does the generator repeat them?

    Distances mean little by themselves. The yardstick is how far training images are from each other: a sample that is
    much nearer to one than they are to each other is a copy.
    """
    out = out or shared.default_out(source, "neighbors", ".png")
    shared.expect_png(out)
    refuse_to_overwrite(out, force)
    run = shared.open_run(source, device)
    import torch

    from fastgan_engine.images import save_image
    from fastgan_engine.latent.images import training_images
    from fastgan_engine.latent.neighbors import neighbors as find
    from fastgan_engine.latent.pictures import neighbors_picture
    from fastgan_engine.sampling import device_of, sample

    with data_errors(), progress_bar("preparing") as progress:
        images = training_images(run, data, warn=warn, progress=progress)
    measure = shared.open_metric(metric, run, weights_dir, size=defaults.NEIGHBOR_SIZES[metric])
    samples = torch.cat(list(sample(run.generator, count, seed=seed, truncation=truncation, chunk=chunk, warn=warn)))
    with progress_bar("comparing") as progress:
        found = find(
            samples, images, measure, k=k, chunk=chunk, device=device_of(run.generator), warn=warn, progress=progress
        )
    with writing(out):
        save_image(out, neighbors_picture(samples, images, found))
    _tell(found, images, measure.words)
    typer.echo(f"{count} sample(s) of {run.source}, seed {seed}: {out}")


def _tell(found: "Neighbors", images: "Images", metric: str) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    typer.echo(f"nearest of {len(images.names)} training images, by {metric}:")
    table = Table(box=box.SIMPLE)
    for heading in ("sample", "distance"):
        table.add_column(heading, justify="right")
    table.add_column("training image")
    for index, row in enumerate(found.nearest):
        name = Text(images.names[row[0].index] + (" (mirrored)" if row[0].mirrored else ""))
        table.add_row(str(index), f"{row[0].distance:.3f}", name)
    Console().print(table)
    typer.echo(f"samples to their nearest training image:       {_spread(found.distances)}")
    if not found.yardstick:
        return
    typer.echo(f"training images to their nearest other image:  {_spread(found.yardstick)}")
    if found.suspects:
        numbers = ", ".join(map(str, found.suspects))
        typer.echo(f"nearer to a training image than those are to each other, maybe copies: sample(s) {numbers}")
    else:
        typer.echo("no sample is nearer to a training image than those are to each other")


def _spread(distances: list[float]) -> str:
    return f"median {statistics.median(distances):.3f}, least {min(distances):.3f} ({len(distances)} looked at)"
