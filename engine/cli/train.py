"""``fastgan-engine train``: from a folder of images to a run."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastgan_engine.errors import UserError

if TYPE_CHECKING:
    from fastgan_engine.config import Config, Resolution
    from fastgan_engine.screen import Screen

AUTO = "auto"
RUNS = Path("runs")

Images = "Images"
Training = "Training"
Running = "Running"


def train(
    data: Annotated[Path | None, typer.Option(help="Folder or .zip of images.", rich_help_panel=Images)] = None,
    profile: Annotated[
        str | None, typer.Option(help="A card's settings (see `profiles list`), or auto for this machine's.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run (default: a new one in runs/).")] = None,
    resume: Annotated[
        str | None,
        typer.Option(help="auto: go on with the run in --out (or the newest in runs/), if any. Or a checkpoint."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings; flags win over it.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Any setting; wins over everything.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved configuration and stop.")] = False,
    im_size: Annotated[int | None, typer.Option(help="64, 128, 256, 512 or 1024.", rich_help_panel=Images)] = None,
    fit: Annotated[str | None, typer.Option(help="squash, crop or pad to a square.", rich_help_panel=Images)] = None,
    background: Annotated[
        str | None, typer.Option(help="Colour behind transparent pixels and padding.", rich_help_panel=Images)
    ] = None,
    flip: Annotated[
        bool | None, typer.Option("--flip/--no-flip", help="Mirror images at random.", rich_help_panel=Images)
    ] = None,
    strict: Annotated[
        bool | None, typer.Option("--strict", help="Stop at a bad file, do not skip it.", rich_help_panel=Images)
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Iterations in all.", rich_help_panel=Training)] = None,
    batch: Annotated[int | None, typer.Option(help="Images a step.", rich_help_panel=Training)] = None,
    micro_batch: Annotated[
        int | None, typer.Option(help="Images at once; divides the batch, saves memory.", rich_help_panel=Training)
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Adam's learning rate.", rich_help_panel=Training)] = None,
    reconstruction: Annotated[
        str | None, typer.Option(help="lpips-vgg, lpips-squeeze, l1 or none.", rich_help_panel=Training)
    ] = None,
    weights_dir: Annotated[
        Path | None, typer.Option(help="Folder with LPIPS weights, for machines offline.", rich_help_panel=Training)
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the run.", rich_help_panel=Training)] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.", rich_help_panel=Running)] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, fp32, bf16 or fp16.", rich_help_panel=Running)] = None,
    sample_every: Annotated[int | None, typer.Option(help="Steps between samples.", rich_help_panel=Running)] = None,
    checkpoint_every: Annotated[
        int | None, typer.Option(help="Steps between checkpoints.", rich_help_panel=Running)
    ] = None,
    screen: Annotated[str | None, typer.Option(help="auto, live, plain or quiet.", rich_help_panel=Running)] = None,
) -> None:
    """Train a FastGAN on your images.

    Settings not given come from the configuration of a resumed run, the profile, or the defaults. Ctrl-C saves the
    state and says how to go on.
    """
    flags = {
        "data.path": None if data is None else str(data.expanduser().absolute()),
        "data.fit": fit, "data.background": background, "data.flip": flip, "data.strict": strict,
        "model.im_size": im_size,
        "train.steps": steps, "train.batch": batch, "train.micro_batch": micro_batch, "train.lr": lr,
        "train.seed": seed,
        "loss.reconstruction": reconstruction, "loss.weights_dir": None if weights_dir is None else str(weights_dir),
        "engine.device": device, "precision.dtype": dtype,
        "log.sample_every": sample_every, "log.checkpoint_every": checkpoint_every, "log.screen": screen,
    }  # fmt: skip
    start = _find_start(out, resume)
    resolution = _resolve(start, profile, config, flags, settings or [])
    if dry_run:
        for note in resolution.notes:
            typer.echo(f"# {note}")
        typer.echo(resolution.config.to_toml(resolution.sources))
        return
    _run(start, resolution)


@dataclass(frozen=True)
class _Start:
    """Where a run writes, and the checkpoint it goes on from, if any."""

    folder: Path
    checkpoint: Path | None


def _find_start(out: Path | None, resume: str | None) -> _Start:
    from fastgan_engine.run_folder import RunFolder

    if resume not in (None, AUTO):
        checkpoint = Path(str(resume))
        if checkpoint.is_dir():
            return _Start(checkpoint, _latest(checkpoint))
        if not checkpoint.is_file():
            raise UserError(f"--resume: {checkpoint} does not exist; give a checkpoint file, a run's folder, or auto")
        return _Start(out or checkpoint.absolute().parent.parent, checkpoint)
    folder = out or (_newest_run() if resume == AUTO else None) or _new_run()
    checkpoint_found = RunFolder(folder).latest_checkpoint()
    if resume is None and checkpoint_found is not None:
        raise UserError(
            f"--out: {folder} already holds a run (its last checkpoint: {checkpoint_found.name}); "
            f"add --resume auto to go on with it, or choose another folder"
        )
    return _Start(folder, checkpoint_found)


def _latest(folder: Path) -> Path:
    from fastgan_engine.run_folder import RunFolder

    checkpoint = RunFolder(folder).latest_checkpoint()
    if checkpoint is None:
        raise UserError(f"--resume: the folder {folder} holds no checkpoint; give another run, or leave --resume out")
    return checkpoint


def _runs() -> list[Path]:
    """Numbered runs, oldest first."""
    return sorted((p for p in RUNS.glob("[0-9]*") if p.name.isdigit()), key=lambda p: int(p.name))


def _newest_run() -> Path | None:
    return next(reversed(_runs()), None)


def _new_run() -> Path:
    last = _newest_run()
    return RUNS / f"{int(last.name) + 1 if last else 1:04d}"


def _resolve(
    start: _Start, profile: str | None, config: Path | None, flags: dict[str, Any], settings: list[str]
) -> "Resolution":
    """A resumed run takes its saved configuration in place of defaults, profile and file; flags still win."""
    from fastgan_engine.config import resolve_with_sources
    from fastgan_engine.run_folder import RunFolder

    saved = RunFolder(start.folder).config
    if start.checkpoint is not None and saved.is_file():
        if config is not None:
            raise UserError(f"--config cannot change the run in {start.folder}; use flags or --set, or a new --out")
        return resolve_with_sources(config_file=saved, flags=flags, sets=settings)
    return resolve_with_sources(profile=profile, config_file=config, flags=flags, sets=settings)


def _run(start: _Start, resolution: "Resolution") -> None:
    config = resolution.config
    if config.data.path is None:
        raise UserError(
            "no training images: give --data FOLDER (or a .zip); "
            "`fastgan-engine data demo demo/flowers` draws a small set to try"
        )
    from fastgan_engine.screen import open_screen

    screen = open_screen(config.log.screen, title=f"fastgan-engine · {start.folder}")
    for note in resolution.notes:
        screen.event(note)
    finished = _train(start, config, screen)
    latest = f"fastgan-engine sample {start.folder}"
    if finished:
        screen.event(f"done: {config.train.steps:,} steps. More images: {latest}")
        return
    screen.event(
        f"interrupted; the state is saved. Go on:  fastgan-engine train --resume auto --out {start.folder}\n"
        f"look at the images so far:  {latest}"
    )
    raise typer.Exit(130)


def _train(start: _Start, config: "Config", screen: "Screen") -> bool:
    from fastgan_engine.pipelines import DataError, prepare
    from fastgan_engine.trainer import Trainer

    data = config.data
    assert data.path is not None
    try:
        images = prepare(
            data.path,
            data.cache_dir,
            im_size=config.model.im_size,
            channels=config.model.nc,
            fit=data.fit,
            background=data.background,
            strict=data.strict,
            warn=screen.event,
        )
    except DataError as error:
        raise UserError(str(error)) from error
    trainer = Trainer(config, images, start.folder, screen=screen)
    if start.checkpoint is not None:
        trainer.resume(start.checkpoint)
        screen.event(f"resumed from {start.checkpoint}, step {trainer.state.step:,}")
    screen.event(
        f"{images.count:,} images at {config.model.im_size} x {config.model.im_size} on {trainer.device}, "
        f"{str(trainer.dtype).removeprefix('torch.')}, batch {config.train.batch}, "
        f"reconstruction {trainer.step.reconstruction.loss.kind} -> {start.folder}"
    )
    with screen:
        return trainer.train()
