"""``fastgan-engine bench data``."""

from pathlib import Path
from typing import Annotated

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
from fastgan_engine.cli.images import images_for
from fastgan_engine.cli.outcome import waiting
from fastgan_engine.errors import UserError

STEP_ITERATIONS = 3


def data(
    images: Annotated[
        Path | None, typer.Option("--data", help="Folder or .zip of images; if not given, a drawn set.")
    ] = None,
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
    wait is the time to a batch on the device, with a step's time between two; the goal is under 1 % of the step.
    """
    from fastgan_engine.config import resolve

    flags = {"train.batch": batch, "engine.device": device}
    configs = [resolve(flags=flags | {"model.im_size": size}, sets=settings or []) for size in parse_sizes(im_size)]
    from fastgan_engine.bench import data as bench
    from fastgan_engine.bench import data_report, plots
    from fastgan_engine.bench.throughput import engine_step_ms

    if plot_file is not None:
        plots.require_matplotlib()
    wanted = [mode.strip() for mode in modes.split(",") if mode.strip()]
    for mode in wanted:
        if mode not in bench.MODES:
            raise UserError(f"--modes: cannot measure {mode!r}; known are {', '.join(bench.MODES)}")
    done = []
    for config in configs:
        with images_for(config, images) as prepared, waiting(f"measuring at {config.model.im_size}"):
            step = step_ms or engine_step_ms(config, STEP_ITERATIONS)
            found = [bench.deliver(config, prepared, mode, step) for mode in wanted]
        done.append(bench.Deliveries(config, prepared.packing, step, step_ms is None, found))
        data_report.show(done[-1])
    if json_file is not None:
        values = [data_report.as_json(found) for found in done]
        write_json(json_file, values[0] if len(values) == 1 else values)
    if plot_file is not None:
        data_report.plot(done, plot_file)
        typer.echo(f"wrote {plot_file}")
