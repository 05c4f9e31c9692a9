"""``fastgan-engine bench vram``."""

from typing import Annotated

import typer

from fastgan_engine.cli.bench.options import Batch, ImSizes, JsonFile, PlotFile, Settings, parse_sizes, write_json
from fastgan_engine.errors import UserError

CONTENDERS = ("reference", "compile", "engine")
IMAGES = 100


def vram(
    compare: Annotated[str, typer.Option(help="Comma list of reference, compile, engine.")] = ",".join(CONTENDERS),
    profile: Annotated[str | None, typer.Option(help="The card to plan for; its settings are the engine's.")] = None,
    im_size: ImSizes = None,
    batch: Batch = None,
    settings: Settings = None,
    json_file: JsonFile = None,
    plot_file: PlotFile = None,
) -> None:
    """Compare planned and measured memory of one iteration, phase by phase, and draw its timeline.

    Without a GPU the plan alone is shown. The reference is the released recipe in fp32; compile is the same under AMP
    and torch.compile, planned without what compiling fuses. The JSON of one size is one object, of several a list of
    them; the plot is of the last size.
    """
    from rich.console import Console

    from fastgan_engine import profiles
    from fastgan_engine.config import resolve

    names = [name.strip() for name in compare.split(",") if name.strip()]
    for name in names:
        if name not in CONTENDERS:
            raise UserError(f"--compare: cannot compare {name!r}; known are {', '.join(CONTENDERS)}")
    flags = {"train.batch": batch}
    configs = [
        resolve(profile, flags=flags | {"model.im_size": size}, sets=settings or []) for size in parse_sizes(im_size)
    ]
    from fastgan_engine.bench import plots, vram_report
    from fastgan_engine.bench.vram import measure_contender, plan_contender
    from fastgan_engine.hardware import detect, pick_device, pick_dtype

    if plot_file is not None:
        plots.require_matplotlib()
    card = profiles.card(profile) if profile else None
    gpu = any(found.cuda_index is not None for found in detect().gpus)
    console, done = Console(), []
    if not gpu:
        console.print(vram_report.NOTHING_MEASURED, style="bold")
    for config in configs:
        contenders = {}
        for name in names:
            measured = None
            if gpu:
                device = pick_device("auto" if config.engine.device == "cpu" else config.engine.device)
                measured = measure_contender(name, config, device, pick_dtype(config.precision.dtype, device))
            planned = plan_contender(name, config, images=IMAGES, card=card)
            contenders[name] = vram_report.Contender(planned, measured)
        vram_report.show(console, config, contenders)
        done.append((config, contenders))
    if json_file is not None:
        values = [vram_report.values(config, contenders) for config, contenders in done]
        write_json(json_file, values[0] if len(values) == 1 else values)
    if plot_file is not None:
        config, contenders = done[-1]
        title = f"memory of one iteration, {config.model.im_size} x {config.model.im_size}, batch {config.train.batch}"
        vram_report.plot(plot_file, title if gpu else f"{title} (planned, nothing measured)", contenders)
        typer.echo(f"wrote {plot_file}")
