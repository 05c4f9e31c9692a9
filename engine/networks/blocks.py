"""Building blocks of the released FastGAN networks, in plain PyTorch.

Module nesting fixes the state-dict keys of released checkpoints, so the blocks are ``nn.Sequential`` with the released
positions. All convolutions have no bias and carry spectral norm (the legacy hook of PyTorch: one power iteration per
training forward; ``weight_orig``, ``weight_u``, ``weight_v`` in the state dict).

Source: Liu et al., "Towards Faster and Stabilized GAN Training for High-fidelity Few-shot Image Synthesis", ICLR 2021
(arXiv 2101.04775), and the code its authors released.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils import spectral_norm

LEAKY_SLOPE = 0.2


def sn_conv(channels_in: int, channels_out: int, kernel: int, stride: int = 1, padding: int = 0) -> nn.Conv2d:
    """Convolution without bias under spectral norm."""
    return spectral_norm(nn.Conv2d(channels_in, channels_out, kernel, stride, padding, bias=False))


def leaky_relu() -> nn.LeakyReLU:
    return nn.LeakyReLU(LEAKY_SLOPE, inplace=True)


class NoiseInjection(nn.Module):
    """x + w * noise, with one learned scalar w (initially 0) and noise ~ N(0, 1) of shape [B, 1, H, W]."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        if noise is None:
            noise = torch.randn(x.shape[0], 1, *x.shape[2:], dtype=x.dtype, device=x.device)
        return x + self.weight * noise


class InitLayer(nn.Module):
    """z: [B, nz] -> [B, channels, 4, 4]: transposed convolution, batch norm, GLU."""

    def __init__(self, nz: int, channels: int) -> None:
        super().__init__()
        self.init = nn.Sequential(
            spectral_norm(nn.ConvTranspose2d(nz, channels * 2, 4, 1, 0, bias=False)),
            nn.BatchNorm2d(channels * 2),
            nn.GLU(dim=1),
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.init(z.view(z.shape[0], -1, 1, 1))


class UpBlock(nn.Sequential):
    """[B, C_in, H, W] -> [B, C_out, 2H, 2W]: nearest x2, conv 3x3, batch norm, GLU."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(
            nn.Upsample(scale_factor=2, mode="nearest"),
            sn_conv(channels_in, channels_out * 2, 3, 1, 1),
            nn.BatchNorm2d(channels_out * 2),
            nn.GLU(dim=1),
        )


class UpBlockComp(nn.Sequential):
    """[B, C_in, H, W] -> [B, C_out, 2H, 2W]: as ``UpBlock``, with noise, and a second conv 3x3, noise, norm, GLU."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(
            nn.Upsample(scale_factor=2, mode="nearest"),
            sn_conv(channels_in, channels_out * 2, 3, 1, 1),
            NoiseInjection(),
            nn.BatchNorm2d(channels_out * 2),
            nn.GLU(dim=1),
            sn_conv(channels_out, channels_out * 2, 3, 1, 1),
            NoiseInjection(),
            nn.BatchNorm2d(channels_out * 2),
            nn.GLU(dim=1),
        )

    def forward(self, x: Tensor, noise: tuple[Tensor, Tensor] | None = None) -> Tensor:
        up, conv1, noise1, norm1, glu1, conv2, noise2, norm2, glu2 = self
        first, second = noise if noise is not None else (None, None)
        x = glu1(norm1(noise1(conv1(up(x)), first)))
        return glu2(norm2(noise2(conv2(x), second)))


class SLEBlock(nn.Module):
    """Skip-layer excitation: ``high * sigmoid(conv1(swish(conv4(pool4(low)))))``, channel by channel.

    low: [B, C_low, h, w], high: [B, C_high, H, W] -> [B, C_high, H, W]. The paper's text says LeakyReLU; the released
    code, followed here, uses Swish.
    """

    def __init__(self, channels_low: int, channels_high: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.AdaptiveAvgPool2d(4),
            sn_conv(channels_low, channels_high, 4),
            nn.SiLU(),
            sn_conv(channels_high, channels_high, 1),
            nn.Sigmoid(),
        )

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        return high * self.main(low)


class DownBlock(nn.Module):
    """[B, C_in, H, W] -> [B, C_out, H/2, W/2]: conv 4x4 stride 2, batch norm, LeakyReLU."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            sn_conv(channels_in, channels_out, 4, 2, 1), nn.BatchNorm2d(channels_out), leaky_relu()
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.main(x)


class DownBlockComp(nn.Module):
    """[B, C_in, H, W] -> [B, C_out, H/2, W/2]: the mean of a two-convolution and a pooled one-convolution path."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            sn_conv(channels_in, channels_out, 4, 2, 1),
            nn.BatchNorm2d(channels_out),
            leaky_relu(),
            sn_conv(channels_out, channels_out, 3, 1, 1),
            nn.BatchNorm2d(channels_out),
            leaky_relu(),
        )
        self.direct = nn.Sequential(
            nn.AvgPool2d(2, 2), sn_conv(channels_in, channels_out, 1), nn.BatchNorm2d(channels_out), leaky_relu()
        )

    def forward(self, x: Tensor) -> Tensor:
        return (self.main(x) + self.direct(x)) / 2


def init_weights(network: nn.Module) -> None:
    """Released initialisation: conv weights N(0, 0.02); batch-norm weights N(1, 0.02) and biases 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight_orig, 0.0, 0.02)  # type: ignore[arg-type]
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
            nn.init.zeros_(module.bias)
