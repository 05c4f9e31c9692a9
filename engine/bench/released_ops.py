"""The released code's spelling of operations that ``networks`` and ``reference_step`` write shorter.

The same functions of the same draws, but other operations: GLU as slice, sigmoid and product, swish as a product with
the sigmoid, DiffAugment step by step under autograd, the average of the weights parameter by parameter. What
``reference_step`` computes with these is the released recipe operation by operation, which is what the cost of the
reference means.

Source: the code released with Liu et al., ICLR 2021 (arXiv 2101.04775), and with Zhao et al., NeurIPS 2020
(arXiv 2006.10738).
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastgan_engine import reference_step
from fastgan_engine.kernels.diffaug import DiffAugParams


def glu(x: Tensor) -> Tensor:
    """First half of the channels times the sigmoid of the second."""
    half = x.shape[1] // 2
    return x[:, :half] * torch.sigmoid(x[:, half:])


def swish(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def diffaug(x: Tensor, params: DiffAugParams) -> Tensor:
    """DiffAugment's policies color and translation, as far as ``params`` draws them.

    Raises:
        ValueError: ``params`` draws a cutout, which the released recipe does not use.
    """
    if params.cutout_y is not None:
        raise ValueError("params: got a cutout, expected color and translation, the released policy")
    if params.contrast is not None:
        assert params.brightness is not None
        assert params.saturation is not None
        brightness, saturation, contrast = (value.view(-1, 1, 1, 1) for value in params[:3] if value is not None)
        x = x + brightness
        mean = x.mean(1, keepdim=True)
        x = (x - mean) * saturation + mean
        mean = x.mean((1, 2, 3), keepdim=True)
        x = (x - mean) * contrast + mean
    if params.shift_y is not None:
        assert params.shift_x is not None
        x = _translate(x, params.shift_y, params.shift_x)
    return x.contiguous()


def _translate(x: Tensor, shift_y: Tensor, shift_x: Tensor) -> Tensor:
    """Reads through a frame of zeros one pixel wide, on which everything outside falls."""
    batch, _, height, width = x.shape
    image, rows, columns = torch.meshgrid(
        torch.arange(batch, device=x.device),
        torch.arange(height, device=x.device),
        torch.arange(width, device=x.device),
        indexing="ij",
    )
    rows = torch.clamp(rows + shift_y.view(-1, 1, 1) + 1, 0, height + 1)
    columns = torch.clamp(columns + shift_x.view(-1, 1, 1) + 1, 0, width + 1)
    framed = F.pad(x, [1, 1, 1, 1, 0, 0, 0, 0])
    return framed.permute(0, 2, 3, 1).contiguous()[image, rows, columns].permute(0, 3, 1, 2)


@torch.no_grad()
def update_ema(ema: nn.Module, live: nn.Module, decay: float) -> None:
    """ema <- decay * ema + (1 - decay) * live, of the weights alone, one after the other."""
    for average, weight in zip(ema.parameters(), live.parameters(), strict=True):
        average.mul_(decay).add_((1 - decay) * weight.data)


@contextmanager
def released_ops() -> Iterator[None]:
    """Inside, the reference networks and the reference step are made of the operations above."""
    with ExitStack() as stack:
        for owner, name, function in (
            (nn.GLU, "forward", lambda _, x: glu(x)),
            (nn.SiLU, "forward", lambda _, x: swish(x)),
            (reference_step, "diffaug", lambda x, params, impl: diffaug(x, params)),
            (reference_step, "update_ema", update_ema),
        ):
            stack.enter_context(mock.patch.object(owner, name, function))
        yield
