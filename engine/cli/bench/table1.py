"""``fastgan-engine bench table1``."""

from typing import Annotated

import typer

from fastgan_engine.cli.bench.options import (
    Batch,
    Device,
    Dtype,
    ImSizes,
    JsonFile,
    PlotFile,
    Settings,
    parse_sizes,
    write_json,
)
from fastgan_engine.errors import UserError

ITERATIONS = 5
SIZES = ["256,1024"]


def table1(
    compare: Annotated[str, typer.Option(help="Comma list of reference, compile, engine.")] = "engine",
    im_size: ImSizes = SIZES,
    batch: Batch = None,
    iterations: Annotated[int, typer.Option(min=1, help="Timed iterations of each model.")] = ITERATIONS,
    device: Device = None,
    dtype: Dtype = None,
    settings: Settings = None,
    json_file: JsonFile = None,
    plot_file: PlotFile = None,
) -> None:
    """The paper's table 1 on this machine: hours for 10k iterations, memory and parameters, beside its own figures.

    Of the baseline (no skip-layer excitation, no decoders) and of the full model. The hours are extrapolated from a
    few iterations. The JSON of one size is one object, of several a list of them.
    """
    from fastgan_engine.config import resolve

    flags = {"train.batch": batch, "engine.device": device, "precision.dtype": dtype}
    names = [name.strip() for name in compare.split(",") if name.strip()]
    from fastgan_engine.bench import paper, plots, table1_report
    from fastgan_engine.bench.contenders import CONTENDERS
    from fastgan_engine.bench.table1 import measure

    for name in names:
        if name not in CONTENDERS:
            raise UserError(f"--compare: cannot compare {name!r}; known are {', '.join(CONTENDERS)}")
    if plot_file is not None:
        plots.require_matplotlib()
    configs = [
        {
            variant: resolve(flags=flags | {"model.im_size": size} | paper.VARIANTS[variant], sets=settings or [])
            for variant in (paper.BASELINE, paper.FULL)
        }
        for size in parse_sizes(im_size)
    ]
    done = []
    for variants in configs:
        done.append([measure(name, config, names, iterations=iterations) for name, config in variants.items()])
        table1_report.show(done[-1])
    if json_file is not None:
        values = [table1_report.as_json(models) for models in done]
        write_json(json_file, values[0] if len(values) == 1 else values)
    if plot_file is not None:
        table1_report.plot(done, plot_file)
        typer.echo(f"wrote {plot_file}")
