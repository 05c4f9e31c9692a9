"""The FastGAN generator, as released (256, 512, 1024), and its 64 and 128 variants with the top blocks left out."""

from typing import Literal

import torch
from torch import Tensor, nn

from fastgan_engine.networks.blocks import InitLayer, SLEBlock, UpBlock, UpBlockComp, init_weights, sn_conv

IM_SIZES = (64, 128, 256, 512, 1024)
SMALL_SIZE = 128
TanhPolicy = Literal["auto", "always", "never"]

# Channels at each resolution, in units of ngf.
MULTIPLIERS = {4: 16, 8: 8, 16: 4, 32: 2, 64: 2, 128: 1, 256: 0.5, 512: 0.25, 1024: 0.125}
# Resolutions whose block has two convolutions and noise; the others are plain.
COMP_SIZES = (8, 32, 128, 512)
# Skip-layer excitation: the map at this resolution is gated by the map at that one.
SKIPS = {64: 4, 128: 8, 256: 16, 512: 32}


def small_size(im_size: int) -> int:
    """Side of the second, smaller image that G makes and D looks at: 128, or half of ``im_size`` below 256."""
    return min(SMALL_SIZE, im_size // 2)


def check_im_size(im_size: int) -> None:
    if im_size not in IM_SIZES:
        raise ValueError(f"im_size must be one of {', '.join(map(str, IM_SIZES))}; got {im_size}")


class Generator(nn.Module):
    """z -> [big, small].

    Args:
        im_size: side of the big image, one of ``IM_SIZES``.
        nz: dimension of the latent.
        ngf: channel unit.
        nc: image channels (1, 3 or 4).
        skip: with skip-layer excitation (the paper's ablation switch).
        tanh: "auto" bounds the images only at 1024, as the released code does; "always"; "never".

    Shapes: z: [B, nz] -> big: [B, nc, im_size, im_size], small: [B, nc, s, s] with s = ``small_size(im_size)``.

    Raises:
        ValueError: ``im_size`` is none of the supported sizes.
    """

    def __init__(
        self,
        im_size: int = 256,
        *,
        nz: int = 256,
        ngf: int = 64,
        nc: int = 3,
        skip: bool = True,
        tanh: TanhPolicy = "auto",
    ) -> None:
        super().__init__()
        check_im_size(im_size)
        self.im_size, self.nz, self.ngf, self.nc, self.skip = im_size, nz, ngf, nc, skip
        self.tanh = tanh
        self.sizes = [size for size in MULTIPLIERS if 4 < size <= im_size]
        channels = {size: int(factor * ngf) for size, factor in MULTIPLIERS.items()}

        # Modules are registered in the released order: released files identify averages and optimizer states by the
        # position of their parameter.
        self.init = InitLayer(nz, channels[4])
        self._add_blocks([size for size in self.sizes if size <= 256], channels)
        small = small_size(im_size)
        self.add_module(f"to_{small}", sn_conv(channels[small], nc, 1))
        self.to_big = sn_conv(channels[im_size], nc, 3, 1, 1)
        for size in (size for size in self.sizes if size > 256):
            self._add_blocks([size], channels)
        init_weights(self)

    def _add_blocks(self, sizes: list[int], channels: dict[int, int]) -> None:
        for size in sizes:
            block = UpBlockComp if size in COMP_SIZES else UpBlock
            self.add_module(f"feat_{size}", block(channels[size // 2], channels[size]))
        for size in sizes:
            if self.skip and size in SKIPS:
                self.add_module(f"se_{size}", SLEBlock(channels[SKIPS[size]], channels[size]))

    @property
    def bounded(self) -> bool:
        """Whether tanh is applied to both outputs."""
        return self.tanh == "always" or (self.tanh == "auto" and self.im_size == 1024)

    @property
    def to_small(self) -> nn.Module:
        return self.get_submodule(f"to_{small_size(self.im_size)}")

    def noise_sizes(self) -> list[int]:
        """Resolutions that take noise, two maps [B, 1, size, size] each."""
        return [size for size in self.sizes if size in COMP_SIZES]

    def up_convs(self) -> dict[str, int]:
        """By name the convolutions that follow an upsampling, with the side of the map that is upsampled."""
        return {f"feat_{size}.1": size // 2 for size in self.sizes}

    def low_features(self, z: Tensor, noise: dict[int, tuple[Tensor, Tensor]] | None = None) -> dict[int, Tensor]:
        """The maps that gate others, and those below them: 4 to 32 pixels, by resolution."""
        features = {4: self.init(z)}
        for size in (size for size in self.sizes if size <= max(SKIPS.values())):
            features[size] = self._grow(size, features, noise)
        return features

    def forward(
        self,
        z: Tensor,
        noise: dict[int, tuple[Tensor, Tensor]] | None = None,
        style: dict[int, Tensor] | None = None,
    ) -> list[Tensor]:
        """Images of latents.

        noise: the two maps of each of ``noise_sizes()``; drawn here where None.
        style: ``low_features`` of other latents, which gate in place of this pass's own (the paper's style mixing).
        """
        features = self.low_features(z, noise)
        gating = features if style is None else style
        for size in (size for size in self.sizes if size not in features):
            x = self._grow(size, features, noise)
            if self.skip and size in SKIPS:
                x = self.get_submodule(f"se_{size}")(gating[SKIPS[size]], x)
            features[size] = x
        images = [self.to_big(features[self.im_size]), self.to_small(features[small_size(self.im_size)])]
        return [torch.tanh(image) for image in images] if self.bounded else images

    def _grow(self, size: int, features: dict[int, Tensor], noise: dict[int, tuple[Tensor, Tensor]] | None) -> Tensor:
        """The block of a resolution, on the map below it; without its gate."""
        block, below = self.get_submodule(f"feat_{size}"), features[size // 2]
        return block(below, noise[size]) if noise is not None and size in COMP_SIZES else block(below)
