"""What a training run consists of: two networks, the average of one, two optimizers and the random numbers."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fastgan_engine.networks import Discriminator, Generator


@dataclass
class Networks:
    """G, D and the exponential moving average of G, on one device."""

    generator: Generator
    discriminator: Discriminator
    ema: Generator

    @property
    def device(self) -> torch.device:
        return self.generator.to_big.weight_orig.device  # type: ignore[union-attr,return-value]


@torch.no_grad()
def update_ema(ema: nn.Module, live: nn.Module, decay: float) -> None:
    """ema <- decay * ema + (1 - decay) * live for weights and batch-norm statistics; other buffers are copied.

    Averaging the running statistics with the weights keeps the average usable in evaluation mode; the singular vectors
    of spectral norm (``weight_u``, ``weight_v``) are of unit length, so that only a copy makes sense.
    """
    torch._foreach_lerp_(_averaged(ema), _averaged(live), 1 - decay)
    for target, source in zip(_copied(ema), _copied(live), strict=True):
        target.copy_(source)


def _averaged(network: nn.Module) -> list[Tensor]:
    statistics = [b for name, b in network.named_buffers() if name.endswith(("running_mean", "running_var"))]
    return [*network.parameters(), *statistics]


def _copied(network: nn.Module) -> list[Tensor]:
    return [b for name, b in network.named_buffers() if not name.endswith(("running_mean", "running_var"))]
