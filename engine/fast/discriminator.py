"""The discriminator's training forward, and its decoders', with fused operations."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastgan_engine.fast.layers import Pooled, Run, as_input, down_block, down_block_comp, excitation, up_block
from fastgan_engine.kernels.lrelu_pool import lrelu_pool
from fastgan_engine.networks import Discriminator
from fastgan_engine.networks.blocks import LEAKY_SLOPE, DownBlock, DownBlockComp
from fastgan_engine.networks.discriminator import DECODER_START, SKIPS, STEPS, SimpleDecoder


def discriminate(run: Run, network: Discriminator, big: Tensor, small: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Logits [B, 50] (25 of the big image, 25 of the small one) and the maps (last, feat_32, small) of the decoders."""
    last, feat_32 = features(run, network, big)
    feat_small = _from_small(run.below("down_from_small"), network.down_from_small, small)
    head = run.norm_lrelu(F.conv2d(last, run.weights["rf_big.0"]), network.rf_big[1])
    logits = torch.cat(
        [F.conv2d(head, run.weights["rf_big.3"]).flatten(1), F.conv2d(feat_small, run.weights["rf_small"]).flatten(1)],
        dim=1,
    )
    return logits, (last, feat_32, feat_small)


def features(run: Run, network: Discriminator, big: Tensor) -> tuple[Tensor, Tensor]:
    """The last map [B, 8 ndf, 8, 8] and the one before it [B, 4 ndf, 16, 16]."""
    maps = {network.first: _from_big(run.below("down_from_big"), network.down_from_big, big)}
    for step in STEPS[STEPS.index(network.first) + 1 :]:
        block = network.get_submodule(f"down_{step}")
        assert isinstance(block, DownBlockComp)
        gate = None
        if network.skip and SKIPS.get(step, 0) >= network.first:
            # The means over 4 x 4 bins are those of the means over 2 x 2 squares: the bins are that large.
            _, pooled = maps[SKIPS[step]]
            gate = excitation(run.below(f"se_{SKIPS[step]}_{step}"), pooled)
        maps[step] = down_block_comp(run.below(f"down_{step}"), block, maps[step // 2], gate)
    return maps[64][0], maps[32][0]


def _from_big(run: Run, layers: nn.Sequential, x: Tensor) -> Pooled:
    """One convolution, which keeps the size at 256 and below and halves it above; at 1024 a second one with norm."""
    first = layers[0]
    assert isinstance(first, nn.Conv2d)
    x = F.conv2d(as_input(x, run.weights), run.weights["0"], None, first.stride, first.padding)
    if len(layers) == 2:
        return lrelu_pool(x, slope=LEAKY_SLOPE, impl=run.impl)
    x = F.leaky_relu(x, LEAKY_SLOPE, inplace=True)
    return run.norm_lrelu_pool(F.conv2d(x, run.weights["2"], stride=2, padding=1), layers[3])


def _from_small(run: Run, layers: nn.Sequential, x: Tensor) -> Tensor:
    x = F.conv2d(as_input(x, run.weights), run.weights["0"], stride=2, padding=1)
    x = F.leaky_relu(x, LEAKY_SLOPE, inplace=True)
    for index, block in enumerate(layers):
        if isinstance(block, DownBlock):
            x = down_block(run.below(str(index)), block, x)
    return x


def decode(run: Run, decoder: SimpleDecoder, x: Tensor) -> Tensor:
    """The image that a decoder makes of a map, [B, nc, s, s] in [-1, 1]."""
    if x.shape[2:] != (DECODER_START, DECODER_START):
        x = F.adaptive_avg_pool2d(x, DECODER_START)
    *_, last_block, _, _ = range(len(decoder.main))
    for index in range(1, last_block + 1):
        block = decoder.main[index]
        assert isinstance(block, nn.Sequential)
        x = up_block(run.below(f"main.{index}"), block, x)
    return torch.tanh(F.conv2d(x, run.weights[f"main.{last_block + 1}"], padding=1))
