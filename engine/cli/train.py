"""``fastgan-engine train``: from a folder of images to a run."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastgan_engine.errors import UserError

if TYPE_CHECKING:
    from fastgan_engine.config import Config, Resolution
    from fastgan_engine.run_folder import RunFolder
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
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the configuration, planned memory and time, and stop.")
    ] = False,
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
    eval_every: Annotated[
        int | None, typer.Option(help="Steps between evaluations (see `evaluate`).", rich_help_panel=Running)
    ] = None,
    screen: Annotated[str | None, typer.Option(help="auto, live, plain or quiet.", rich_help_panel=Running)] = None,
) -> None:
    """Train a FastGAN on your images.

    Settings not given come from the configuration of a resumed run, the profile, or the defaults. Ctrl-C saves the
    state and says how to go on.
    """
    flags = {
        "data.path": _absolute(data),
        "data.fit": fit, "data.background": background, "data.flip": flip, "data.strict": strict,
        "model.im_size": im_size,
        "train.steps": steps, "train.batch": batch, "train.micro_batch": micro_batch, "train.lr": lr,
        "train.seed": seed,
        "loss.reconstruction": reconstruction, "loss.weights_dir": _absolute(weights_dir),
        "engine.device": device, "precision.dtype": dtype,
        "log.sample_every": sample_every, "log.checkpoint_every": checkpoint_every, "log.screen": screen,
        "eval.every": eval_every,
    }  # fmt: skip
    start = _find_start(out, resume)
    resolution = _resolve(start, profile, config, flags, settings or [])
    if dry_run:
        for note in resolution.notes:
            typer.echo(f"# {note}")
        for line in _forecast(resolution.config, profile):
            typer.echo(f"# {line}")
        typer.echo(resolution.config.to_toml(resolution.sources), nl=False)
        return
    _run(start, resolution)


def _forecast(config: "Config", profile: str | None) -> list[str]:
    """Planned memory and modelled time on the profile's card; nothing where the run is not for a card."""
    from fastgan_engine import profiles

    if profile == AUTO:
        from fastgan_engine.hardware import choose_profile

        profile = choose_profile(config.engine.device).profile
    card = profiles.card(profile) if profile and config.engine.device != "cpu" else None
    if card is None or config.engine.step == "compile":
        return []
    from fastgan_engine.memory.forecast import IMAGES, forecast

    return forecast(config, card, IMAGES)


def _absolute(path: Path | None) -> str | None:
    """A run may be resumed from another working directory."""
    return None if path is None else str(path.expanduser().absolute())


@dataclass(frozen=True)
class _Start:
    """Where a run writes; the checkpoint it goes on from, and the configuration saved with it, if any."""

    folder: Path
    checkpoint: Path | None = None
    config: Path | None = None


def _find_start(out: Path | None, resume: str | None) -> _Start:
    if resume not in (None, AUTO):
        return _named_start(out, Path(str(resume)))
    folder = out or (_newest_run() if resume == AUTO else None) or _new_run()
    if resume is None:
        _refuse_run(folder, "add --resume auto to go on with it, or choose another folder")
    return _start_in(folder)


def _named_start(out: Path | None, named: Path) -> _Start:
    """From a run's folder or one of its checkpoints; written there, or as a new run to ``out``."""
    if named.is_dir():
        start = _start_in(named)
        if start.checkpoint is None:
            raise UserError(f"--resume: the folder {named} holds no checkpoint; give another, or leave it out")
    elif named.is_file():
        start = _start_at(named)
    else:
        raise UserError(f"--resume: {named} does not exist; give a checkpoint file, a run's folder, or auto")
    if out is None or out.absolute() == start.folder.absolute():
        return start
    _refuse_run(out, "choose another folder for the one that goes on from another checkpoint")
    return replace(start, folder=out)


def _start_in(folder: Path) -> _Start:
    from fastgan_engine.run_folder import RunFolder

    run = RunFolder(folder)
    return _start(run, run.latest_checkpoint())


