"""LPIPS, the perceptual distance of the reconstruction loss: finding its weights and building the network.

Source: Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018, version 0.1
of the ``lpips`` package, which brings the linear layers; the trunk's weights are torchvision's.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fastgan_engine.errors import UserError, first_line

Trunk = Literal["vgg", "squeeze"]


@dataclass(frozen=True)
class TrunkFile:
    """Where torchvision publishes a trunk, and what it is called in the torch cache."""

    file: str
    url: str


TRUNKS: dict[Trunk, TrunkFile] = {
    "vgg": TrunkFile("vgg16-397923af.pth", "https://download.pytorch.org/models/vgg16-397923af.pth"),
    "squeeze": TrunkFile(
        "squeezenet1_1-b8a52dc0.pth", "https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth"
    ),
}
TRAIN_WITHOUT = "train with another reconstruction loss: --reconstruction l1"


def cache_dir() -> Path:
    """The folder in which torch keeps downloaded weights."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def find_trunk(trunk: Trunk, weights_dir: Path | None) -> Path | None:
    """The trunk's weight file in ``weights_dir`` or the torch cache; None where neither has it."""
    folders = [folder for folder in (weights_dir, cache_dir()) if folder is not None]
    return next((folder / TRUNKS[trunk].file for folder in folders if (folder / TRUNKS[trunk].file).is_file()), None)


def load_trunk(
    trunk: Trunk, weights_dir: Path | None, *, user: str | None = None, otherwise: str = TRAIN_WITHOUT
) -> dict[str, Tensor]:
    """The trunk's state dict, from ``weights_dir``, the torch cache, or a download into that cache.

    Args:
        user: the setting that asks for it, None for training's; for the message where there are no weights.
        otherwise: what needs none, for the same message.

    Raises:
        UserError: the file is nowhere and cannot be downloaded, or cannot be read.
    """
    source = TRUNKS[trunk]
    path = find_trunk(trunk, weights_dir)
    try:
        if path is None:
            return torch.hub.load_state_dict_from_url(source.url, check_hash=True, weights_only=True, progress=True)
        weights = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(weights, dict):
            raise TypeError(f"it holds a {type(weights).__name__}, not a state dict")
        return weights
    except Exception as error:
        if path is not None:
            raise UserError(
                f"weights of LPIPS: {path} cannot be read ({first_line(error)}); "
                f"remove it, or fetch it again from {source.url}"
            ) from error
        user = user or f"loss.reconstruction = lpips-{trunk}"
        raise UserError(_missing_message(trunk, weights_dir, error, user, otherwise)) from error


def _missing_message(trunk: Trunk, weights_dir: Path | None, error: Exception, user: str, otherwise: str) -> str:
    source = TRUNKS[trunk]
    looked = "\n".join(f"    {folder}" for folder in (weights_dir, cache_dir()) if folder is not None)
    return (
        f"{user} needs the file {source.file}, which was found in none of\n{looked}\n"
        f"and could not be downloaded ({first_line(error)}). Either\n"
        f"  - download {source.url} on a machine with a connection and put it into one of these folders\n"
        f"    (any folder works with --weights-dir), or\n"
        f"  - {otherwise}"
    )


def build_lpips(trunk: Trunk, weights: dict[str, Tensor] | None) -> Any:
    """The ``lpips`` package's network on the CPU, frozen; ``weights=None`` leaves the trunk random (for benchmarks).

    Raises:
        UserError: the weights are not those of the trunk.
    """
    import lpips

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the package calls torchvision in a way that is being phased out
        network = lpips.LPIPS(net=trunk, pnet_rand=True, verbose=False)
    if weights is not None:
        try:
            _load_slices(network.net, weights)
        except (KeyError, RuntimeError) as error:
            file = TRUNKS[trunk]
            raise UserError(
                f"weights of LPIPS: {file.file} does not hold torchvision's network ({first_line(error)}); "
                f"remove it, or fetch it again from {file.url}"
            ) from error
    return network.requires_grad_(False).eval()


def _load_slices(net: nn.Module, weights: dict[str, Tensor]) -> None:
    """Copies torchvision's ``features.N.*`` into the package's ``sliceK.N.*``."""
    net.load_state_dict({key: weights["features." + key.split(".", 1)[1]] for key in net.state_dict()})


def as_rgb(x: Tensor) -> Tensor:
    """Images of 1, 3 or 4 channels as the 3 that LPIPS looks at.

    Grey is repeated; with an alpha channel (like the colours in [-1, 1]) the colours are laid over mid-grey by their
    opacity, so that both reach the distance.
    """
    if x.shape[1] == 1:
        return x.expand(-1, 3, -1, -1)
    if x.shape[1] == 4:
        return x[:, :3] * ((x[:, 3:] + 1) / 2)
    return x
