"""The images that a measurement needs, whatever they show."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fastgan_engine.cli.outcome import data_errors, progress_bar, warn

if TYPE_CHECKING:
    from fastgan_engine.config import Config
    from fastgan_engine.pipelines import PreparedSet

DEMO_COUNT = 32


@contextmanager
def images_for(config: "Config", source: Path | None) -> "Iterator[PreparedSet]":
    """The prepared set of ``source``; where there is none, of flowers drawn at the training size."""
    from fastgan_engine.pipelines import draw_demo, prepare

    with tempfile.TemporaryDirectory() as folder, data_errors():
        cache = config.data.cache_dir
        if source is None:
            source, cache = Path(folder, "flowers"), Path(folder, "cache")
            with progress_bar("drawing") as progress:
                draw_demo(source, count=DEMO_COUNT, size=config.model.im_size, progress=progress)
        with progress_bar("preparing") as progress:
            prepared = prepare(
                source, cache, im_size=config.model.im_size, channels=config.model.nc, fit=config.data.fit,
                background=config.data.background, encoding=config.data.encoding, warn=warn, progress=progress,
            )  # fmt: skip
        yield prepared
