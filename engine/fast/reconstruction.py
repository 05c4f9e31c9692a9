"""The decoders' loss with one trunk pass for the three images and one, without graph, for the two targets.

The big and the small reconstruction share their target, so LPIPS sees two target batches a step where the released code
makes three. VGG16 is a chain of 3x3 convolutions, whose bias, ReLU, distance and pooling are one pass each
(``kernels.conv_tap``); SqueezeNet is run by its own modules.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fastgan_engine.kernels.conv_relu import conv_relu
from fastgan_engine.kernels.conv_tap import conv_features, conv_tap
from fastgan_engine.kernels.dispatch import Impl
from fastgan_engine.kernels.lpips_distance import lpips_distance
from fastgan_engine.networks.discriminator import device_quadrant
from fastgan_engine.perceptual import as_rgb
from fastgan_engine.reconstruction import ReconstructionLoss, resize


class FastReconstruction:
    """``ReconstructionLoss.released`` in the compute dtype and channels-last; the distances themselves in fp32.

    Takes over ``loss.lpips``: its trunk is converted in place.
    """

    def __init__(self, loss: ReconstructionLoss, *, dtype: torch.dtype, impl: Impl = "auto") -> None:
        self.loss, self.dtype, self.impl = loss, dtype, impl
        if loss.lpips is not None:
            loss.lpips.net.to(dtype=dtype, memory_format=torch.channels_last)
            scaling = loss.lpips.scaling_layer
            self.factor, self.offset = 1 / scaling.scale, -scaling.shift / scaling.scale

    def __call__(self, images: list[Tensor], reals: Tensor, part: Tensor) -> Tensor:
        """Scalar, summed over the batch.

        images: the decoders' [big, small, part], each [B, C, s, s]; reals: the augmented reals [B, C, H, W]; part: the
        quadrant, 0-dim tensor.
        """
        size = images[0].shape[-1]
        whole, quarter = resize(reals, size), resize(device_quadrant(reals, part), size)
        if self.loss.lpips is None:
            pairs = zip(images, (whole, whole, quarter), strict=True)
            return torch.stack([self.loss(image.float(), target.float()) for image, target in pairs]).sum()
        # Image n is compared with target n modulo their number: the big and the small one with the first.
        big, small, part_image = images
        made, targets = self._seen([big, part_image, small]), self._seen(self.distinct(whole, quarter))
        if self.loss.kind == "lpips-vgg":
            return self._through_vgg(made, targets)
        with torch.no_grad():
            wanted = self._features(targets)
        compared = zip(self._features(made), wanted, self._linear_weights(), strict=True)
        return torch.cat([lpips_distance(a, b, linear, impl=self.impl) for a, b, linear in compared]).sum()

    @staticmethod
    def distinct(whole: Tensor, quarter: Tensor) -> list[Tensor]:
        """The targets of the big and the part reconstruction; the small one's is the first again."""
        return [whole, quarter]

    def _seen(self, images: list[Tensor]) -> Tensor:
        """Images in [-1, 1] as the trunk sees them: one batch of three standardised channels."""
        return _Standardise.apply(torch.cat([as_rgb(x) for x in images]), self.factor, self.offset, self.dtype)

    def _through_vgg(self, x: Tensor, wanted: Tensor) -> Tensor:
        """Slice by slice with images and targets side by side, so that a slice's features need not outlive it."""
        distances: list[Tensor] = []
        slices, linear_weights = list(self._slices()), self._linear_weights()
        for number, (convolutions, linear) in enumerate(zip(slices, linear_weights, strict=True), 1):
            *first, last = convolutions
            pool = number < len(slices)
            for layer in first:
                x = conv_relu(x, *layer, impl=self.impl)
                wanted = conv_relu(wanted, *layer, impl=self.impl)
            target, pooled_target = conv_features(wanted, *last, pool=pool, impl=self.impl)
            distance, pooled = conv_tap(x, *last, target, linear, pool=pool, impl=self.impl)
            distances.append(distance.flatten())
            if pooled is not None and pooled_target is not None:
                x, wanted = pooled, pooled_target
        return torch.cat(distances).sum()

    def _slices(self) -> Iterator[list[tuple[Tensor, Tensor]]]:
        """Weights and biases of the convolutions of each of VGG16's slices; pooling is between the slices."""
        network = self.loss.lpips.net
        for index in range(1, network.N_slices + 1):
            layers = getattr(network, f"slice{index}")
            convolutions = (layer for layer in layers if isinstance(layer, nn.Conv2d))
            yield [(layer.weight, layer.get_parameter("bias")) for layer in convolutions]

    def _features(self, x: Tensor) -> list[Tensor]:
        """The trunk's maps after each of its slices."""
        features = []
        for index in range(1, self.loss.lpips.L + 1):
            x = getattr(self.loss.lpips.net, f"slice{index}")(x)
            features.append(x)
        return features

    def _linear_weights(self) -> list[Tensor]:
        return [layer.model[1].weight.flatten() for layer in self.loss.lpips.lins]


class _Standardise(torch.autograd.Function):
    """factor x + offset in float32, to ``dtype`` and channels-last in the same pass; factor, offset: [1, C, 1, 1]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: Tensor, offset: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.dtype = x.dtype
        ctx.save_for_backward(factor)
        y = torch.empty_like(x, dtype=dtype, memory_format=torch.channels_last)
        return torch.addcmul(offset, x, factor, out=y)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (factor,) = ctx.saved_tensors
        return torch.mul(grad, factor, out=torch.empty_like(grad, dtype=ctx.dtype)), None, None, None
