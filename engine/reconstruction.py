"""The decoders' loss: how far their images are from the reals, summed over the batch as in the released code."""

from pathlib import Path
from typing import Any, Literal, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from fastgan_engine.networks import Reconstructions, quadrant
from fastgan_engine.perceptual import Trunk, as_rgb, build_lpips, load_trunk

Kind = Literal["lpips-vgg", "lpips-squeeze", "l1", "none"]


def resize(images: Tensor, size: int) -> Tensor:
    """Nearest resize to [B, C, size, size], as the released code makes its targets."""
    return images if images.shape[-1] == size else F.interpolate(images, size=(size, size))


def reconstruction_targets(reals: Tensor, size: int, part: int | Tensor) -> tuple[Tensor, Tensor]:
    """Targets of the decoders: of the whole image (big and small share it), and of its quadrant ``part``."""
    return resize(reals, size), resize(quadrant(reals, part), size)


class ReconstructionLoss(nn.Module):
    """Distance between images, summed over the batch: LPIPS, mean absolute difference, or nothing.

    Args:
        kind: "lpips-vgg", "lpips-squeeze", "l1" or "none".
        weights_dir: a folder that may hold the trunk's weights.
        random_weights: leave the LPIPS trunk random (benchmarks only).

    Raises:
        UserError: LPIPS weights can neither be found nor downloaded.
    """

    def __init__(self, kind: Kind, *, weights_dir: Path | None = None, random_weights: bool = False) -> None:
        super().__init__()
        if kind not in get_args(Kind):
            raise ValueError(f"reconstruction must be one of {', '.join(get_args(Kind))}; got {kind!r}")
        self.kind = kind
        self.lpips: Any = None
        if kind.startswith("lpips-"):
            trunk: Trunk = "vgg" if kind == "lpips-vgg" else "squeeze"
            self.lpips = build_lpips(trunk, None if random_weights else load_trunk(trunk, weights_dir))

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        """Scalar distance of images and targets [B, C, h, w] in [-1, 1], summed over B."""
        if self.lpips is not None:
            return self.lpips(as_rgb(images), as_rgb(targets)).sum()
        if self.kind == "l1":
            return (images - targets).abs().mean(dim=(1, 2, 3)).sum()
        return images.new_zeros(())

    def released(self, reconstructions: Reconstructions, reals: Tensor, part: int | Tensor) -> Tensor:
        """The released sum of three distances, each with its own target."""
        size = reconstructions.big.shape[-1]
        whole, quarter = reconstruction_targets(reals, size, part)
        return (
            self(reconstructions.big, whole) + self(reconstructions.small, whole) + self(reconstructions.part, quarter)
        )
