"""``fastgan-engine single train``: from one image to a run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastgan_engine.errors import UserError

if TYPE_CHECKING:
    from fastgan_engine.config import Resolution
    from fastgan_engine.config.single import SingleConfig

RUNS = Path("runs")
AUTO = "auto"

Training = "Training"
Running = "Running"


def train(
    image: Annotated[Path, typer.Argument(help="The training image, of any size and mode.")],
    mode: Annotated[str | None, typer.Option(help="generate, retarget, animate, harmonize or edit.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run.", show_default="runs/, named after image and mode")
    ] = None,
    resume: Annotated[str | None, typer.Option(help="auto: go on with the run in --out, if there is one.")] = None,
    profile: Annotated[str | None, typer.Option(help="A card's settings (see `profiles list`), or auto.")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings; flags win over it.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Any setting; wins over everything.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved configuration and stop.")] = False,
    stages: Annotated[
        int | None, typer.Option(help="Stages: 6, or 3 to harmonize or edit.", rich_help_panel=Training)
    ] = None,
    train_depth: Annotated[int | None, typer.Option(help="Stages trained together.", rich_help_panel=Training)] = None,
    lr_scale: Annotated[
        float | None, typer.Option(help="Learning rate from stage to stage, downwards.", rich_help_panel=Training)
    ] = None,
    max_size: Annotated[int | None, typer.Option(help="Longest side, pixels.", rich_help_panel=Training)] = None,
    iterations: Annotated[int | None, typer.Option(help="Iterations a stage.", rich_help_panel=Training)] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the run.", rich_help_panel=Training)] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.", rich_help_panel=Running)] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, fp32 or bf16.", rich_help_panel=Running)] = None,
    sample_every: Annotated[int | None, typer.Option(help="Steps between samples.", rich_help_panel=Running)] = None,
    checkpoint_every: Annotated[
        int | None, typer.Option(help="Steps between checkpoints.", rich_help_panel=Running)
    ] = None,
    screen: Annotated[str | None, typer.Option(help="auto, live, plain or quiet.", rich_help_panel=Running)] = None,
) -> None:
    """Train a generator on one image.

    What it is trained for is --mode. Ctrl-C saves the state and says how to go on.
    """
    flags = {
        "single.image": str(image.expanduser().absolute()), "single.mode": mode, "single.stages": stages,
        "single.train_depth": train_depth, "single.lr_scale": lr_scale, "single.max_size": max_size,
        "single.iterations": iterations, "single.seed": seed,
        "engine.device": device, "precision.dtype": dtype,
        "log.sample_every": sample_every, "log.checkpoint_every": checkpoint_every, "log.screen": screen,
    }  # fmt: skip
    folder = out or RUNS / f"{image.stem}-{mode or 'generate'}"
    checkpoint = _checkpoint(folder, resume)
    resolution = _resolve(folder, checkpoint, profile, config, flags, settings or [])
    if dry_run:
        typer.echo(resolution.config.to_toml(resolution.sources), nl=False)
        return
    _train(folder, checkpoint, resolution)


def _checkpoint(folder: Path, resume: str | None) -> Path | None:
    """What to go on from."""
    from fastgan_engine.run_folder import RunFolder

    if resume not in (None, AUTO):
        raise UserError(f"--resume: got {resume}, expected auto; the run to go on with is named by --out")
    latest = RunFolder(folder).latest_checkpoint()
    if latest is not None and resume is None:
        raise UserError(
            f"--out: {folder} already holds a run (its last checkpoint: {latest.name}); "
            f"add --resume auto to go on with it, or choose another folder"
        )
    return latest


def _resolve(
    folder: Path,
    checkpoint: Path | None,
    profile: str | None,
    config: Path | None,
    flags: dict[str, Any],
    settings: list[str],
) -> "Resolution[SingleConfig]":
    """A resumed run takes its saved configuration in place of defaults, profile and file; flags still win."""
    from fastgan_engine.config import resolve_as
    from fastgan_engine.config.single import SingleConfig
    from fastgan_engine.run_folder import RunFolder

    if checkpoint is None:
        return resolve_as(SingleConfig, profile, config, flags, settings)
    if config is not None:
        raise UserError(f"--config cannot change the run in {folder}; use flags or --set, or a new --out")
    return resolve_as(SingleConfig, None, RunFolder(folder).config, flags, settings)


def _train(folder: Path, checkpoint: Path | None, resolution: "Resolution[SingleConfig]") -> None:
    from fastgan_engine.screen import open_screen
    from fastgan_engine.single.pyramid import load_image
    from fastgan_engine.single.trainer import SingleTrainer

    config = resolution.config
    assert config.single.image is not None, "the argument gave it"
    image = load_image(config.single.image, largest=config.single.max_size, background=config.single.background)
    screen = open_screen(config.log.screen, title=f"fastgan-engine single · {folder}")
    for note in resolution.notes:
        screen.event(note)
    trainer = SingleTrainer(config, image, folder, screen=screen)
    if checkpoint is not None:
        trainer.resume(checkpoint)
        screen.event(f"resumed from {checkpoint}, step {trainer.state.step:,}")
    screen.event(
        f"{config.single.image.name} at {image.width} x {image.height}, for {config.single.mode}, on {trainer.device}, "
        f"{str(trainer.dtype).removeprefix('torch.')}, {config.single.stage_count} stages of "
        f"{config.single.iterations:,} iterations -> {folder}"
    )
    with screen:
        finished = trainer.train()
    quoted = f'"{folder}"' if " " in str(folder) else str(folder)
    if finished:
        screen.event(
            f"done: {trainer.state.step:,} steps. Use it:  fastgan-engine single {config.single.mode} {quoted}"
        )
        return
    screen.event(
        f"interrupted; the state is saved. Go on:  "
        f"fastgan-engine single train {config.single.image} --resume auto --out {quoted}"
    )
    raise typer.Exit(130)
