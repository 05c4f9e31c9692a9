"""What extractors saw of the training images, kept in the user's cache: it is the same for every run on them."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fastgan_engine.atomic import atomic_write
from fastgan_engine.pipelines import PreparedSet, default_cache_dir

FOLDER = "features"
VERSION = 1  # raised whenever the same images and weights would give other features
NAME = "features"


def cached_features(
    images: PreparedSet, key: str, compute: Callable[[], Tensor], *, cache_dir: Path | None, warn: Callable[[str], None]
) -> Tensor:
    """What ``compute`` returned for these images and this extractor, now or in an earlier run.

    key: identifies the extractor and its weights. A damaged file is computed again; where none can be written, ``warn``
    is told.
    """
    identity = hashlib.sha256(f"{VERSION} {images.hash} {images.im_size} {images.channels} {key}".encode()).hexdigest()
    path = (cache_dir or default_cache_dir()) / FOLDER / f"{identity[:32]}.safetensors"
    try:
        return load_file(path)[NAME]
    except (OSError, SafetensorError, KeyError):
        features = compute()
    try:
        with atomic_write(path) as temporary:
            save_file({NAME: features.contiguous()}, temporary)
    except OSError as error:
        warn(f"the features of the training images could not be kept in {path.parent} ({error.strerror or error})")
    return features
