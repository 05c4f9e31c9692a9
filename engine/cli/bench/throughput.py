"""``fastgan-engine bench throughput``."""

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


def throughput(
    compare: Annotated[str, typer.Option(help="Comma list of reference, compile, engine.")] = "reference,engine",
    im_size: ImSizes = None,
    batch: Batch = None,
    iterations: Annotated[int, typer.Option(min=1, help="Timed iterations of each.")] = ITERATIONS,
    reconstruction: Annotated[str | None, typer.Option(help="lpips-vgg, lpips-squeeze, l1 or none.")] = None,
    device: Device = None,
    dtype: Dtype = None,
    settings: Settings = None,
    roofline: Annotated[
        bool, typer.Option("--roofline", help="Also count the work and measure what the machine allows; a minute more.")
    ] = False,
    json_file: JsonFile = None,
    plot_file: PlotFile = None,
) -> None:
    """Time one training iteration of each contender, in turns, in one process.

    All do the same work from the same weights. The reference is the released recipe in fp32, as plain PyTorch runs
    it; compile is the reference under AMP, channels-last and torch.compile. LPIPS has random weights here, which take
    the same time. The JSON of one size is one object, of several a list of them.
    """
    from fastgan_engine.config import resolve

    sizes = parse_sizes(im_size)
    flags = {
        "train.batch": batch, "loss.reconstruction": reconstruction,
        "engine.device": device, "precision.dtype": dtype,
    }  # fmt: skip
    configs = [resolve(flags=flags | {"model.im_size": size}, sets=settings or []) for size in sizes]
    from fastgan_engine.bench import plots, throughput_report
    from fastgan_engine.bench import throughput as bench

    if plot_file is not None:
        plots.require_matplotlib()
    contenders = [name.strip() for name in compare.split(",") if name.strip()]
    for name in contenders:
        if name not in bench.CONTENDERS:
            raise UserError(f"--compare: cannot compare {name!r}; known are {', '.join(bench.CONTENDERS)}")
    done = []
    for config in configs:
        timings = bench.compare(config, contenders, iterations=iterations)
        limits = throughput_report.find_limits(config, contenders) if roofline else {}
        done.append(throughput_report.Comparison(config, timings, limits))
        throughput_report.show(done[-1])
    if json_file is not None:
        values = [throughput_report.as_json(comparison) for comparison in done]
        write_json(json_file, values[0] if len(values) == 1 else values)
    if plot_file is not None:
        throughput_report.plot(done, plot_file)
        typer.echo(f"wrote {plot_file}")
