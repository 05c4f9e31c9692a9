"""``fastgan-engine bench data``."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastgan_engine.cli.bench.options import (
    Batch,
    Device,
    ImSizes,
    JsonFile,
    PlotFile,
    Settings,
    parse_sizes,
    write_json,
)
from fastgan_engine.cli.outcome import data_errors, progress_bar, waiting, warn
from fastgan_engine.errors import UserError

if TYPE_CHECKING:
    from fastgan_engine.config import Config
    from fastgan_engine.pipelines import PreparedSet

DEMO_COUNT = 32


def data(
    images: Annotated[Path | None, typer.Option("--data", help="Folder or .zip of images; a drawn set.")] = None,
    im_size: ImSizes = None,
    batch: Batch = None,
    modes: Annotated[
        str, typer.Option(help="Comma list of resident, host, dali, pillow.")
    ] = "resident,host,dali,pillow",
    step_ms: Annotated[
        float | None, typer.Option(min=0.001, help="Time of the step to feed, ms; measured here if not given.")
    ] = None,
    device: Device = None,
    settings: Settings = None,
    json_file: JsonFile = None,
    plot_file: PlotFile = None,
) -> None:
    """Measure how fast each way to the images is, and how long a step waits for its batch.

    resident: the decoded set on the device. host: decoded in host memory. dali, pillow: decoded for every batch. The
    wait is the host's time in fetching a batch, with a step's time between two; the goal is under 1 % of the step.
    """
    from fastgan_engine.config import resolve

    flags = {"train.batch": batch, "engine.device": device}
    configs = [resolve(flags=flags | {"model.im_size": size}, sets=settings or []) for size in parse_sizes(im_size)]
    from fastgan_engine.bench import data as bench
    from fastgan_engine.bench import data_report, plots

    if plot_file is not None:
        plots.require_matplotlib()
    wanted = [mode.strip() for mode in modes.split(",") if mode.strip()]
    for mode in wanted:
        if mode not in bench.MODES:
            raise UserError(f"--modes: cannot measure {mode!r}; known are {', '.join(bench.MODES)}")
    done = []
    for config in configs:
        with _images(config, images) as prepared, waiting(f"measuring at {config.model.im_size}"):
            step = step_ms or bench.measure_step(config)
            found = [bench.deliver(config, prepared, mode, step) for mode in wanted]
        done.append(bench.Deliveries(config, step, step_ms is None, found))
        data_report.show(done[-1])
    if json_file is not None:
        values = [data_report.as_json(found) for found in done]
        write_json(json_file, values[0] if len(values) == 1 else values)
    if plot_file is not None:
        data_report.plot(done, plot_file)
        typer.echo(f"wrote {plot_file}")


@contextmanager
def _images(config: "Config", source: Path | None) -> "Iterator[PreparedSet]":
    """The prepared set of ``source``; where there is none, of flowers drawn at the training size."""
    from fastgan_engine.pipelines import draw_demo, prepare

    with tempfile.TemporaryDirectory() as folder, data_errors():
        cache = config.data.cache_dir
        if source is None:
            source, cache = Path(folder, "flowers"), Path(folder, "cache")
            with progress_bar("drawing") as progress:
                draw_demo(source, count=DEMO_COUNT, size=config.model.im_size, progress=progress)
        with progress_bar("preparing") as progress:
            prepared = prepare(
                source, cache, im_size=config.model.im_size, channels=config.model.nc, fit=config.data.fit,
                background=config.data.background, warn=warn, progress=progress,
            )  # fmt: skip
        yield prepared
