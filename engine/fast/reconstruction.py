"""The decoders' loss with one trunk pass for the three images and one, without graph, for the two targets.

The big and the small reconstruction share their target, so LPIPS sees two target batches a step where the released code
makes three.
"""

import torch
from torch import Tensor

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
        with torch.no_grad():
            targets = self._features(torch.cat([whole, quarter]))
        made = self._features(torch.cat(images))
        total = reals.new_zeros((), dtype=torch.float32)
        for features, target, linear in zip(made, targets, self._linear_weights(), strict=True):
            near = target[: target.shape[0] // 2]
            total = total + lpips_distance(features, torch.cat([near, target]), linear, impl=self.impl).sum()
        return total

    def _features(self, images: Tensor) -> list[Tensor]:
        """The trunk's maps of images in [-1, 1], after each of its slices."""
        network = self.loss.lpips
        x = network.scaling_layer(as_rgb(images).float()).to(self.dtype, memory_format=torch.channels_last)
        features = []
        for index in range(1, network.L + 1):
            x = getattr(network.net, f"slice{index}")(x)
            features.append(x)
        return features

    def _linear_weights(self) -> list[Tensor]:
        return [layer.model[1].weight.flatten() for layer in self.loss.lpips.lins]
