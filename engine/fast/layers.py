"""How a network is run: its ready-made convolution weights, the precision, and what its batch norms do."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastgan_engine.kernels.dispatch import Impl
from fastgan_engine.kernels.norm_glu import norm_glu
from fastgan_engine.kernels.norm_lrelu import norm_lrelu
from fastgan_engine.kernels.sle import sle
from fastgan_engine.kernels.up_conv import up_conv
from fastgan_engine.networks.blocks import LEAKY_SLOPE, DownBlock, DownBlockComp, SLEBlock

# A map, and the means of its 2 x 2 squares.
Pooled = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Run:
    """One forward pass of a network.

    Attributes:
        weights: by module name, the convolution weights divided by their spectral norm, in the compute dtype.
        groups: the batch is this many equal parts, each with batch statistics of its own.
        update_statistics: whether running statistics move (not when a forward pass is repeated).
        frozen: no gradients for batch-norm parameters (the weights' are decided by ``weights``).
        impl: which implementation of the fused operations.
    """

    weights: Mapping[str, Tensor]
    groups: int = 1
    update_statistics: bool = True
    frozen: bool = False
    impl: Impl = "auto"

    def below(self, name: str) -> "Run":
        """The same pass as seen by the submodule ``name``: its weights, by their names within it."""
        prefix = name + "."
        return replace(
            self, weights={k.removeprefix(prefix): v for k, v in self.weights.items() if k.startswith(prefix)}
        )

    def norm_glu(
        self,
        x: Tensor,
        norm: nn.Module,
        *,
        noise: Tensor | None = None,
        noise_weight: Tensor | None = None,
        gate: Tensor | None = None,
    ) -> Tensor:
        weight, bias, mean, variance, momentum, eps = self._norm(norm)
        return norm_glu(
            x, weight, bias, mean, variance, noise=noise, noise_weight=noise_weight, gate=gate,
            momentum=momentum, eps=eps, groups=self.groups, impl=self.impl,
        )  # fmt: skip

    def norm_lrelu(self, x: Tensor, norm: nn.Module) -> Tensor:
        return self._norm_lrelu(x, norm)

    def norm_lrelu_pool(
        self, x: Tensor, norm: nn.Module, *, residual: Tensor | None = None, gate: Tensor | None = None
    ) -> Pooled:
        """``norm_lrelu``, and its 2 x 2 average pooling."""
        return self._norm_lrelu(x, norm, residual=residual, gate=gate, pool=True)

    def _norm_lrelu(self, x: Tensor, norm: nn.Module, **options: Any) -> Any:
        weight, bias, mean, variance, momentum, eps = self._norm(norm)
        return norm_lrelu(
            x, weight, bias, mean, variance, slope=LEAKY_SLOPE,
            momentum=momentum, eps=eps, groups=self.groups, impl=self.impl, **options,
        )  # fmt: skip

    def _norm(self, norm: nn.Module) -> tuple[Tensor, Tensor, Tensor, Tensor, float, float]:
        assert isinstance(norm, nn.BatchNorm2d)
        mean, variance, momentum = norm.running_mean, norm.running_var, norm.momentum
        assert mean is not None
        assert variance is not None
        assert momentum is not None
        weight, bias = (norm.weight.detach(), norm.bias.detach()) if self.frozen else (norm.weight, norm.bias)
        return weight, bias, mean, variance, momentum if self.update_statistics else 0.0, norm.eps


def up_block(run: Run, block: nn.Sequential, x: Tensor, gate: Tensor | None = None) -> Tensor:
    """An ``UpBlock``, its output multiplied by the sigmoid of ``gate``."""
    return run.norm_glu(up_conv(x, run.weights["1"]), block[2], gate=gate)


def up_block_comp(
    run: Run, block: nn.Sequential, x: Tensor, noise: tuple[Tensor, Tensor], gate: Tensor | None = None
) -> Tensor:
    """An ``UpBlockComp``, its output multiplied by the sigmoid of ``gate``."""
    x = up_conv(x, run.weights["1"])
    x = run.norm_glu(x, block[3], noise=noise[0], noise_weight=block[2].get_parameter("weight"))
    x = F.conv2d(x, run.weights["5"], padding=1)
    return run.norm_glu(x, block[7], noise=noise[1], noise_weight=block[6].get_parameter("weight"), gate=gate)


def excitation(run: Run, low: Tensor) -> Tensor:
    """An ``SLEBlock`` up to its sigmoid: the logits of the gate, [B, C]."""
    return sle(low, run.weights["main.1"], run.weights["main.3"], impl=run.impl)


def down_block(run: Run, block: DownBlock, x: Tensor) -> Tensor:
    return run.norm_lrelu(F.conv2d(x, run.weights["main.0"], stride=2, padding=1), block.main[1])


def down_block_comp(run: Run, block: DownBlockComp, x: Pooled, gate: Tensor | None = None) -> Pooled:
    """A ``DownBlockComp``, multiplied by the sigmoid of ``gate``; the mean of both paths is taken in the last norm."""
    whole, pooled = x
    direct = run.norm_lrelu(F.conv2d(pooled, run.weights["direct.1"]), block.direct[2])
    main = run.norm_lrelu(F.conv2d(whole, run.weights["main.0"], stride=2, padding=1), block.main[1])
    main = F.conv2d(main, run.weights["main.3"], padding=1)
    return run.norm_lrelu_pool(main, block.main[4], residual=direct, gate=gate)


def as_input(x: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    """``x`` in the dtype of the weights; maps (4-d) in channels-last layout."""
    dtype = next(iter(weights.values())).dtype
    return x.to(dtype, memory_format=torch.channels_last if x.ndim == 4 else torch.preserve_format)


__all__ = [
    "DownBlock", "DownBlockComp", "Pooled", "Run", "SLEBlock", "as_input", "down_block", "down_block_comp",
    "excitation", "up_block", "up_block_comp",
]  # fmt: skip
