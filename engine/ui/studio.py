"""What the page's tabs do, as plain functions of a run: no Gradio here.

Nothing is computed here either: a tab's function asks the library and hands out pictures to show and files to keep.
"""

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from PIL import Image
from torch import Tensor

from fastgan_engine.api import Run
from fastgan_engine.errors import UserError
from fastgan_engine.images import save_grid
from fastgan_engine.latent import defaults
from fastgan_engine.latent.images import open_images, pixels_of
from fastgan_engine.latent.interpolation import interpolate
from fastgan_engine.latent.inversion import invert
from fastgan_engine.latent.latents import SUFFIX, Latents, read_latents, save_latents
from fastgan_engine.latent.metrics import TRUNKS, Metric, build_metric
from fastgan_engine.latent.mixing import mixing_table
from fastgan_engine.latent.video import open_video
from fastgan_engine.perceptual import find_trunk
from fastgan_engine.pipelines.errors import DataError
from fastgan_engine.sampling import device_of, sample

MOST_MIXED = 144  # images in one table

VideoKind = Literal["mp4", "gif"]
Tell = Callable[[str], None]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Inversion:
    """What the generator makes of a picture.

    Attributes:
        target, start, result: the picture at the generator's size, where the search began, what it found.
        before, after: their distances to the target, in ``unit``.
        latents: file of the latent that was found.
    """

    target: Image.Image
    start: Image.Image
    result: Image.Image
    before: float
    after: float
    unit: str
    latents: Path


class Studio:
    """A run that is being looked at.

    Not for several threads at once: inversion freezes the generator's weights for its time.

    Args:
        folder: for the files that are made; theirs alone.
        weights_dir: folder with LPIPS weights; None: the run's. Nothing is ever downloaded.
        warn: told what is done differently, such as fewer images at once.
    """

    def __init__(self, run: Run, folder: Path, *, weights_dir: Path | None = None, warn: Tell | None = None) -> None:
        self.run, self.generator, self.folder, self.warn = run, run.generator, folder, warn
        self.weights_dir = weights_dir or (run.config.loss.weights_dir if run.config else None)
        self.stopping = threading.Event()  # once set, what takes long gives up
        self._metrics: dict[defaults.MetricName, Metric] = {}

    def samples(self, count: int, seed: int, truncation: float) -> list[tuple[Image.Image, str]]:
        """The first images of a seed, each with the name by which the other tabs know its latent."""
        images = self._sample(count, seed, truncation)
        return [(_picture(image), f"{seed}:{index}") for index, image in enumerate(images)]

    def samples_file(self, count: int, seed: int, truncation: float) -> Path:
        """The same as one PNG."""
        path = self.folder / f"samples-seed-{seed}.png"
        save_grid(path, self._sample(count, seed, truncation))
        return path

    def _sample(self, count: int, seed: int, truncation: float) -> Tensor:
        return torch.cat(list(sample(self.generator, count, seed=seed, truncation=truncation, warn=self.warn)))

    def mix(self, rows: str, columns: str, truncation: float) -> Path:
        """A PNG: each row's content in each column's style, with the originals around; see ``mixing_table``."""
        content, style = (self._latents(names).scaled(truncation) for names in (rows, columns))
        if len(content) * len(style) > MOST_MIXED:
            raise UserError(
                f"{len(content)} rows x {len(style)} columns are too many for one picture; give names for at most "
                f"{MOST_MIXED} images"
            )
        path = self.folder / "mix.png"
        save_grid(path, mixing_table(self.generator, content, style, warn=self.warn), columns=len(style) + 1)
        return path

    def interpolate(
        self,
        through: str,
        frames: int,
        fps: float,
        loop: bool,
        truncation: float,
        kind: VideoKind,
        progress: Progress | None = None,
    ) -> Path:
        """A video through these latents, ``frames`` frames from each to the next."""
        video = interpolate(
            self.generator, self._latents(through), frames=frames, loop=loop, truncation=truncation, warn=self.warn
        )
        path = self.folder / f"interpolation.{kind}"
        step_done = self._until_stopped(progress)
        with open_video(path, fps) as write:
            for done, frame in enumerate(video, start=1):
                write(frame)
                step_done(done, video.count)
        return path

    def metrics(self) -> list[defaults.MetricName]:
        """How images can be compared with the weights that are here; the best first."""
        names: tuple[defaults.MetricName, ...] = get_args(defaults.MetricName)
        return [name for name in names if name not in TRUNKS or find_trunk(TRUNKS[name], self.weights_dir)]

    def invert(
        self, picture: Path, metric: defaults.MetricName, steps: int, restarts: int, progress: Progress | None = None
    ) -> Inversion:
        """The latent whose image is nearest to a picture, which is fitted as the training images were.

        The name of the file of latents is one for ``mix`` and ``interpolate``.

        Raises:
            UserError: the picture cannot be read.
        """
        try:
            images = open_images(self.run, picture, warn=self.warn or (lambda _: None))
        except DataError as error:
            why = str(error).removeprefix(f"{picture}: ")  # its place means nothing to who uploaded it
            raise UserError(f"{picture.name} cannot be used: {why}") from error
        measure = self._metric(metric)
        found = invert(
            self.generator, images, measure, steps=steps, restarts=restarts, warn=self.warn,
            progress=self._until_stopped(progress),
        )  # fmt: skip
        latents = self.folder / (re.sub(r"[^\w.-]+", "-", picture.stem) + SUFFIX)
        save_latents(latents, found.latents)
        target, start, result = (_picture(x[0]) for x in (pixels_of(images, [0]), found.start, found.result))
        before, after = found.before.item(), found.after.item()
        return Inversion(target, start, result, before, after, unit=measure.words, latents=latents)

    def _until_stopped(self, progress: Progress | None) -> Progress:
        def step_done(done: int, total: int) -> None:
            if self.stopping.is_set():
                raise UserError("stopped")
            if progress:
                progress(done, total)

        return step_done

    def _metric(self, name: defaults.MetricName) -> Metric:
        if name not in self._metrics:
            size = min(defaults.INVERSION_SIZES[name], self.generator.im_size)
            device = device_of(self.generator)
            self._metrics[name] = build_metric(name, size=size, device=device, weights_dir=self.weights_dir)
        return self._metrics[name]

    def _latents(self, names: str) -> Latents:
        """Those of a comma list, in which a file that was found here needs no path."""
        here = (self.folder / name.strip() for name in names.split(","))
        parts = zip(names.split(","), here, strict=True)
        return read_latents(self.generator, ",".join(str(path) if path.is_file() else name for name, path in parts))


def _picture(image: Tensor) -> Image.Image:
    """uint8 [H, W, 1 | 3 | 4] as grey, RGB or RGBA."""
    return Image.fromarray(image.squeeze(2).numpy())
