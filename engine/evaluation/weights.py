"""Finding the weight files of the networks that metrics look through."""

import importlib.util
from pathlib import Path

import torch

from fastgan_engine.errors import UserError, first_line
from fastgan_engine.perceptual import TRUNKS, TrunkFile, cache_dir

LPIPS = TRUNKS["vgg"]
# torch-fidelity's conversion of the network that the authors of FID published.
INCEPTION = TrunkFile(
    "weights-inception-2015-12-05-6726825d.pth",
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
)


def find_weights(source: TrunkFile, weights_dir: Path | None) -> Path | None:
    """The file in ``weights_dir`` or the torch cache; None where neither has it."""
    return next((folder / source.file for folder in _folders(weights_dir) if (folder / source.file).is_file()), None)


def fetch_weights(source: TrunkFile, weights_dir: Path | None, *, needed_by: str) -> Path:
    """The file in ``weights_dir``, the torch cache, or downloaded into that cache.

    Raises:
        UserError: it is nowhere and cannot be downloaded; the message says which file to put where.
    """
    found = find_weights(source, weights_dir)
    if found is not None:
        return found
    path = cache_dir() / source.file
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(source.url, str(path), hash_prefix=source.file.rsplit("-", 1)[1].split(".")[0])
    except Exception as error:  # a connection fails in many ways
        raise UserError(_missing_message(source, weights_dir, needed_by, error)) from error
    return path


def can_measure_fid(weights_dir: Path | None) -> bool:
    """Whether FID needs neither a download nor an installation."""
    return importlib.util.find_spec("torch_fidelity") is not None and find_weights(INCEPTION, weights_dir) is not None


def _folders(weights_dir: Path | None) -> list[Path]:
    return [folder for folder in (weights_dir, cache_dir()) if folder is not None]


def _missing_message(source: TrunkFile, weights_dir: Path | None, needed_by: str, error: Exception) -> str:
    looked = "\n".join(f"    {folder}" for folder in _folders(weights_dir))
    reason = first_line(error)
    return (
        f"{needed_by} needs the file {source.file}, which was found in none of\n{looked}\n"
        f"and could not be downloaded ({reason}). Either\n"
        f"  - download {source.url} on a machine with a connection and put it into one of these folders\n"
        f"    (any folder works with --weights-dir), or\n"
        f"  - take metrics that need no weights: swd"
    )
