"""``fastgan-engine interpolate``: a video between samples."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastgan_engine.cli.latent import shared
from fastgan_engine.cli.outcome import progress_bar, refuse_to_overwrite, warn, writing
from fastgan_engine.cli.sample import Force, Source
from fastgan_engine.errors import UserError
from fastgan_engine.latent import defaults

if TYPE_CHECKING:
    from fastgan_engine.latent.interpolation import Interpolation

GRID = re.compile(r"([1-9]\d?)x([1-9]\d?)")


def interpolate(
    source: Source,
    latents: Annotated[
        str | None,
        typer.Option("--latents", "--seeds", help=f"What to go through: {shared.NAMES}.", show_default="--keyframes"),
    ] = None,
    keyframes: Annotated[int, typer.Option(min=2, help="In place of a list: that many images of --seed.")] = 6,
    seed: Annotated[int, typer.Option(min=0, help="Seed of --keyframes.")] = 0,
    frames: Annotated[int, typer.Option(min=1, help="Frames from one image to the next.")] = defaults.FRAMES,
    fps: Annotated[float, typer.Option(min=1, max=120, help="Frames a second.")] = defaults.FPS,
    loop: Annotated[bool, typer.Option("--loop", help="Go back to the first image, to be played for ever.")] = False,
    easing: Annotated[defaults.Easing, typer.Option(help="Rest at each image, or one speed.")] = defaults.EASING,
    truncation: shared.Truncation = 1.0,
    grid: Annotated[
        str, typer.Option(metavar="RxC", help="Rows x columns of cells, each on a way of its own; a list is dealt out.")
    ] = "1x1",
    out: Annotated[
        Path | None,
        typer.Option(help="A .mp4, a .gif, or a folder for a PNG each.", show_default="an .mp4 named after the source"),
    ] = None,
    chunk: shared.Chunk = 8,
    device: shared.Device = "auto",
    force: Force = False,
) -> None:
    """Make a video that turns samples into each other.

    The way between two latents is an arc (slerp), so that what lies between is as likely as they are. The noise of the
    first image is kept throughout, so that nothing flickers.
    """
    out = out or shared.default_out(source, "interpolation", ".mp4")
    rows, columns = _parse_grid(grid)
    refuse_to_overwrite(out, force)
    run = shared.open_run(source, device)
    from fastgan_engine.latent.interpolation import interpolate as frames_between
    from fastgan_engine.latent.latents import draw, read_latents
    from fastgan_engine.latent.video import check_target

    check_target(out)
    if latents is not None:
        through = read_latents(run.generator, latents)
    else:
        through = draw(run.generator, seed, range(keyframes * rows * columns))
    video = frames_between(
        run.generator, through, frames=frames, loop=loop, easing=easing, truncation=truncation,
        rows=rows, columns=columns, chunk=chunk, warn=warn,
    )  # fmt: skip
    with writing(out):
        _write(out, video, fps)
    typer.echo(
        f"{video.count} frames of {video.width} x {video.height} through {len(through)} latents of {run.source}: {out} "
        f"({_length(out, video.count, fps)})"
    )


def _parse_grid(text: str) -> tuple[int, int]:
    match = GRID.fullmatch(text.lower())
    if not match:
        raise UserError(f"--grid: got {text!r}, expected rows x columns such as 2x3, 99x99 at most")
    return int(match[1]), int(match[2])


def _write(out: Path, video: "Interpolation", fps: float) -> None:
    from fastgan_engine.latent.video import open_video

    with progress_bar("rendering") as progress, open_video(out, fps) as write:
        for done, frame in enumerate(video, start=1):
            write(frame)
            progress(done, video.count)


def _length(out: Path, count: int, fps: float) -> str:
    """Seconds, rate and size of what was written."""
    from fastgan_engine.latent.video import gif_duration

    if out.is_dir():
        return f"000000.png to {count - 1:06d}.png"
    if out.suffix.lower() == ".gif":
        fps = 100 / gif_duration(fps)
    return f"{count / fps:.1f} s at {fps:.4g} frames/s, {out.stat().st_size / 2**20:.1f} MiB"