def _start_at(checkpoint: Path) -> _Start:
    from fastgan_engine.run_folder import RunFolder

    run = RunFolder(checkpoint.absolute().parent.parent)
    if checkpoint.absolute() not in run.all_checkpoints():
        raise UserError(f"--resume: {checkpoint} lies in no run; put it back, as RUN/checkpoints/step-N.pt")
    return _start(run, checkpoint)


def _start(run: "RunFolder", checkpoint: Path | None) -> _Start:
    if run.single_image.is_file():
        raise UserError(f"{run.path} holds a run on one image; go on with it by `fastgan-engine single train`")
    return _Start(run.path, checkpoint, run.config if run.config.is_file() else None)


def _refuse_run(folder: Path, remedy: str) -> None:
    checkpoint = _start_in(folder).checkpoint
    if checkpoint is not None:
        raise UserError(f"--out: {folder} already holds a run (its last checkpoint: {checkpoint.name}); {remedy}")


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
) -> "Resolution[Config]":
    """A resumed run takes its saved configuration in place of defaults, profile and file; flags still win."""
    from fastgan_engine.config import resolve_with_sources

    if start.checkpoint is None:
        return resolve_with_sources(profile=profile, config_file=config, flags=flags, sets=settings)
    if start.config is None:
        if config is None:
            raise UserError(
                f"--resume: the run of {start.checkpoint} has no config.toml; restore it, or give one with --config"
            )
        return resolve_with_sources(config_file=config, flags=flags, sets=settings)
    if config is not None:
        raise UserError(f"--config cannot change the run in {start.folder}; use flags or --set, or a new --out")
    resolution = resolve_with_sources(config_file=start.config, flags=flags, sets=settings)
    if profile in (None, AUTO):
        return resolution
    note = f"--profile {profile} has no effect: the run goes on with the settings saved in {start.config}"
    return replace(resolution, notes=[note, *resolution.notes])


def _run(start: _Start, resolution: "Resolution[Config]") -> None:
    config = resolution.config
    if config.data.path is None:
        raise UserError(
            "no training images: give --data FOLDER (or a .zip); "
            "`fastgan-engine data demo demo/flowers` draws a small set to try"
        )
    if config.engine.expandable_segments:
        from fastgan_engine.memory.segments import use_expandable_segments

        use_expandable_segments()
    from fastgan_engine.pipelines import DataError
    from fastgan_engine.screen import open_screen

    screen = open_screen(config.log.screen, title=f"fastgan-engine · {start.folder}")
    for note in resolution.notes:
        screen.event(note)
    try:
        reached = _train(start, config, config.data.path, screen)
    except DataError as error:
        raise UserError(str(error)) from error
    quoted = f'"{start.folder}"' if " " in str(start.folder) else str(start.folder)
    latest = f"fastgan-engine sample {quoted}"
    if reached is not None:
        screen.event(f"done: {reached:,} steps. More images: {latest}")
        return
    screen.event(
        f"interrupted; the state is saved. Go on:  fastgan-engine train --resume auto --out {quoted}\n"
        f"look at the images so far:  {latest}"
    )
    raise typer.Exit(130)


def _train(start: _Start, config: "Config", source: Path, screen: "Screen") -> int | None:
    """The step at which training ended; None where it was interrupted."""
    from fastgan_engine.memory.guard import check_fits
    from fastgan_engine.pipelines import prepare
    from fastgan_engine.trainer import Trainer

    images = prepare(
        source,
        config.data.cache_dir,
        im_size=config.model.im_size,
        channels=config.model.nc,
        fit=config.data.fit,
        background=config.data.background,
        encoding=config.data.encoding,
        strict=config.data.strict,
        warn=screen.event,
    )
    if planned := check_fits(config, images.count):
        screen.event(planned)
    trainer = Trainer(config, images, start.folder, screen=screen)
    if start.checkpoint is not None:
        trainer.resume(start.checkpoint)
        screen.event(f"resumed from {start.checkpoint}, step {trainer.state.step:,}")
    screen.event(
        f"{images.count:,} images at {config.model.im_size} x {config.model.im_size} on {trainer.device}, "
        f"{str(trainer.dtype).removeprefix('torch.')}, batch {config.train.batch}, "
        f"reconstruction {trainer.loss.kind} -> {start.folder}"
    )
    with screen:
        return trainer.state.step if trainer.train() else None
