"""``fastgan-engine sample``: images from a run, a snapshot or a released checkpoint."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastgan_engine.cli.latent import shared
from fastgan_engine.cli.outcome import refuse_to_overwrite, warn, writing
from fastgan_engine.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from fastgan_engine.api import Run

GRID_PIXELS = 2**28  # about what Pillow still opens without a warning

Source = Annotated[
    Path, typer.Argument(metavar="RUN|FILE", help="Folder of a run, a snapshot (.safetensors) or a released .pth.")
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite what is there.")]


def sample(
    source: Source,
    count: Annotated[int, typer.Option(min=1, help="Number of images.")] = 16,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, other images.")] = 0,
    latents: Annotated[
        str | None,
        typer.Option(help=f"In place of --count and --seed: {shared.NAMES}.", show_default="--count of --seed"),
    ] = None,
    truncation: shared.Truncation = 1.0,
    out: Annotated[
        Path | None,
        typer.Option(help="A .png for a grid, a folder for files.", show_default="named after the source, here"),
    ] = None,
    grid: Annotated[bool, typer.Option("--grid/--files", help="One picture of all, or a PNG each.")] = True,
    chunk: shared.Chunk = 8,
    device: shared.Device = "auto",
    force: Force = False,
) -> None:
    """Make images with the averaged generator.

    Image i of a seed is always the same, whatever the count and the chunk. SEED:INDEX names it to other commands.
    """
    out = out or _default_out(source, f"seed-{seed}" if latents is None else "latents", truncation, grid)
    if grid and out.suffix.lower() != ".png":
        raise UserError(f"--out: a grid is written as .png, got {out}; for a PNG each, add --files")
    refuse_to_overwrite(out, force)
    run = shared.open_run(source, device)
    count, batches = _batches(run, count, seed, latents, truncation, chunk)
    size = run.generator.im_size
    if grid and count * size**2 > GRID_PIXELS:
        raise UserError(
            f"--count: {count:,} images of {size} x {size} are too many for one picture "
            f"(at most {GRID_PIXELS // size**2:,}); add --files"
        )
    with writing(out):
        written = _write_grid(out, batches, count) if grid else _write_files(out, batches, count)
    what = f"seed {seed}" if latents is None else f"latents {latents}"
    step = "" if run.step is None else f", step {run.step:,}"
    typer.echo(f"{count} image(s) of {size} x {size} from {run.source}{step}, {what}: {written}")


def _batches(
    run: "Run", count: int, seed: int, latents: str | None, truncation: float, chunk: int
) -> "tuple[int, Iterator[Tensor]]":
    """How many images, and they: of the latents that are named, or else of the seed."""
    from fastgan_engine.latent.latents import read_latents
    from fastgan_engine.latent.rendering import render
    from fastgan_engine.sampling import sample as sample_images

    if latents is None:
        return count, sample_images(run.generator, count, seed=seed, truncation=truncation, chunk=chunk, warn=warn)
    chosen = read_latents(run.generator, latents).scaled(truncation)
    return len(chosen), render(run.generator, chosen, chunk=chunk, warn=warn)


def _default_out(source: Path, what: str, truncation: float, grid: bool) -> Path:
    name = source.absolute().name if source.is_dir() else source.stem
    name += f"-{what}" + (f"-truncation-{truncation:g}" if truncation != 1 else "")
    return Path(f"{name}.png" if grid else name)


def _write_grid(out: Path, batches: "Iterator[Tensor]", count: int) -> Path:
    import torch

    from fastgan_engine.images import save_grid

    save_grid(out, torch.cat(list(_shown(batches, count))))
    return out


def _write_files(out: Path, batches: "Iterator[Tensor]", count: int) -> str:
    from fastgan_engine.images import numbered_images

    with numbered_images(out) as write:
        for batch in _shown(batches, count):
            for image in batch:
                write(image)
    return f"{out}/000000.png to {count - 1:06d}.png"


def _shown(batches: "Iterator[Tensor]", count: int) -> "Iterator[Tensor]":
    """The batches, with a bar on the terminal's error stream; nothing where there is no terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("sampling", total=count)
        for batch in batches:
            yield batch
            bar.advance(task, len(batch))
