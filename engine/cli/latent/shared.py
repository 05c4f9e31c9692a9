"""Options and steps that the latent commands have in common."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastgan_engine.cli.outcome import waiting
from fastgan_engine.errors import UserError
from fastgan_engine.latent import defaults

if TYPE_CHECKING:
    from fastgan_engine.api import Run
    from fastgan_engine.latent import metrics

NAMES = "comma list of SEED, SEED:INDEX (an image of `sample --seed`) or a .safetensors of `invert`"

Truncation = Annotated[
    float, typer.Option(min=0, help="Factor on the latents: below 1 less variety, more typical images.")
]
Chunk = Annotated[int, typer.Option(min=1, help="Images at once; lower needs less memory.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]


Metric = Annotated[defaults.MetricName, typer.Option(help="How images are compared; pixels needs no weights.")]
WeightsDir = Annotated[
    Path | None, typer.Option(help="Folder with LPIPS weights.", show_default="the run's, the torch cache, a download")
]


def open_run(source: Path, device: str) -> "Run":
    """The generator on the device that ``--device`` names."""
    with waiting("loading"):
        from fastgan_engine.api import load_run
        from fastgan_engine.config import resolve
        from fastgan_engine.hardware import pick_device

        setting = resolve(flags={"engine.device": device}).engine.device  # checks it
        return load_run(source, pick_device(setting))


def default_out(source: Path, what: str, suffix: str) -> Path:
    """``RUN-what.suffix``, here."""
    name = source.absolute().name if source.is_dir() else source.stem
    return Path(f"{name}-{what}{suffix}")


def expect_png(out: Path) -> None:
    """Raises UserError where the picture's name does not end in .png."""
    if out.suffix.lower() != ".png":
        raise UserError(f"--out: the picture is written as .png, got {out}")


def open_metric(name: defaults.MetricName, run: "Run", weights_dir: Path | None, *, size: int) -> "metrics.Metric":
    """The metric of a name, on the run's device and for its images, seen at ``size`` pixels a side or their own.

    LPIPS weights are found as in training.
    """
    from fastgan_engine.latent.metrics import build_metric
    from fastgan_engine.sampling import device_of

    folder = weights_dir or (run.config.loss.weights_dir if run.config else None)
    size = min(size, run.generator.im_size)
    with waiting("loading"):
        return build_metric(name, size=size, device=device_of(run.generator), weights_dir=folder)
