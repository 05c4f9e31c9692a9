"""``fastgan-engine single generate | retarget | animate | harmonize | edit``: what a trained run is used for."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastgan_engine.cli.outcome import progress_bar, refuse_to_overwrite, waiting, writing
from fastgan_engine.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL import Image
    from torch import Tensor

    from fastgan_engine.single.files import SingleRun

SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")
SHAPES = {"1x": (1, 1), "wide": (1, 2), "tall": (2, 1), "2x": (2, 2)}  # height and width, as factors

Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run of `single train`.")]
Seed = Annotated[int, typer.Option(min=0, help="Another seed, another result.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite what is there.")]
Naive = Annotated[Path, typer.Option(help="The training image with the change made by hand.")]
Mask = Annotated[Path, typer.Option(help="White where the change is, black elsewhere.")]
FineTune = Annotated[
    int, typer.Option(min=0, help="Iterations that the top stage first trains on for this change (500 is usual).")
]


def generate(
    run: Run,
    count: Annotated[int, typer.Option(min=1, help="Images of each shape.")] = 50,
    shapes: Annotated[str, typer.Option(help="Comma list of 1x, wide, tall, 2x.")] = ",".join(SHAPES),
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="A folder.", show_default="RUN/generated")] = None,
    device: Device = "auto",
    force: Force = False,
) -> None:
    """Make random variations of the image: at its size, twice as wide, twice as tall, and both."""
    names = [name.strip() for name in shapes.split(",") if name.strip()]
    for name in names:
        if name not in SHAPES:
            raise UserError(f"--shapes: got {name!r}, expected a comma list of {', '.join(SHAPES)}")
    out = out or run / "generated"
    refuse_to_overwrite(out, force)
    model = _open(run, "generate", device).model
    height, width = model.sizes[-1]
    for name in names:
        down, across = SHAPES[name]
        from fastgan_engine.single.applications import sample

        images = sample(model, count, size=(height * down, width * across), seed=seed)
        _write_all(out / name, images, count)
        typer.echo(f"{count} image(s) of {width * across} x {height * down}: {out / name}")


def retarget(
    run: Run,
    size: Annotated[str, typer.Option(metavar="WxH", help="Size of the images, pixels, such as 400x150.")],
    count: Annotated[int, typer.Option(min=1, help="Number of images.")] = 4,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="A folder.", show_default="RUN/retargeted-WxH")] = None,
    device: Device = "auto",
    force: Force = False,
) -> None:
    """Make the image anew at another size and shape, its contents rearranged rather than stretched."""
    match = SIZE.fullmatch(size.lower())
    if not match:
        raise UserError(f"--size: got {size!r}, expected width x height in pixels, such as 400x150")
    width, height = int(match[1]), int(match[2])
    out = out or run / f"retargeted-{width}x{height}"
    refuse_to_overwrite(out, force)
    model = _open(run, "retarget", device).model
    from fastgan_engine.single.applications import sample

    _write_all(out, sample(model, count, size=(height, width), seed=seed), count)
    typer.echo(f"{count} image(s) of {width} x {height}: {out}")


def animate(
    run: Run,
    first: Annotated[int, typer.Option(min=0, help="Lowest stage that moves; lower, more of it moves.")] = 1,
    beta: Annotated[float, typer.Option(min=0, max=1, help="0 restless to 1 smooth.")] = 0.9,
    frames: Annotated[int, typer.Option(min=1, help="Number of frames.")] = 100,
    fps: Annotated[float, typer.Option(min=1, max=120, help="Frames a second.")] = 10,
    seed: Seed = 0,
    out: Annotated[
        Path | None, typer.Option(help="A .gif, a .mp4, or a folder.", show_default="RUN/animation.gif")
    ] = None,
    device: Device = "auto",
    force: Force = False,
) -> None:
    """Make a clip in which the image moves: a random walk in its noise."""
    out = out or run / "animation.gif"
    refuse_to_overwrite(out, force)
    from fastgan_engine.latent.video import check_target, open_video

    check_target(out)
    model = _open(run, "animate", device).model
    from fastgan_engine.single.applications import animate as walk

    with writing(out), progress_bar("rendering") as progress, open_video(out, fps) as write:
        for done, frame in enumerate(walk(model, frames, first=first, beta=beta, seed=seed), start=1):
            write(frame)
            progress(done, frames)
    typer.echo(f"{frames} frames of {model.image.width} x {model.image.height}: {out}")


def harmonize(
    run: Run,
    naive: Naive,
    mask: Mask,
    fine_tune: FineTune = 0,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="A .png.", show_default="RUN/harmonized.png")] = None,
    device: Device = "auto",
    force: Force = False,
) -> None:
    """Make an object that was pasted on the image fit it."""
    _blend(run, "harmonize", naive, mask, fine_tune, seed, out or run / "harmonized.png", device, force)


def edit(
    run: Run,
    naive: Naive,
    mask: Mask,
    fine_tune: FineTune = 0,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="A .png.", show_default="RUN/edited.png")] = None,
    device: Device = "auto",
    force: Force = False,
) -> None:
    """Make a natural image of one in which parts were moved or copied by hand."""
    _blend(run, "edit", naive, mask, fine_tune, seed, out or run / "edited.png", device, force)


def _blend(
    run: Path, use: str, naive: Path, mask: Path, fine_tune: int, seed: int, out: Path, device: str, force: bool
) -> None:
    if out.suffix.lower() != ".png":
        raise UserError(f"--out: the image is written as .png, got {out}")
    refuse_to_overwrite(out, force)
    opened = _open(run, use, device)
    from fastgan_engine.images import save_image
    from fastgan_engine.single.applications import blend
    from fastgan_engine.single.fine_tuning import fine_tune as train_on

    composite, where = _read(opened, naive), _read(opened, mask)
    if fine_tune:
        with progress_bar("fine-tuning") as progress:
            train_on(opened, composite, fine_tune, progress)
    image, _ = blend(opened.model, composite, where, seed=seed)
    with writing(out):
        save_image(out, image)
    typer.echo(f"{image.shape[1]} x {image.shape[0]}: {out}")


def _read(run: "SingleRun", path: Path) -> "Image.Image":
    """An image brought to the size of the training image."""
    from fastgan_engine.single.pyramid import at_size, load_image

    single = run.config.single
    return at_size(load_image(path, largest=single.max_size, background=single.background), run.model.sizes[-1])


def _open(run: Path, use: str, device: str) -> "SingleRun":
    with waiting("loading"):
        from fastgan_engine.config import resolve
        from fastgan_engine.hardware import pick_device
        from fastgan_engine.single.files import load_single

        setting = resolve(flags={"engine.device": device}).engine.device  # checks it
        return load_single(run, use, pick_device(setting))


def _write_all(folder: Path, images: "Iterator[Tensor]", count: int) -> None:
    from fastgan_engine.images import save_image

    with writing(folder), progress_bar("sampling") as progress:
        for index, image in enumerate(images):
            save_image(folder / f"{index:06d}.png", image)
            progress(index + 1, count)
