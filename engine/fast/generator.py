"""The generator's training forward with fused operations."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fastgan_engine.fast.layers import Run, as_input, excitation, up_block, up_block_comp
from fastgan_engine.networks import Generator, small_size
from fastgan_engine.networks.generator import COMP_SIZES, SKIPS


def generate(run: Run, network: Generator, z: Tensor, noise: dict[int, tuple[Tensor, Tensor]]) -> list[Tensor]:
    """[big, small] of latents z [B, nz], in the compute dtype, channels-last; ``noise`` as ``Generator.forward``."""
    features = {4: _first(run, network, z)}
    for size in network.sizes:
        gate = None
        if network.skip and size in SKIPS:
            gate = excitation(run.below(f"se_{size}"), features[SKIPS[size]])
        block, within, below = network.get_submodule(f"feat_{size}"), run.below(f"feat_{size}"), features[size // 2]
        assert isinstance(block, torch.nn.Sequential)
        if size in COMP_SIZES:
            features[size] = up_block_comp(within, block, below, noise[size], gate)
        else:
            features[size] = up_block(within, block, below, gate)
    small = small_size(network.im_size)
    images = [
        F.conv2d(features[network.im_size], run.weights["to_big"], padding=1),
        F.conv2d(features[small], run.weights[f"to_{small}"]),
    ]
    return [torch.tanh(image) for image in images] if network.bounded else images


def _first(run: Run, network: Generator, z: Tensor) -> Tensor:
    """The init layer: on a 1 x 1 input the transposed convolution is one matrix product."""
    weight = run.weights["init.init.0"].permute(0, 2, 3, 1)  # no copy of a channels-last weight, nor of the map
    x = as_input(z, run.weights) @ weight.flatten(1)
    return run.norm_glu(x.view(z.shape[0], *weight.shape[1:]).permute(0, 3, 1, 2), network.init.init[1])
