"""Tasks that D may be trained on with the reals in place of the reconstruction: the paper's table 7.

The released code has neither. A task makes views of the reals, D's trunk maps them (one batch, with statistics of its
own), and a small head of the task, in fp32, makes the loss of the last maps, averaged over them. The head belongs to D:
its optimizer, its checkpoints.

Source: Liu et al., ICLR 2021 (arXiv 2101.04775), table 7 compares the reconstruction with both tasks.
"""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastgan_engine.kernels.diffaug import diffaug
from fastgan_engine.kernels.dispatch import Impl

if TYPE_CHECKING:
    from fastgan_engine.draws import Draws

SelfSupervision = Literal["reconstruction", "rotation", "contrastive", "none"]

QUARTER_TURNS = 4
# SimCLR's, of its experiments with small images: length of the projection, and the temperature.
PROJECTION, TEMPERATURE = 128, 0.5


class Task(nn.Module, ABC):
    """A self-supervised task with its head."""

    @abstractmethod
    def views(self, reals: Tensor, draws: "Draws", *, impl: Impl = "auto") -> Tensor:
        """What D is to look at: [n B, C, H, W], made of the reals [B, C, H, W]."""

    @abstractmethod
    def forward(self, maps: Tensor) -> Tensor:
        """Scalar loss of D's last maps of the views [n B, C, 8, 8]."""


class Rotation(Task):
    """Which of four quarter turns an augmented image was given: cross-entropy over all four of each image.

    Source: Gidaris, Singh, Komodakis, "Unsupervised Representation Learning by Predicting Image Rotations", ICLR 2018.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.head = nn.Linear(channels, QUARTER_TURNS)

    def views(self, reals: Tensor, draws: "Draws", *, impl: Impl = "auto") -> Tensor:
        images = diffaug(reals, draws.augment_real, impl=impl)
        return torch.cat([images.rot90(turns, (2, 3)) for turns in range(QUARTER_TURNS)])

    def forward(self, maps: Tensor) -> Tensor:
        turns = torch.arange(len(maps), device=maps.device) // (len(maps) // QUARTER_TURNS)
        return F.cross_entropy(self.head(_pooled(maps)), turns)


class Contrastive(Task):
    """Which two of 2B augmented images show the same real: NT-Xent of projected features.

    With micro-batches the others are those of the same micro-batch.

    Source: Chen, Kornblith, Norouzi, Hinton, "A Simple Framework for Contrastive Learning of Visual Representations",
    ICML 2020 (SimCLR), equation 1; the augmentation is DiffAugment, as elsewhere here.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, PROJECTION))

    def views(self, reals: Tensor, draws: "Draws", *, impl: Impl = "auto") -> Tensor:
        assert draws.augment_view is not None
        return torch.cat([diffaug(reals, params, impl=impl) for params in (draws.augment_real, draws.augment_view)])

    def forward(self, maps: Tensor) -> Tensor:
        return nt_xent(self.head(_pooled(maps)))


def nt_xent(projections: Tensor) -> Tensor:
    """Mean over i of -log(exp(s[i, j] / t) / sum over k != i of exp(s[i, k] / t)), s cosines, j the other view of i.

    projections: [2B, d], first all first views, then all second ones in the same order.
    """
    count = len(projections)
    unit = F.normalize(projections, dim=1)
    itself = torch.eye(count, dtype=torch.bool, device=unit.device)
    similarities = (unit @ unit.T / TEMPERATURE).masked_fill(itself, -torch.inf)
    other_view = torch.arange(count, device=unit.device).roll(count // 2)
    return F.cross_entropy(similarities, other_view)


def build_task(name: SelfSupervision, channels: int) -> Task | None:
    """The task of ``loss.self_supervision``; None for the reconstruction, which D's decoders do, and for none.

    channels: of D's last maps.
    """
    if name == "rotation":
        return Rotation(channels)
    return Contrastive(channels) if name == "contrastive" else None


def _pooled(maps: Tensor) -> Tensor:
    """[N, C, h, w] -> [N, C], at least in fp32."""
    return maps.to(torch.promote_types(maps.dtype, torch.float32)).mean((2, 3))
