"""Distances between images, as distances between points.

A metric turns each image into a point once; comparing two is then cheap, however many there are, and the same point
serves as the fixed target of an optimisation.
"""

import math
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from fastgan_engine.latent.defaults import MetricName
from fastgan_engine.perceptual import Trunk, as_rgb, build_lpips, load_trunk

TRUNKS: dict[MetricName, Trunk] = {"lpips": "vgg", "lpips-squeeze": "squeeze"}
EPSILON = 1e-10  # of the lpips package


class Metric(Protocol):
    """A distance between images.

    Attributes:
        words: what the figure is, for tables.
    """

    words: str

    def points(self, images: Tensor) -> Tensor:
        """[B, C, H, W] in [-1, 1], on the metric's device -> float32 [B, D]; differentiable."""
        ...

    def distance(self, squared: Tensor) -> Tensor:
        """The figure, of the squared Euclidean distance between two points."""
        ...


class Pixels:
    """Root mean square difference of the pixels, as a fraction of their range: 0 the same, 1 black and white.

    Images larger than ``size`` are averaged down to it first, so that fine texture and small shifts count for less.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.words = f"pixels (RMS at {size} x {size}, 0 to 1)"

    def points(self, images: Tensor) -> Tensor:
        """See ``Metric``."""
        flat = shrink(images.float(), self.size).flatten(1)
        return flat / (2 * math.sqrt(flat.shape[1]))

    def distance(self, squared: Tensor) -> Tensor:
        """See ``Metric``."""
        return squared.sqrt()


class Lpips:
    """LPIPS of images that are averaged down to ``size`` pixels a side first, where they are larger.

    LPIPS is a weighted sum of squared differences between normalised features: with the weights multiplied into the
    features it is a squared Euclidean distance.

    Args:
        network: of ``build_lpips``, on the device of the images.
    """

    def __init__(self, network: Any, size: int) -> None:
        self.network, self.size = network, size
        self.words = f"LPIPS ({network.pnet_type}, at {size} x {size})"

    def points(self, images: Tensor) -> Tensor:
        """See ``Metric``."""
        x = shrink(as_rgb(images.float()), self.size)
        layers = self.network.net(self.network.scaling_layer(x))
        return torch.cat(
            [
                _weighted(layer, linear.model[-1].weight)
                for layer, linear in zip(layers, self.network.lins, strict=True)
            ],
            dim=1,
        )

    def distance(self, squared: Tensor) -> Tensor:
        """See ``Metric``."""
        return squared


def _weighted(features: Tensor, weight: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, C H W]: unit length at each position, times the root of the layer's weights and of 1 / HW.

    ``vector_norm`` has a gradient of 0 where all features are 0; the root of a sum, as in the package, has NaN there.
    """
    length = torch.linalg.vector_norm(features, dim=1, keepdim=True) + EPSILON
    area = features.shape[2] * features.shape[3]
    return (features / length * (weight / area).sqrt()).flatten(1)


def shrink(images: Tensor, size: int) -> Tensor:
    """Averaged down to ``size`` x ``size``; smaller ones stay as they are."""
    return F.adaptive_avg_pool2d(images, size) if images.shape[-1] > size else images


def build_metric(
    name: MetricName, *, size: int, device: torch.device | str = "cpu", weights_dir: Path | None = None
) -> Metric:
    """The metric of a name, looking at images at most ``size`` pixels wide.

    Raises:
        UserError: LPIPS weights can neither be found nor downloaded.
    """
    if name == "pixels":
        return Pixels(size)
    trunk = TRUNKS[name]
    weights = load_trunk(
        trunk, weights_dir, user=f"--metric {name}", otherwise="take a metric that needs no weights: --metric pixels"
    )
    return Lpips(build_lpips(trunk, weights).to(device), size)
