"""The convolution weights of one forward pass: divided by their spectral norm, in the compute dtype, channels-last."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fastgan_engine.kernels.dispatch import Impl
from fastgan_engine.kernels.spectral import SpectralBatch, SpectralLayer
from fastgan_engine.kernels.up_conv import transposed_from


class SpectralWeights:
    """The spectrally normalised layers of a network, prepared once its device and memory format are final.

    ``ready(...)`` gives the weights of a pass by module name. Those with gradients are leaves: several backward passes
    may go through them, and ``collect()`` then carries the sum of their gradients back to ``weight_orig``, through the
    division, once.

    Args:
        up_convs: by name the convolutions that follow a nearest upsampling, with the pixels of their input in the whole
            batch: from ``transpose_from`` pixels on (None: the kernels' own rule) the weight is the kernel of the
            transposed convolution, which ``up_conv`` takes as well.
        without: layers whose names begin so are left out.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        dtype: torch.dtype,
        impl: Impl = "auto",
        up_convs: Mapping[str, int] | None = None,
        transpose_from: int | None = None,
        without: tuple[str, ...] = (),
    ) -> None:
        layers = {
            name: module
            for name, module in network.named_modules()
            if hasattr(module, "weight_orig") and not name.startswith(without)
        }
        self.dtype, self.names = dtype, list(layers)
        if transpose_from is None:
            transpose_from = transposed_from(impl, next(network.parameters()))
        self.transposed = {name for name in layers if (up_convs or {}).get(name, 0) >= transpose_from}
        self.batch = SpectralBatch(
            [SpectralLayer.of(module, upsampled=name in self.transposed) for name, module in layers.items()], impl=impl
        )
        self._pending: list[tuple[Tensor, Tensor]] = []

    def ready(self, *, grad: bool) -> dict[str, Tensor]:
        """Weights of the next pass, after one power iteration, as every training forward makes."""
        with torch.set_grad_enabled(grad):
            normalised = self.batch.normalised(self.batch.step(), self.dtype)
        if not grad:
            return dict(zip(self.names, normalised, strict=True))
        leaves = [weight.detach().requires_grad_() for weight in normalised]
        self._pending = list(zip(normalised, leaves, strict=True))
        return dict(zip(self.names, leaves, strict=True))

    def collect(self) -> None:
        """Adds the gradients of the last ``ready(grad=True)`` to ``weight_orig.grad``; unused weights get 0."""
        used = [(made, leaf.grad) for made, leaf in self._pending if leaf.grad is not None]
        torch.autograd.backward([made for made, _ in used], [grad for _, grad in used])
        self._pending = []
