"""The convolution weights of one forward pass: divided by their spectral norm, in the compute dtype, channels-last."""

import torch
from torch import Tensor, nn


class SpectralWeights:
    """All spectrally normalised layers of a network.

    ``ready(...)`` gives the weights of a pass by module name. Those with gradients are leaves: after backward passes
    through them, ``collect()`` carries their gradients back to ``weight_orig``, through the division, once.
    """

    def __init__(self, network: nn.Module, *, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.layers = {name: module for name, module in network.named_modules() if hasattr(module, "weight_orig")}
        self._pending: list[tuple[Tensor, Tensor]] = []

    def ready(self, *, grad: bool, advance: bool = True) -> dict[str, Tensor]:
        """Weights of the next pass. ``advance``: one power iteration first, as every training forward makes."""
        if advance:
            self._advance()
        with torch.set_grad_enabled(grad):
            normalised = {name: self._normalised(layer) for name, layer in self.layers.items()}
        if not grad:
            return normalised
        leaves = {name: weight.detach().requires_grad_() for name, weight in normalised.items()}
        self._pending = [(normalised[name], leaf) for name, leaf in leaves.items()]
        return leaves

    def collect(self) -> None:
        """Adds the gradients of the last ``ready(grad=True)`` to ``weight_orig.grad``."""
        made, gradients = zip(*((n, leaf.grad) for n, leaf in self._pending if leaf.grad is not None), strict=True)
        torch.autograd.backward(made, gradients)
        self._pending = []

    @torch.no_grad()
    def _advance(self) -> None:
        for layer in self.layers.values():
            matrix = _matrix(layer)
            layer.weight_v.copy_(nn.functional.normalize(matrix.T @ layer.weight_u, dim=0, eps=1e-12))
            layer.weight_u.copy_(nn.functional.normalize(matrix @ layer.weight_v, dim=0, eps=1e-12))

    def _normalised(self, layer: nn.Module) -> Tensor:
        sigma = layer.weight_u @ (_matrix(layer) @ layer.weight_v)  # type: ignore[operator]
        return (layer.weight_orig / sigma).to(self.dtype, memory_format=torch.channels_last)  # type: ignore[operator]


def _matrix(layer: nn.Module) -> Tensor:
    """The weight as the matrix whose largest singular value is the spectral norm: output channels first."""
    weight: Tensor = layer.weight_orig  # type: ignore[assignment]
    if isinstance(layer, nn.ConvTranspose2d):
        weight = weight.transpose(0, 1)
    return weight.flatten(1)
