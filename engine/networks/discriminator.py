"""The FastGAN discriminator with its three decoders, as released, and its 64 and 128 variants."""

import itertools
from typing import Literal, NamedTuple, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastgan_engine.networks.blocks import (
    DownBlock,
    DownBlockComp,
    SLEBlock,
    UpBlock,
    init_weights,
    leaky_relu,
    sn_conv,
)
from fastgan_engine.networks.generator import check_im_size, small_size
from fastgan_engine.self_supervision import SelfSupervision, build_task

# Channels in units of ndf, named after the side of the map at im_size 1024.
MULTIPLIERS = {4: 16, 8: 16, 16: 8, 32: 4, 64: 2, 128: 1, 256: 0.5, 512: 0.25, 1024: 0.125}
DECODERS = "decoder_"  # what the names of their modules begin with
DECODER_UNIT = 32
DECODER_MULTIPLIERS = {16: 4, 32: 2, 64: 2, 128: 1}
DECODER_START = 8
# The map called feat_k has the channels of MULTIPLIERS[1024 / k]; each halving of the image is one step down this list.
STEPS = (2, 4, 8, 16, 32, 64)
# Skip-layer excitation: feat_high is gated by feat_low.
SKIPS = {16: 2, 32: 4, 64: 8}


class Reconstructions(NamedTuple):
    """What the decoders make of the reals: each [B, nc, s, s] in [-1, 1], s = ``small_size(im_size)``."""

    big: Tensor
    small: Tensor
    part: Tensor


def quadrant(x: Tensor, part: int | Tensor) -> Tensor:
    """Quadrant of a map, numbered as released: 0 top left, 1 top right, 2 bottom left, 3 bottom right.

    part: as a 0-dim tensor it is not read on the host.
    """
    if isinstance(part, Tensor):
        return device_quadrant(x, part)
    rows, columns = x.shape[2] // 2, x.shape[3] // 2
    x = x[:, :, :rows] if part < 2 else x[:, :, rows:]
    return x[..., :columns] if part % 2 == 0 else x[..., columns:]


