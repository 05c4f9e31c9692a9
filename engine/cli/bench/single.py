"""``fastgan-engine bench single``."""

from pathlib import Path
from typing import Annotated

import typer

from fastgan_engine.cli.bench.options import Device, JsonFile, Settings, write_json
from fastgan_engine.errors import UserError

ITERATIONS = 3


def single(
    image: Annotated[Path | None, typer.Argument(help="The image; without one, a flower is drawn.")] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Also time the plain loop, which computes everything anew.")
    ] = False,
    mode: Annotated[str | None, typer.Option(help="generate, retarget, animate, harmonize or edit.")] = None,
    max_size: Annotated[int | None, typer.Option(help="Longest side, pixels.")] = None,
    iterations: Annotated[int, typer.Option(min=1, help="Timed iterations of each at each stage.")] = ITERATIONS,
    card: Annotated[
        str | None, typer.Option(help="A profile, such as rtx2070: also model its time at the card's limit.")
    ] = None,
    device: Device = None,
    settings: Settings = None,
    json_file: JsonFile = None,
) -> None:
    """Time training on one image, stage by stage, and count its work.

    With --compare both contenders start each stage from the same weights with the same random numbers; the command
    fails if their images do not agree.
    """
    from fastgan_engine import profiles
    from fastgan_engine.config import resolve_as
    from fastgan_engine.config.single import SingleConfig

    flags = {"single.mode": mode, "single.max_size": max_size, "engine.device": device}
    config = resolve_as(SingleConfig, flags=flags, sets=settings or []).config
    if card is not None and (card not in profiles.names() or profiles.card(card) is None):
        cards = [name for name in profiles.names() if profiles.card(name) is not None]
        raise UserError(f"--card: got {card}, expected one of {', '.join(cards)}")
    from fastgan_engine.bench import single as bench
    from fastgan_engine.bench import single_report

    timings = bench.measure(config, bench.open_image(config.single, image), iterations=iterations, plain=compare)
    single_report.show(config, timings, card)
    if json_file is not None:
        write_json(json_file, single_report.as_json(config, timings, card))
