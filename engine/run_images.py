"""The images that a run's samples are compared with, prepared as for its training."""

from collections.abc import Callable
from pathlib import Path

from fastgan_engine.api import Run
from fastgan_engine.config import Config
from fastgan_engine.errors import UserError
from fastgan_engine.pipelines import PreparedSet, prepare

Warn = Callable[[str], None]


def training_source(run: Run) -> Path:
    """Where the images lie that a run was trained on.

    Raises:
        UserError: it does not tell, or they are not there any more.
    """
    name = run.folder.path if run.folder else run.source
    path = run.config.data.path if run.config else None
    if path is None:
        raise UserError(f"{name} does not tell its training images; give them with --data FOLDER")
    if not path.exists():
        raise UserError(f"the training images of {name}, {path}, are not there; give them with --data FOLDER")
    return path


def prepare_for(
    run: Run, source: Path, *, warn: Warn, progress: Callable[[int, int], None] | None = None
) -> PreparedSet:
    """The images of a folder or a .zip at the generator's size, fitted as the run's configuration says.

    Raises:
        DataError: nothing that can be used.
    """
    data = (run.config or Config()).data
    return prepare(
        source,
        data.cache_dir,
        im_size=run.generator.im_size,
        channels=run.generator.nc,
        fit=data.fit,
        background=data.background,
        encoding=data.encoding,
        warn=warn,
        progress=progress,
    )
