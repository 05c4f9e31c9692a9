"""The convolution weights of one forward pass: divided by their spectral norm, in the compute dtype, channels-last."""

import torch
from torch import Tensor, nn

from fastgan_engine.kernels.dispatch import Impl
from fastgan_engine.kernels.spectral import SpectralBatch, SpectralLayer


class SpectralWeights:
    """All spectrally normalised layers of a network, prepared once its device and memory format are final.

    ``ready(...)`` gives the weights of a pass by module name. Those with gradients are leaves: several backward passes
    may go through them, and ``collect()`` then carries the sum of their gradients back to ``weight_orig``, through the
    division, once.
    """

    def __init__(self, network: nn.Module, *, dtype: torch.dtype, impl: Impl = "auto") -> None:
        layers = {name: module for name, module in network.named_modules() if hasattr(module, "weight_orig")}
        self.dtype, self.names = dtype, list(layers)
        self.batch = SpectralBatch([SpectralLayer.of(layer) for layer in layers.values()], impl=impl)
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
