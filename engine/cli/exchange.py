"""``fastgan-engine import`` and ``export``: released checkpoints in; formats that others read out."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fastgan_engine.cli.outcome import refuse_to_overwrite, waiting, writing
from fastgan_engine.cli.sample import Force, Source
from fastgan_engine.errors import UserError
from fastgan_engine.run_folder import SNAPSHOT_SUFFIX

RELEASED_SUFFIX = ".pth"
TENSOR_FORMATS = (SNAPSHOT_SUFFIX, RELEASED_SUFFIX)
GRAPH_FORMATS = (".onnx", ".pt2")


class Noise(StrEnum):
    """What becomes of the noise maps in a graph."""

    NONE = "none"
    INPUT = "input"


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .pth of the released FastGAN code.")],
    out: Annotated[Path, typer.Option(help="Folder of the new run.")],
    step: Annotated[
        int | None, typer.Option(min=0, help="Its training step.", show_default="as Adam counted, else 0")
    ] = None,
) -> None:
    """Make a run of a released checkpoint.

    N.pth (g, d) and all_N.pth (with averages and optimizers) are read, with or without module. prefixes. The missing
    batch-norm statistics of the averaged generator are measured. From all_N.pth training can go on.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out: {out} exists; a run is imported into a new folder")
    with waiting("loading"):
        from fastgan_engine.hardware import pick_device
        from fastgan_engine.importing import import_released
        from fastgan_engine.released import load_released
        from fastgan_engine.run_folder import RunFolder

        released = load_released(file, pick_device("auto"))
    with waiting("measuring batch-norm statistics"), writing(out):
        written = import_released(released, RunFolder(out), step if step is not None else released.step or 0)
    typer.echo(f"wrote {written.snapshot}")
    if written.checkpoint:
        typer.echo(f"wrote {written.checkpoint}")
    typer.echo(f"look at it:  fastgan-engine sample {out}")
    if written.checkpoint:
        typer.echo(f"train on:    fastgan-engine train --resume auto --out {out} --data IMAGES --steps N")


def export(
    source: Source,
    out: Annotated[
        Path,
        typer.Argument(metavar="OUT", help="File to write: .safetensors, .pth, .onnx or .pt2.", show_default=False),
    ],
    noise: Annotated[
        Noise,
        typer.Option(help="Of .onnx, .pt2. none: an image is a function of z alone. input: the noise maps are inputs."),
    ] = Noise.NONE,
    everything: Annotated[
        bool, typer.Option("--everything", help="Of .pth: also live weights and optimizers, to train further there.")
    ] = False,
    measure: Annotated[
        bool, typer.Option("--measure", help="Time the generator before and after folding, on this machine.")
    ] = False,
    force: Force = False,
) -> None:
    """Write the averaged generator of a run or a file in a format that others read.

    .safetensors: for this engine, with a model card. .pth: for the released code.

    .onnx, .pt2 (torch.export): folded for inference, read without this engine, and compared with it here.
    """
    _check_export(out, noise, everything)
    refuse_to_overwrite(out, force, "OUT")
    with waiting("exporting"):
        error = _export(source, out, noise, everything)
    typer.echo(f"{out} ({out.stat().st_size / 2**20:.0f} MiB)" + _equality(error))
    if measure:
        _measure(source)


def _check_export(out: Path, noise: Noise, everything: bool) -> None:
    if out.suffix not in (*TENSOR_FORMATS, *GRAPH_FORMATS):
        raise UserError(f"OUT: expected a name ending in {', '.join((*TENSOR_FORMATS, *GRAPH_FORMATS))}; got {out}")
    if noise is Noise.INPUT and out.suffix not in GRAPH_FORMATS:
        raise UserError(f"--noise input: a {out.suffix} has no inputs; it is for {' and '.join(GRAPH_FORMATS)}")
    if everything and out.suffix != RELEASED_SUFFIX:
        raise UserError(f"--everything: a {out.suffix} holds the averaged generator alone; it is for {RELEASED_SUFFIX}")


def _export(source: Path, out: Path, noise: Noise, everything: bool) -> float | None:
    """Returns how far the images of the written file are from the engine's, where it was run."""
    from fastgan_engine.api import load_run
    from fastgan_engine.exporting import export_released, export_snapshot
    from fastgan_engine.exporting_graph import export_archive, export_onnx

    with writing(out):
        if out.suffix == SNAPSHOT_SUFFIX:
            export_snapshot(source, out)
        elif out.suffix == RELEASED_SUFFIX:
            export_released(source, out, everything=everything)
        elif out.suffix == ".onnx":
            return export_onnx(load_run(source), out, noise=noise.value)
        else:
            return export_archive(load_run(source), out, noise=noise.value)
    return None


def _equality(error: float | None) -> str:
    return "" if error is None else f": its images equal the engine's within {error:.1e}, of a range of about 2"


def _measure(source: Path) -> None:
    with waiting("measuring"):
        from fastgan_engine.api import load_run
        from fastgan_engine.folding_speed import measure
        from fastgan_engine.hardware import pick_device

        speeds = measure(load_run(source, pick_device("auto")).generator)
    for speed in speeds:
        typer.echo(
            f"{speed.batch} image(s) at once on {speed.device}: {speed.before_ms:.1f} ms before folding, "
            f"{speed.folded_ms:.1f} ms after: {speed.before_ms / speed.folded_ms:.2f} times as fast"
        )
