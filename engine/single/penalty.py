"""The gradient penalty of WGAN-GP, without a double backward.

    penalty = mean over pixels of (|dD/dx| - 1)^2,  |.| over the channels

D is linear between the kinks of LeakyReLU, so its gradient with respect to x is D's transposed convolutions applied to
ones, with the slopes of the activations at x between them. Written out so, the penalty is an ordinary function of the
weights: one backward gives its gradient. A double backward gives the same, and spends more: it sends zeros through the
forward pass, and PyTorch computes its weight gradients as convolutions with kernels as large as the image.
Always of fp32 tensors, also under autocast: the penalty subtracts 1 from a norm and squares what is left. On CUDA its
convolutions may run in TF32, as ``precision.tf32`` has it.
Source: Gulrajani et al., NeurIPS 2017 (arXiv 1704.00028), with the norm per pixel of the released ConSinGAN code.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from fastgan_engine.single.networks import SLOPE, Discriminator


def gradient_penalty(discriminator: Discriminator, x: Tensor) -> Tensor:
    """A scalar, differentiable with respect to the weights. x: [1, 3, H, W], fp32 or fp64."""
    with torch.autocast(x.device.type, enabled=False):
        return (torch.linalg.vector_norm(input_gradient(discriminator, x), dim=1) - 1).square().mean()


def input_gradient(discriminator: Discriminator, x: Tensor) -> Tensor:
    """The gradient of D's summed scores with respect to x, as a function of the weights; shaped as x."""
    *body, last = discriminator.convs
    maps = []
    with torch.no_grad():
        for conv in body:
            x = F.leaky_relu(conv(x), SLOPE, inplace=True)
            maps.append(x)
    ones = x.new_ones(x.shape[0], 1, x.shape[2] - 2, x.shape[3] - 2)
    # As an ordinary convolution: PyTorch's transposed one of a single channel is 100 times as slow on a CPU.
    gradient = F.conv2d(ones, last.weight.flip(2, 3).transpose(0, 1), padding=2)
    for conv, activation in zip(reversed(body), reversed(maps), strict=True):
        gradient = torch.ops.aten.leaky_relu_backward(gradient, activation, SLOPE, True)
        gradient = F.conv_transpose2d(gradient, conv.weight)
    return gradient
