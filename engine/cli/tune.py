"""``fastgan-engine profiles tune``: measures this machine and writes a profile for it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastgan_engine.errors import UserError

if TYPE_CHECKING:
    from fastgan_engine.config import Config
    from fastgan_engine.tuning.trials import Trial
    from fastgan_engine.tuning.tune import Tuned


def tune(
    out: Annotated[Path | None, typer.Option(help="Write the profile here, as TOML.")] = None,
    base: Annotated[str, typer.Option("--profile", help="Where to start from; auto: this machine's.")] = "auto",
    im_size: Annotated[int | None, typer.Option(help="64, 128, 256, 512 or 1024; the profile's.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="At most about two minutes, in place of eight.")] = False,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Any setting to start from.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite --out.")] = False,
) -> None:
    """Measure what is fastest on this machine, and write a profile for it.

    Tried one after the other, each with its share of the time: threads (on a CPU), precision, step and kernels (on
    CUDA), the form of the up-convolutions, batch, decoding threads. What cannot be started in time is left as
    it is, and said.
    """
    from fastgan_engine.cli.images import images_for
    from fastgan_engine.cli.outcome import refuse_to_overwrite, writing
    from fastgan_engine.config import resolve_with_sources
    from fastgan_engine.hardware import choose_profile
    from fastgan_engine.tuning.trials import QUICK, THOROUGH
    from fastgan_engine.tuning.tune import Search
    from fastgan_engine.tuning.writing import to_toml

    if out is not None:
        if out.suffix != ".toml":
            raise UserError(f"--out: got {out}, expected a name that ends in .toml, as --profile takes it")
        refuse_to_overwrite(out, force)
    if base == "auto":
        base = choose_profile(device or "auto").profile
    flags = {"model.im_size": im_size, "engine.device": device}
    resolution = resolve_with_sources(base, flags=flags, sets=settings or [])
    config = resolution.config
    effort = QUICK if quick else THOROUGH
    typer.echo(f"tuning {base} at {config.model.im_size} x {config.model.im_size}, within about {effort.seconds:.0f} s")
    with images_for(config, None) as images:
        tuned = Search(config, images, effort, _tell).run()
    _print(config, tuned)
    if out is None:
        typer.echo("\nwith --out FILE.toml this is written as a profile")
        return
    given = {key: config.values()[key] for key, source in resolution.sources.items() if source in ("flag", "--set")}
    with writing(out):
        out.write_text(to_toml(base, given, tuned, _header(base, config)), encoding="utf-8")
    typer.echo(f"\nwrote {out}; use it with:  fastgan-engine train --profile {out} --data DIR")


def _tell(trial: "Trial") -> None:
    rate = "" if trial.images_per_second is None else f"{trial.images_per_second:10,.2f} images/s"
    typer.echo(f"  {trial.axis:<10} {trial.choice:<18}{rate}  {trial.note}".rstrip())


def _print(config: "Config", tuned: "Tuned") -> None:
    from rich.console import Console
    from rich.table import Table

    from fastgan_engine.bench.tables import figures_table
    from fastgan_engine.config.toml import literal

    console = Console()
    if tuned.layers:
        table = figures_table("up-convolution of", "to channels", "in a step", "direct ms", "transposed ms")
        for layer in tuned.layers:
            times = f"{layer.direct:.3g}", f"{layer.transposed:.3g}"
            table.add_row(" x ".join(map(str, layer.shape.x)), str(layer.shape.outputs), str(layer.count), *times)
        console.print()
        console.print(table)
    before = config.values()
    chosen = Table("setting", "before", "chosen", "why", box=None, pad_edge=False)
    for key, value in tuned.settings.items():
        chosen.add_row(key, literal(before[key]).strip('"'), literal(value).strip('"'), tuned.reasons.get(key, ""))
    console.print()
    console.print(chosen)


def _header(base: str, config: "Config") -> str:
    import torch

    from fastgan_engine.hardware import describe_device

    return (
        f"Tuned from {base} by `fastgan-engine profiles tune` at {config.model.im_size} x {config.model.im_size} on "
        f"{describe_device(config)}, torch {torch.__version__}. Figures are of that machine, while it did that."
    )
