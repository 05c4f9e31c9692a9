"""``fastgan-engine bench quality``."""

from pathlib import Path
from typing import Annotated

import typer

from fastgan_engine.cli.bench.options import Batch, Device, Dtype, ImSize, JsonFile, PlotFile, Settings, write_json
from fastgan_engine.cli.images import images_for
from fastgan_engine.errors import UserError

STEPS, QUICK_STEPS, POINTS = 1_000, 40, 10
# The recipe's average, 0.999, would not have left its start in so few steps.
EMA_DECAY, QUICK_EMA_DECAY = 0.99, 0.9


def quality(
    images: Annotated[
        Path | None, typer.Option("--data", help="Folder or .zip of images; if not given, a drawn set.")
    ] = None,
    compare: Annotated[str, typer.Option(help="Comma list of reference, compile, engine.")] = "reference,engine",
    steps: Annotated[int | None, typer.Option(min=1, help="Iterations of each; 1,000, or 40 if quick.")] = None,
    im_size: ImSize = None,
    batch: Batch = None,
    device: Device = None,
    dtype: Dtype = None,
    settings: Settings = None,
    quick: Annotated[bool, typer.Option("--quick", help="Narrow networks, reconstruction l1, few steps.")] = False,
    json_file: JsonFile = None,
    plot_file: PlotFile = None,
) -> None:
    """Train the reference and the engine for a while from the same seed, and compare how near their samples get.

    The distance is the sliced Wasserstein distance of small versions of samples and images: the smaller the nearer. It
    shows a training that goes wrong, not the quality of details. The generator's average is shorter than the recipe's.
    """
    from fastgan_engine.config import resolve

    base: dict[str, object] = {"train.ema_decay": QUICK_EMA_DECAY if quick else EMA_DECAY}
    if quick:
        base |= {"model.ngf": 16, "model.ndf": 16, "loss.reconstruction": "l1"}
    flags = {
        "model.im_size": im_size, "train.batch": batch, "train.steps": steps or (QUICK_STEPS if quick else STEPS),
        "engine.device": device, "precision.dtype": dtype,
    }  # fmt: skip
    config = resolve(flags=base | flags, sets=settings or [])
    from fastgan_engine.bench import plots
    from fastgan_engine.bench.contenders import CONTENDERS
    from fastgan_engine.bench.quality import compare_quality
    from fastgan_engine.hardware import describe_device

    names = [name.strip() for name in compare.split(",") if name.strip()]
    for name in names:
        if name not in CONTENDERS:
            raise UserError(f"--compare: cannot compare {name!r}; known are {', '.join(CONTENDERS)}")
    if plot_file is not None:
        plots.require_matplotlib()
    size = config.model.im_size
    typer.echo(f"{size} x {size}, batch {config.train.batch}, {config.train.steps} steps, {describe_device(config)}")
    found: dict[str, dict[int, float]] = {name: {} for name in names}
    with images_for(config, images) as prepared:
        every = max(1, config.train.steps // POINTS)
        for name, point in compare_quality(config, prepared, names, every=every):
            found[name][point.step] = point.distance
            typer.echo(f"  {name:<10} step {point.step:>6,}   distance to the reals {point.distance:.4f}")
    if json_file is not None:
        facts = {"im_size": size, "batch": config.train.batch, "device": describe_device(config)}
        distances = {name: [{"step": s, "distance": d} for s, d in points.items()] for name, points in found.items()}
        write_json(json_file, facts | {"distances": distances})
    if plot_file is not None:
        series = {name: (list(points), list(points.values())) for name, points in found.items()}
        title = f"Samples against the reals, {size} x {size}, {describe_device(config)}"
        plots.line_plot(plot_file, title=title, unit="sliced Wasserstein distance", x_label="step", series=series)
        typer.echo(f"wrote {plot_file}")
