"""``fastgan-engine invert``: the latent of a given image, and the paper's protocol over a folder."""

import json
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastgan_engine.cli.latent import shared
from fastgan_engine.cli.outcome import data_errors, progress_bar, refuse_to_overwrite, warn, writing
from fastgan_engine.cli.sample import Force, Source
from fastgan_engine.latent import defaults

if TYPE_CHECKING:
    from fastgan_engine.latent.inversion import Attempts

LISTED = 20  # images named one by one in the terminal; the JSON has all
SHOWN = 16  # rows of the picture


def invert(
    source: Source,
    image: Annotated[Path, typer.Argument(metavar="IMAGE|FOLDER", help="An image, or a folder or .zip of images.")],
    steps: Annotated[int, typer.Option(min=1, help="Steps of Adam.")] = defaults.STEPS,
    lr: Annotated[float, typer.Option(help="Learning rate at the start.")] = defaults.LR,
    restarts: Annotated[
        int, typer.Option(min=1, help="Attempts from different latents; the best is kept.")
    ] = defaults.RESTARTS,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, other attempts.")] = 0,
    metric: shared.Metric = defaults.METRIC,
    weights_dir: shared.WeightsDir = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The .png; latents and figures go beside it.", show_default="named after both, here"),
    ] = None,
    chunk: shared.Chunk = 8,
    device: shared.Device = "auto",
    force: Force = False,
) -> None:
    """Find the latent whose image is nearest to a given image (back-tracking).

    Writes a picture (target, start, result), the latents (.safetensors, for interpolate and mix) and the distances
    (.json). Over a folder of images that were not trained on, the mean distance tells how much of their kind the
    generator has learnt (the paper's protocol).
    """
    out = out or shared.default_out(source, f"{image.stem}-inversion", ".png")
    shared.expect_png(out)
    latents_file, figures_file = out.with_suffix(".safetensors"), out.with_suffix(".json")
    for path in (out, latents_file, figures_file):
        refuse_to_overwrite(path, force)
    run = shared.open_run(source, device)
    from fastgan_engine.atomic import atomic_write
    from fastgan_engine.images import save_image
    from fastgan_engine.latent.images import open_images
    from fastgan_engine.latent.inversion import invert as search
    from fastgan_engine.latent.latents import save_latents
    from fastgan_engine.latent.pictures import inversion_picture

    with data_errors(), progress_bar("preparing") as progress:
        images = open_images(run, image, warn=warn, progress=progress)
    measure = shared.open_metric(metric, run, weights_dir, size=defaults.INVERSION_SIZES[metric])
    with progress_bar("inverting") as progress:
        found = search(
            run.generator, images, measure, steps=steps, lr=lr, restarts=restarts, seed=seed, chunk=chunk,
            warn=warn, progress=progress,
        )  # fmt: skip
    figures = _figures(images.names, found) | {
        "metric": measure.words, "steps": steps, "lr": lr, "restarts": restarts, "seed": seed, "source": str(run.source)
    }  # fmt: skip
    with writing(out):
        save_latents(latents_file, found.latents)
        with atomic_write(figures_file) as temporary:
            temporary.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
        save_image(out, inversion_picture(images, found, rows=SHOWN))
    _tell(figures)
    typer.echo(f"{out}, {latents_file}, {figures_file}")


def _figures(names: list[str], found: "Attempts") -> dict[str, Any]:
    """Distances of each image and their means, ready for JSON."""
    before, after = found.before.tolist(), found.after.tolist()
    each = [{"image": n, "before": b, "after": a} for n, b, a in zip(names, before, after, strict=True)]
    return {"before": statistics.fmean(before), "after": statistics.fmean(after), "images": each}


def _tell(figures: dict[str, Any]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    images = figures["images"]
    typer.echo(f"{figures['metric']}, before and after {figures['steps']} steps:")
    table = Table(box=box.SIMPLE, show_footer=len(images) > 1)
    table.add_column("image", footer=f"mean of {len(images)}")
    for which in ("before", "after"):
        table.add_column(which, footer=f"{figures[which]:.3f}", justify="right")
    for row in images[:LISTED]:
        table.add_row(Text(row["image"]), f"{row['before']:.3f}", f"{row['after']:.3f}")
    if len(images) > LISTED:
        table.add_row(f"and {len(images) - LISTED} more", "", "")
    Console().print(table)
