"""The generator for inference alone: spectral norm and batch norm folded into convolutions with a bias.

In evaluation mode both are constants: a weight W / sigma, then y * a + b for each channel, with
a = gamma / sqrt(variance + eps) and b = beta - mean * a. Together that is one convolution with weight a W / sigma and
bias b. Noise that is added between them is scaled by a too. What is left per layer: convolution, noise, GLU.
"""

import copy
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import remove_spectral_norm
from torch.nn.utils.fusion import fuse_conv_bn_weights

from fastgan_engine.networks import Generator
from fastgan_engine.networks.blocks import InitLayer, NoiseInjection, SLEBlock
from fastgan_engine.networks.generator import COMP_SIZES, SKIPS
from fastgan_engine.sampling import Noise
from fastgan_engine.snapshot import build_generator, constructor_arguments

POOLED = 4  # side of the map that skip-layer excitation looks at


def fold(generator: Generator) -> "FoldedGenerator":
    """The same function as ``generator`` in evaluation mode, as a network of its own without gradients.

    The arithmetic of folding is done in float64; the result has the generator's dtype and device.
    """
    parameter = next(generator.parameters())
    plain = build_generator(constructor_arguments(generator))
    plain.load_state_dict(generator.state_dict())
    plain.eval().double()
    for module in plain.modules():
        if hasattr(module, "weight_orig"):
            remove_spectral_norm(module)
    return FoldedGenerator(plain).requires_grad_(False).eval().to(parameter.device, parameter.dtype)


class FoldedGenerator(nn.Module):
    """z -> image, as ``Generator`` in evaluation mode makes its big one.

    Built by ``fold``. Shapes: z: [B, nz] -> [B, nc, im_size, im_size].
    """

    def __init__(self, plain: Generator) -> None:
        super().__init__()
        self.im_size, self.nz, self.nc, self.bounded = plain.im_size, plain.nz, plain.nc, plain.bounded
        self.first = _First(plain.init)
        self.stages = nn.ModuleList(_Stage(plain, size) for size in plain.sizes)
        self.to_image = copy.deepcopy(plain.to_big)

    def noise_shapes(self) -> dict[str, tuple[int, int, int]]:
        """Names of the noise maps, in the order in which they are used, and their shapes for one image."""
        sizes = [stage.size for stage in self._stages() if stage.second is not None]
        return {f"noise_{size}_{index}": (1, size, size) for size in sizes for index in (1, 2)}

    def forward(self, z: Tensor, noise: Noise | None = None) -> Tensor:
        """noise: as of ``Generator.forward``, but None means none: the image is a function of z alone."""
        features = {POOLED: self.first(z)}
        for stage in self._stages():
            first, second = noise[stage.size] if noise is not None and stage.second is not None else (None, None)
            low = features[SKIPS[stage.size]] if stage.gate is not None else None
            features[stage.size] = stage(features[stage.size // 2], low, first, second)
        image = self.to_image(features[self.im_size])
        return torch.tanh(image) if self.bounded else image

    def _stages(self) -> list["_Stage"]:
        return cast("list[_Stage]", list(self.stages))


class _First(nn.Module):
    """z: [B, nz] -> [B, C, 4, 4]. On a 1 x 1 input the transposed convolution is one matrix product."""

    def __init__(self, layer: InitLayer) -> None:
        super().__init__()
        conv, norm, _ = layer.init
        weight, bias = _folded(conv, norm, transpose=True)
        inputs, channels, height, width = weight.shape
        self.shape = (channels, height, width)
        self.linear = nn.Linear(inputs, channels * height * width)
        self.linear.weight = nn.Parameter(weight.flatten(1).t().contiguous())
        self.linear.bias = nn.Parameter(bias.repeat_interleave(height * width))

    def forward(self, z: Tensor) -> Tensor:
        return F.glu(self.linear(z).unflatten(1, self.shape), dim=1)


class _Layer(nn.Module):
    """Convolution 3x3 with bias, noise where there is some, GLU."""

    strength: Tensor

    def __init__(self, conv: nn.Module, noise: nn.Module | None, norm: nn.Module) -> None:
        super().__init__()
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        weight, bias = _folded(conv, norm, transpose=False)
        self.conv = nn.Conv2d(conv.in_channels, conv.out_channels, 3, padding=1)
        self.conv.weight, self.conv.bias = weight, bias
        if isinstance(noise, NoiseInjection):
            assert norm.running_var is not None
            scale = norm.weight.detach() / (norm.running_var + norm.eps).sqrt()
            self.register_buffer("strength", (noise.weight.detach() * scale).view(1, -1, 1, 1))

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        x = self.conv(x)
        return F.glu(x if noise is None else x + self.strength * noise, dim=1)


class _Stage(nn.Module):
    """[B, C_in, s/2, s/2] -> [B, C_out, s, s]: nearest x2, one layer or two with noise, the gate of a lower map."""

    def __init__(self, plain: Generator, size: int) -> None:
        super().__init__()
        self.size = size
        block = plain.get_submodule(f"feat_{size}")
        assert isinstance(block, nn.Sequential)
        with_noise = size in COMP_SIZES
        self.first = _Layer(block[1], block[2], block[3]) if with_noise else _Layer(block[1], None, block[2])
        self.second = _Layer(block[5], block[6], block[7]) if with_noise else None
        gate = plain.get_submodule(f"se_{size}") if plain.skip and size in SKIPS else None
        assert gate is None or isinstance(gate, SLEBlock)
        self.gate = None if gate is None else copy.deepcopy(gate.main[1:])
        self.pool = SKIPS[size] // POOLED if gate is not None else 1

    def forward(self, x: Tensor, low: Tensor | None, noise_1: Tensor | None, noise_2: Tensor | None) -> Tensor:
        x = self.first(F.interpolate(x, scale_factor=2, mode="nearest"), noise_1)
        if self.second is not None:
            x = self.second(x, noise_2)
        if self.gate is not None and low is not None:
            x = x * self.gate(F.avg_pool2d(low, self.pool))
        return x


def _folded(conv: nn.Module, norm: nn.Module, *, transpose: bool) -> tuple[nn.Parameter, nn.Parameter]:
    assert isinstance(conv, nn.Conv2d | nn.ConvTranspose2d)
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return fuse_conv_bn_weights(
        conv.weight, None, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias, transpose=transpose
    )
