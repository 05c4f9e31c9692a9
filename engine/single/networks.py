"""ConSinGAN's networks: a generator that grows by a stage at a time, and a patch discriminator.

Source: Hinz et al., "Improved Techniques for Training Single-Image GANs", WACV 2021, and the released code.
"""

import copy
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from fastgan_engine.single.resize import Size, resize

SLOPE = 0.05
CONVS = 3  # of a stage, and of the discriminator's body
MARGIN = CONVS  # pixels that a stage's unpadded convolutions take from each side


class Stage(nn.Module):
    """Three 3 x 3 convolutions, each followed by LeakyReLU; batch norm between them where asked for.

    Batch norm always takes the statistics of the image at hand, as the released code does also when it samples.
    """

    def __init__(self, channels_in: int, filters: int, *, batch_norm: bool, convs: int = CONVS) -> None:
        super().__init__()
        widths = [channels_in] + [filters] * convs
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3) for a, b in itertools.pairwise(widths))
        norms = [nn.BatchNorm2d(filters, track_running_stats=False) for _ in range(convs)] if batch_norm else []
        self.norms = nn.ModuleList(norms)

    def forward(self, x: Tensor, padding: int) -> Tensor:
        """padding: zeros around ``x``, once, before the first convolution."""
        for index, conv in enumerate(self.convs):
            x = F.conv2d(x, conv.weight, conv.bias, padding=padding if index == 0 else 0)  # type: ignore[arg-type]
            if self.norms:
                x = self.norms[index](x)
            x = F.leaky_relu(x, SLOPE, inplace=True)
        return x


class Entry(NamedTuple):
    """What a stage gets from below: the upsampled map that its output is added to, and its input."""

    skip: Tensor
    x: Tensor


class Generator(nn.Module):
    """Noise -> image [1, 3, H, W] in [-1, 1]. Built with one stage; ``grow`` adds one that starts as a copy.

    Args:
        varies_borders: maps enter a stage larger than they leave it, with noise there, so that the borders vary; else
            zeros are put around them.
    """

    def __init__(self, *, filters: int, batch_norm: bool, varies_borders: bool, channels: int = 3) -> None:
        super().__init__()
        self.varies_borders = varies_borders
        self.head = Stage(channels, filters, batch_norm=batch_norm, convs=1)
        self.stages = nn.ModuleList([Stage(filters, filters, batch_norm=batch_norm)])
        self.tail = nn.Conv2d(filters, channels, 3, padding=1)
        self.apply(initialise)

    def grow(self) -> None:
        self.stages.append(copy.deepcopy(self.stages[-1]))

    def forward(
        self,
        noise: Sequence[Tensor],
        sizes: Sequence[Size],
        amplitudes: Sequence[float],
        trained: Sequence[Size] | None = None,
    ) -> Tensor:
        """noise: one tensor a stage, see ``inputs``; sizes: of the stages; amplitudes: of the noise.

        trained: sizes of the stages in training, where ``sizes`` are others: see ``resize.positions``.
        """
        return self.above(0, None, noise, sizes, amplitudes, trained)

    def entry(
        self, first: int, noise: Sequence[Tensor], sizes: Sequence[Size], amplitudes: Sequence[float]
    ) -> Entry | None:
        """What enters stage ``first``, all stages below computed; None for stage 0, which the noise itself enters."""
        if first == 0:
            return None
        x = self._bottom(noise[0])
        for index in range(1, first):
            x = self._stage(index, self._enter(index, x, noise, sizes, amplitudes))
        return self._enter(first, x, noise, sizes, amplitudes)

    def above(
        self,
        first: int,
        entry: Entry | None,
        noise: Sequence[Tensor],
        sizes: Sequence[Size],
        amplitudes: Sequence[float],
        trained: Sequence[Size] | None = None,
    ) -> Tensor:
        """The image, from what ``entry`` returned for stage ``first``."""
        x = self._bottom(noise[0], trained) if entry is None else self._stage(first, entry)
        for index in range(first + 1, len(noise)):
            x = self._stage(index, self._enter(index, x, noise, sizes, amplitudes, trained))
        return self.tail(x).tanh()

    def _bottom(self, x: Tensor, trained: Sequence[Size] | None = None) -> Tensor:
        """Head and stage 0."""
        x = self.head(x, padding=1)
        if not self.varies_borders:
            return self.stages[0](x, padding=CONVS)
        x = resize(x, (x.shape[2], x.shape[3]), margin=1, trained=None if trained is None else (trained[0], trained[0]))
        return self.stages[0](x, padding=CONVS - 1)

    def _enter(
        self,
        index: int,
        x: Tensor,
        noise: Sequence[Tensor],
        sizes: Sequence[Size],
        amplitudes: Sequence[float],
        trained: Sequence[Size] | None = None,
    ) -> Entry:
        if not self.varies_borders:
            skip = base = resize(x, sizes[index])
        else:
            before = None if trained is None else (trained[index - 1], trained[index])
            skip, base = (resize(x, sizes[index], margin=margin, trained=before) for margin in (0, MARGIN))
        return Entry(skip, base.add(noise[index], alpha=amplitudes[index]))

    def _stage(self, index: int, entry: Entry) -> Tensor:
        return self.stages[index](entry.x, padding=0 if self.varies_borders else CONVS) + entry.skip


class Discriminator(nn.Module):
    """Image -> a score for each 11 x 11 patch: five unpadded convolutions, no norm."""

    def __init__(self, *, filters: int, channels: int = 3) -> None:
        super().__init__()
        widths = [channels] + [filters] * (CONVS + 1) + [1]
        self.convs: Sequence[nn.Conv2d]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3) for a, b in itertools.pairwise(widths))  # type: ignore[assignment]
        self.apply(initialise)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, 3, H, W] -> [B, 1, H - 10, W - 10]."""
        for conv in self.convs[:-1]:
            x = F.leaky_relu(conv(x), SLOPE, inplace=True)
        return self.convs[-1](x)


def initialise(module: nn.Module) -> None:
    """Convolution weights N(0, 0.02), batch norm weights N(1, 0.02), as released; biases as PyTorch makes them."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
