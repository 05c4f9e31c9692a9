"""What an exported file says about itself: where it comes from, what goes in and out, how to load it."""

import json
from importlib import metadata
from typing import Any

from fastgan_engine.api import Run
from fastgan_engine.config import Config

LICENCE = (
    "The engine's MIT licence covers its code alone. Who trained these weights, and on which images, sets their terms"
)
PRIVATE = ("data.path", "data.cache_dir", "loss.weights_dir")  # of the machine, not of the model


def model_card(run: Run, *, load: str) -> dict[str, str]:
    """Strings by name, as safetensors, ONNX and archives carry them.

    load: code that reads the file, in which ``FILE`` stands for its name.
    """
    generator = run.generator
    bounds = "within [-1, 1]" if generator.bounded else "about [-1, 1], to be clamped"
    card = {
        "model": "FastGAN generator, averaged weights (Liu et al., ICLR 2021, arXiv 2101.04775)",
        "source": _source(run),
        "image_size": str(generator.im_size),
        "channels": str(generator.nc),
        "input": f"z: float32 [batch, {generator.nz}], drawn from N(0, 1)",
        "output": f"float32 [batch, {generator.nc}, {generator.im_size}, {generator.im_size}], {bounds}",
        "licence": LICENCE,
        "load": load,
        "engine": f"fastgan-engine {metadata.version('fastgan-engine')}",
    }
    if run.step is not None:
        card["training_step"] = str(run.step)
    if run.config is not None:
        card["settings"] = json.dumps(_changed(run.config))
    return card


def _source(run: Run) -> str:
    """The file's name; of a snapshot in a run's folder, with that. Not where they lie, which is the user's own."""
    source = run.source.absolute()
    return source.name if run.folder is None else source.relative_to(run.folder.path.absolute().parent).as_posix()


def _changed(config: Config) -> dict[str, Any]:
    """The settings that differ from the defaults; none that names a folder."""
    defaults = Config().values()
    return {key: value for key, value in config.values().items() if value != defaults[key] and key not in PRIVATE}
