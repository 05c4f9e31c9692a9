"""The images that samples are compared with: a run's training set, a folder, or one file, fitted as in training."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastgan_engine.api import Run
from fastgan_engine.config import Config
from fastgan_engine.errors import UserError
from fastgan_engine.kernels.batch import to_float
from fastgan_engine.pipelines import prepare
from fastgan_engine.pipelines.decode import decode
from fastgan_engine.pipelines.errors import DataError
from fastgan_engine.pipelines.fit import fit_image, parse_colour


class Images(Protocol):
    """Images of one size and number of channels, such as a ``PreparedSet``."""

    names: list[str]

    def array(self, index: int) -> NDArray[np.uint8]:
        """uint8 [H, W, C]."""
        ...


class OneImage:
    """A single file."""

    def __init__(self, path: Path, pixels: NDArray[np.uint8]) -> None:
        self.names, self.pixels = [path.name], pixels

    def array(self, index: int) -> NDArray[np.uint8]:
        """The image, for index 0."""
        return [self.pixels][index]


def training_images(run: Run, data: Path | None, **telling: Any) -> Images:
    """The set that a run was trained on, or, where given, that of ``data``; see ``open_images``.

    Raises:
        UserError: the run does not tell, or what it was trained on is not there any more.
    """
    if data is not None:
        return open_images(run, data, **telling)
    path = run.config.data.path if run.config else None
    if path is None:
        raise UserError(f"{run.source} does not tell what it was trained on; give the images with --data FOLDER")
    if not path.exists():
        raise UserError(f"the images of the run, {path}, are not there; give their folder with --data FOLDER")
    return open_images(run, path, **telling)


def open_images(
    run: Run,
    source: Path,
    *,
    warn: Callable[[str], None],
    progress: Callable[[int, int], None] | None = None,
) -> Images:
    """The images of a folder, a .zip or one file, at the size and with the fit and background of the run.

    Raises:
        UserError: nothing there.
        DataError: nothing that can be used.
    """
    if not source.exists():
        raise UserError(f"{source} does not exist; give an image, a folder of images or a .zip")
    size, channels = run.generator.im_size, run.generator.nc
    data = (run.config or Config()).data
    if source.is_file() and source.suffix.lower() != ".zip":
        try:
            decoded = decode(source.read_bytes(), target=size)
        except (DataError, OSError) as error:
            raise DataError(f"{source}: {error}") from error
        colour = parse_colour(data.background)
        image = fit_image(decoded, im_size=size, channels=channels, fit=data.fit, background=colour)
        return OneImage(source, np.asarray(image).reshape(size, size, channels))
    return prepare(
        source,
        data.cache_dir,
        im_size=size,
        channels=channels,
        fit=data.fit,
        background=data.background,
        encoding=data.encoding,
        warn=warn,
        progress=progress,
    )


def pixels_of(images: Images, indices: Sequence[int]) -> Tensor:
    """uint8 [B, H, W, C]."""
    return torch.from_numpy(np.stack([images.array(index) for index in indices]))


def as_input(pixels: Tensor, device: torch.device) -> Tensor:
    """uint8 [B, H, W, C] -> float32 [B, C, H, W] in [-1, 1] on the device."""
    return to_float(pixels.to(device), torch.float32)
