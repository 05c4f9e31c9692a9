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
from fastgan_engine.pipelines.decode import decode
from fastgan_engine.pipelines.errors import DataError
from fastgan_engine.pipelines.fit import fit_image, parse_colour
from fastgan_engine.run_images import prepare_for, training_source


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
    return open_images(run, training_source(run) if data is None else data, **telling)


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
    if source.is_file() and source.suffix.lower() != ".zip":
        return _open_one(run, source)
    return prepare_for(run, source, warn=warn, progress=progress)


def _open_one(run: Run, file: Path) -> OneImage:
    size, channels = run.generator.im_size, run.generator.nc
    data = (run.config or Config()).data
    try:
        decoded = decode(file.read_bytes(), target=size)
    except (DataError, OSError) as error:
        raise DataError(f"{file}: {error}") from error
    colour = parse_colour(data.background)
    image = fit_image(decoded, im_size=size, channels=channels, fit=data.fit, background=colour)
    return OneImage(file, np.asarray(image).reshape(size, size, channels))


def pixels_of(images: Images, indices: Sequence[int]) -> Tensor:
    """uint8 [B, H, W, C]."""
    return torch.from_numpy(np.stack([images.array(index) for index in indices]))


def as_input(pixels: Tensor, device: torch.device) -> Tensor:
    """uint8 [B, H, W, C] -> float32 [B, C, H, W] in [-1, 1] on the device."""
    return to_float(pixels.to(device), torch.float32)