def device_quadrant(x: Tensor, part: Tensor) -> Tensor:
    """Quadrant ``part`` (0-dim tensor, 0..3) of a map, chosen on the device, without reading the value on the host."""
    batch, channels, height, width = x.shape
    quadrants = x.view(batch, channels, 2, height // 2, 2, width // 2).permute(2, 4, 0, 1, 3, 5).flatten(0, 1)
    return quadrants.index_select(0, part.view(1)).squeeze(0).contiguous(memory_format=torch.channels_last)


def decoder_sizes(size: int) -> list[int]:
    """Sides of the maps that the up-blocks of a decoder make on the way to an image of ``size``."""
    return [side for side in DECODER_MULTIPLIERS if side <= size]


class SimpleDecoder(nn.Module):
    """[B, C_in, h, w] -> image [B, nc, size, size] in [-1, 1]: pool to 8 x 8, up-blocks, conv 3x3, tanh."""

    def __init__(self, channels_in: int, nc: int, size: int) -> None:
        super().__init__()
        sizes = decoder_sizes(size)
        channels = [channels_in] + [DECODER_MULTIPLIERS[s] * DECODER_UNIT for s in sizes]
        self.main = nn.Sequential(
            nn.AdaptiveAvgPool2d(DECODER_START),
            *(UpBlock(below, above) for below, above in itertools.pairwise(channels)),
            sn_conv(channels[-1], nc, 3, 1, 1),
            nn.Tanh(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.main(x)


class Discriminator(nn.Module):
    """[big, small] -> logits; on reals also the decoders' reconstructions.

    Args:
        im_size: side of the big image.
        ndf: channel unit.
        nc: image channels (1, 3 or 4).
        skip: with skip-layer excitation.
        decode: with the three decoders.
        self_supervision: "rotation" and "contrastive" add the head of the task; the released network has none.

    Raises:
        ValueError: ``im_size`` is none of the supported sizes.
    """

    def __init__(
        self,
        im_size: int = 256,
        *,
        ndf: int = 64,
        nc: int = 3,
        skip: bool = True,
        decode: bool = True,
        self_supervision: SelfSupervision = "reconstruction",
    ) -> None:
        super().__init__()
        check_im_size(im_size)
        self.im_size, self.ndf, self.nc, self.skip, self.decode = im_size, ndf, nc, skip, decode
        self.small_size = small_size(im_size)
        channels = {size: int(factor * ndf) for size, factor in MULTIPLIERS.items()}
        # feat_k is the map k/2 times smaller than 256 at im_size 256 and up; below 256 the first maps are left out.
        self.first = max(2, 512 // im_size)

        # Modules are registered in the released order, as in Generator.
        self.down_from_big = _from_big(im_size, nc, channels)
        for step in STEPS:
            if step > self.first:
                self.add_module(f"down_{step}", DownBlockComp(channels[2048 // step], channels[1024 // step]))
        self.rf_big = nn.Sequential(
            sn_conv(channels[16], channels[8], 1), nn.BatchNorm2d(channels[8]), leaky_relu(), sn_conv(channels[8], 1, 4)
        )
        for high, low in SKIPS.items():
            if skip and low >= self.first:
                self.add_module(f"se_{low}_{high}", SLEBlock(channels[1024 // low], channels[1024 // high]))
        self.down_from_small = _from_small(self.small_size, nc, channels)
        self.rf_small = sn_conv(channels[32], 1, 4)
        if decode:
            self.decoder_big = SimpleDecoder(channels[16], nc, self.small_size)
            self.decoder_part = SimpleDecoder(channels[32], nc, self.small_size)
            self.decoder_small = SimpleDecoder(channels[32], nc, self.small_size)
        self.task = build_task(self_supervision, channels[16])
        init_weights(self)

    @overload
    def forward(self, images: list[Tensor] | Tensor, label: Literal["fake"] = "fake") -> Tensor: ...
    @overload
    def forward(
        self, images: list[Tensor] | Tensor, label: Literal["real"], part: int | Tensor
    ) -> tuple[Tensor, Reconstructions]: ...
    def forward(
        self, images: list[Tensor] | Tensor, label: str = "fake", part: int | Tensor = 0
    ) -> Tensor | tuple[Tensor, Reconstructions]:
        """Logits [50 B]: the 25 of each big image, then the 25 of each small one.

        images: [big, small], or the big ones alone, whose nearest resize is then the small ones. With ``label="real"``
        and decoders, also the reconstructions; ``part`` is the quadrant that ``decoder_part`` sees.
        """
        if isinstance(images, Tensor):
            images = [images, F.interpolate(images, size=self.small_size)]
        last, feat_32 = self.features(images[0])
        feat_small = self.down_from_small(images[1])
        logits = torch.cat([self.rf_big(last).flatten(), self.rf_small(feat_small).flatten()])
        if label == "fake" or not self.decode:
            return logits
        return logits, Reconstructions(
            big=self.decoder_big(last),
            small=self.decoder_small(feat_small),
            part=self.decoder_part(quadrant(feat_32, part)),
        )

    def up_convs(self) -> dict[str, int]:
        """By name the convolutions that follow an upsampling, with the side of the map that is upsampled."""
        decoders = ("big", "part", "small") if self.decode else ()
        return {
            f"{DECODERS}{name}.main.{index}.1": DECODER_START << (index - 1)
            for name in decoders
            for index, _ in enumerate(decoder_sizes(self.small_size), 1)
        }

    def features(self, big: Tensor) -> tuple[Tensor, Tensor]:
        """The last map [B, 8 ndf, 8, 8] and the one before it [B, 4 ndf, 16, 16]."""
        features = {self.first: self.down_from_big(big)}
        for step in STEPS[STEPS.index(self.first) + 1 :]:
            x = self.get_submodule(f"down_{step}")(features[step // 2])
            if self.skip and SKIPS.get(step, 0) >= self.first:
                x = self.get_submodule(f"se_{SKIPS[step]}_{step}")(features[SKIPS[step]], x)
            features[step] = x
        return features[64], features[32]


def _from_big(im_size: int, nc: int, channels: dict[int, int]) -> nn.Sequential:
    if im_size == 1024:
        return nn.Sequential(
            sn_conv(nc, channels[1024], 4, 2, 1),
            leaky_relu(),
            sn_conv(channels[1024], channels[512], 4, 2, 1),
            nn.BatchNorm2d(channels[512]),
            leaky_relu(),
        )
    if im_size == 512:
        return nn.Sequential(sn_conv(nc, channels[512], 4, 2, 1), leaky_relu())
    return nn.Sequential(sn_conv(nc, channels[2 * im_size], 3, 1, 1), leaky_relu())


def _from_small(size: int, nc: int, channels: dict[int, int]) -> nn.Sequential:
    """From the small image to [B, 4 ndf, 8, 8]; a smaller image starts further down."""
    top = 2 * size
    halvings = [s for s in (256, 128, 64) if s <= top]
    return nn.Sequential(
        sn_conv(nc, channels[halvings[0]], 4, 2, 1),
        leaky_relu(),
        *(DownBlock(channels[s], channels[s // 2]) for s in halvings),
    )
