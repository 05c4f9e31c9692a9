"""From images to what a metric looks at: features of a network, distances of pairs, small versions."""

import hashlib
import io
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from fastgan_engine.chunks import in_chunks
from fastgan_engine.errors import UserError, first_line
from fastgan_engine.evaluation.spread import SIDE, thumbnails
from fastgan_engine.evaluation.weights import INCEPTION, LPIPS, fetch_weights
from fastgan_engine.extras import require
from fastgan_engine.perceptual import build_lpips, load_trunk

View = Literal["inception", "lpips", "thumbnails"]

INCEPTION_NAME = "inception-v3-compat"  # torch-fidelity's
INCEPTION_LAYER = "2048"  # the last pooled features
LPIPS_PAIRS = 1_000
HASHED = 16  # hexadecimal digits that identify a weight file


class Extractor(ABC):
    """Gathers what it sees of images that come in batches.

    key: identifies what it computes, weights included.
    """

    key: str

    def __init__(self) -> None:
        self._gathered: list[Tensor] = []

    def add(self, pixels: Tensor) -> None:
        """Looks at a batch, uint8 [n, 3, H, W] on the CPU."""
        self._gathered.append(self._look(pixels))

    def take(self) -> Tensor:
        """What was gathered, one row an image or pair, on the CPU; then starts over."""
        gathered, self._gathered = self._gathered, []
        return torch.cat(gathered)

    @abstractmethod
    def _look(self, pixels: Tensor) -> Tensor: ...


class Thumbnails(Extractor):
    """Each image at 32 x 32; needs no weights."""

    key = f"thumbnails-{SIDE}"

    def _look(self, pixels: Tensor) -> Tensor:
        return thumbnails(pixels)


class InceptionFeatures(Extractor):
    """The 2,048 features of InceptionV3 that FID is defined on, by torch-fidelity."""

    def __init__(self, weights_dir: Path | None, device: torch.device) -> None:
        super().__init__()
        module = require("torch_fidelity.feature_extractor_inceptionv3", extra="metrics")
        path = fetch_weights(INCEPTION, weights_dir, needed_by="FID, like all metrics of features,")
        content = path.read_bytes()
        self.key = f"{INCEPTION_NAME}-{INCEPTION_LAYER}-{hashlib.sha256(content).hexdigest()[:HASHED]}"
        self.network, self.device = _build_inception(module, content, path).to(device), device

    def _look(self, pixels: Tensor) -> Tensor:
        @torch.no_grad()
        def features(indices: range) -> Tensor:
            return self.network(pixels[indices.start : indices.stop].to(self.device))[0].cpu()

        what = "image for InceptionV3"
        return torch.cat(list(in_chunks(features, len(pixels), chunk=len(pixels), device=self.device, what=what)))


class PairDistances(Extractor):
    """LPIPS of images with the next one, in pairs that share none; at most 1,000 of them."""

    def __init__(self, weights_dir: Path | None, device: torch.device) -> None:
        super().__init__()
        path = fetch_weights(LPIPS, weights_dir, needed_by="LPIPS")
        self.key = f"lpips-vgg-pairs-{LPIPS_PAIRS}-{hashlib.sha256(path.read_bytes()).hexdigest()[:HASHED]}"
        self.network, self.device = build_lpips("vgg", load_trunk("vgg", path.parent)).to(device), device
        self._pairs = 0
        self._single: Tensor | None = None

    def take(self) -> Tensor:
        self._pairs, self._single = 0, None
        return super().take()

    def _look(self, pixels: Tensor) -> Tensor:
        if self._single is not None:
            pixels = torch.cat([self._single, pixels])
        pairs = min(len(pixels) // 2, LPIPS_PAIRS - self._pairs)
        self._single = pixels[-1:] if len(pixels) % 2 else None
        self._pairs += pairs
        if not pairs:
            return torch.empty(0)

        @torch.no_grad()
        def distances(indices: range) -> Tensor:
            images = pixels[2 * indices.start : 2 * indices.stop].to(self.device).float() / 127.5 - 1
            return self.network(images[0::2], images[1::2]).flatten().cpu()

        return torch.cat(list(in_chunks(distances, pairs, chunk=pairs, device=self.device, what="pair for LPIPS")))


def build_extractor(view: View, weights_dir: Path | None, device: torch.device) -> Extractor:
    """The extractor of a view; leaves the global random state alone.

    Raises:
        UserError: a package or weights it needs are missing or damaged.
    """
    if view == "thumbnails":
        return Thumbnails()
    with torch.random.fork_rng(devices=[]):  # networks are initialised before their weights are loaded
        return (InceptionFeatures if view == "inception" else PairDistances)(weights_dir, device)


def _build_inception(module: Any, content: bytes, path: Path) -> Any:
    """torch-fidelity unpickles without restraint: it is given the very bytes that were found to hold tensors only."""
    try:
        torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        return module.FeatureExtractorInceptionV3(
            INCEPTION_NAME, [INCEPTION_LAYER], feature_extractor_weights_path=io.BytesIO(content)
        )
    except Exception as error:  # garbled bytes make the reader raise nearly anything
        reason = first_line(error)
        raise UserError(
            f"weights of InceptionV3: {path} cannot be read or is of another network ({reason}); "
            f"remove it, or fetch it again from {INCEPTION.url}"
        ) from error
