"""Spectral norm of all layers of a network at once: power iteration, sigma, and the normalised weights.

For a weight W, seen as a matrix [O, I kh kw] (of a transposed convolution [I, O, kh, kw] with its first two dimensions
exchanged), and the vectors u [O] and v [I kh kw]:

    one power iteration:  v = W^T u / max(|W^T u|, eps),   u = W v / max(|W v|, eps)
    sigma = u . W v,   W_sn = W / sigma,   dW = (G - <G, W_sn> u v^T) / sigma

with G the gradient of W_sn, and u, v constants. A training step iterates once before sigma is taken; an evaluation does
not. The vectors are the module's own buffers in the released order, updated in place, so that checkpoints are exchanged
with ``torch.nn.utils.spectral_norm`` as they are.

A convolution behind a nearest upsampling may run as a transposed one (``up_conv``): its kernel is assembled in the same
pass that divides by sigma.

For a convolution followed by batch norm sigma alone is needed: BN(conv(x, W / sigma)) is BN(conv(x, W)) with its eps
times sigma^2 (``norm_glu(..., sigma=...)``). The engine uses the exact form all the same: normalised weights for all
layers in one launch are a small part of an iteration's bytes (`bench cost` counts them). The folded form, whose output
is equal, drops the gradient through sigma: of a trained pair less than 1e-4 of the weight gradient without noise before
the norm, but 0.5 % with a learned noise weight of 0.025, and most of it at 0.5.

Source: Miyato et al., "Spectral Normalization for Generative Adversarial Networks", ICLR 2018 (arXiv 1802.05957).
Layout: weights channels-last or contiguous; the normalised ones keep it. Inside, v is in the order in which the columns
of W lie in memory, so that W is never copied.
Bytes moved: a step reads all weights twice; normalising reads them once and writes the result; backward reads G and W,
then G again, and writes dW; of an up-convolution W / sigma and G have 16 taps for W's 9. What a network's tables and
vectors add is below 2 %.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fastgan_engine.kernels.arguments import check, check_device, check_shape
from fastgan_engine.kernels.dispatch import Impl, assert_near, has_bf16, self_test, use_triton
from fastgan_engine.kernels.spectral_plan import Matrix, Plan
from fastgan_engine.kernels.up_conv import WEIGHT_TAPS, collect, spread

EPS = 1e-12


class SpectralLayer(NamedTuple):
    """A weight [O, I, kh, kw] (``dim`` 0) or [I, O, kh, kw] (``dim`` 1), and its vectors u [O] and v [I kh kw].

    ``upsampled``: of an up-convolution [O, I, 3, 3]; what is made of it is the kernel of the transposed one
    (``up_conv``).
    """

    weight: Tensor
    u: Tensor
    v: Tensor
    dim: int = 0
    upsampled: bool = False

    @classmethod
    def of(cls, module: nn.Module, *, upsampled: bool = False) -> "SpectralLayer":
        """The layer of a module under the legacy hook ``torch.nn.utils.spectral_norm``."""
        weight, u, v = (getattr(module, f"weight_{part}") for part in ("orig", "u", "v"))
        return cls(weight, u, v, dim=1 if isinstance(module, nn.ConvTranspose2d) else 0, upsampled=upsampled)

    @property
    def inputs_last(self) -> bool:
        """Whether the columns of W lie in memory as (kh, kw, I), not in the released order (I, kh, kw)."""
        return self.dim == 0 and not self.weight.is_contiguous()

    def view(self, tensor: Tensor) -> Tensor:
        """A tensor laid out as the weight as [O, I, taps], its last two exchanged where the inputs lie last."""
        tensor = tensor.transpose(0, self.dim).flatten(2)
        return tensor.transpose(1, 2) if self.inputs_last else tensor

    def to_memory_order(self, v: Tensor) -> Tensor:
        return v.view(self._channels_in, -1).t().flatten() if self.inputs_last else v

    def to_released_order(self, v: Tensor) -> Tensor:
        return v.view(-1, self._channels_in).t().flatten() if self.inputs_last else v

    @property
    def _channels_in(self) -> int:
        return self.weight.shape[1 - self.dim]


class SpectralState(NamedTuple):
    """What a step found: sigma [L], and a copy of all vectors, (u, v) of each layer in turn, v in memory order.

    float32 (float64 for float64 weights). A later step changes the buffers, not the state: a backward pass after
    several forward passes sees the vectors of its own.
    """

    sigma: Tensor
    vectors: Tensor


class SpectralBatch:
    """The layers of one network, prepared once: their order is that of all results.

    Prepare it after the network has its device and memory format. Triton needs the weights of transposed convolutions
    and of up-convolutions channels-last.

    Raises:
        ValueError: no layers, or a wrong shape, dtype, device or layout of a weight or vector.
        RuntimeError: ``impl="triton"`` cannot run here.
    """

    def __init__(self, layers: Sequence[SpectralLayer], *, impl: Impl = "auto") -> None:
        check(len(layers) > 0, "layers", "none", "at least one")
        for index, layer in enumerate(layers):
            _check_layer(f"layers[{index}]", layer, layers[0].weight)
        self.layers = list(layers)
        self.triton = use_triton("spectral", impl, self.layers[0].weight)

    @cached_property
    def plan(self) -> Plan:
        """Tables and launches of the kernels."""
        return Plan([Matrix(x.weight, x.u, x.v, x.dim == 1, x.inputs_last, x.upsampled) for x in self.layers])

    @torch.no_grad()
    def step(self, training: bool = True) -> SpectralState:
        """One power iteration (``training``), which updates u and v in place, and sigma of every layer."""
        if self.triton:
            return SpectralState(*self.plan.step(training, EPS))
        return step_reference(self.layers, training)

    def normalised(self, state: SpectralState, dtype: torch.dtype) -> list[Tensor]:
        """W / sigma of every layer in ``dtype``, laid out as its weight; differentiable in the weights.

        Of an up-convolution the kernel [I, O, 4, 4] that ``up_conv.spread`` makes of it, channels-last.
        """
        function = _NormaliseFunction if self.triton else _ReferenceFunction
        return list(function.apply(self, state, dtype, *(layer.weight for layer in self.layers)))


def _check_layer(name: str, layer: SpectralLayer, like: Tensor) -> None:
    weight = layer.weight
    check_shape(f"{name}.weight", weight, (None,) * 4)
    check(weight.numel() > 0, f"{name}.weight", f"the empty shape {tuple(weight.shape)}", "at least one element")
    check(weight.dtype in (torch.float32, torch.float64), f"{name}.weight", weight.dtype, "float32 (or float64)")
    check(
        weight.is_contiguous() or weight.is_contiguous(memory_format=torch.channels_last),
        f"{name}.weight", f"strides {weight.stride()}", "a contiguous or channels-last tensor",
    )  # fmt: skip
    check(layer.dim in (0, 1), f"{name}.dim", layer.dim, "0, or 1 for a transposed convolution")
    if layer.upsampled:
        check(layer.dim == 0, f"{name}.dim", layer.dim, "0, as of a convolution")
        check_shape(f"{name}.weight", weight, (None, None, WEIGHT_TAPS, WEIGHT_TAPS))
    outputs = weight.shape[layer.dim]
    for part, vector, size in (("u", layer.u, outputs), ("v", layer.v, weight.numel() // outputs)):
        check_shape(f"{name}.{part}", vector, (size,))
        check(vector.is_contiguous(), f"{name}.{part}", f"strides {vector.stride()}", "a contiguous tensor")
    for part, tensor in (("weight", weight), ("u", layer.u), ("v", layer.v)):
        check(tensor.dtype == like.dtype, f"{name}.{part}", tensor.dtype, like.dtype)
        check_device(f"{name}.{part}", tensor, like)


def step_reference(layers: Sequence[SpectralLayer], training: bool) -> SpectralState:
    """``SpectralBatch.step`` in plain PyTorch."""
    sigmas, vectors = [], []
    for layer in layers:
        # A view, but for a contiguous transposed convolution.
        matrix = layer.view(layer.weight).flatten(1)
        u, v = layer.u, layer.to_memory_order(layer.v)
        if training:
            v = F.normalize(matrix.t().mv(u), dim=0, eps=EPS)
        product = matrix.mv(v)
        if training:
            u = F.normalize(product, dim=0, eps=EPS)
            layer.u.copy_(u)
            layer.v.copy_(layer.to_released_order(v))
        sigmas.append(torch.dot(u, product))
        vectors += [u, v]
    return SpectralState(torch.stack(sigmas), torch.cat(vectors))


class _ReferenceFunction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, batch: SpectralBatch, state: SpectralState, dtype: torch.dtype, *weights: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.layers = batch.layers
        ctx.save_for_backward(*state, *weights)
        made = []
        for layer, weight, sigma in zip(batch.layers, weights, state.sigma.unbind(), strict=True):
            normalised = weight / sigma
            made.append(spread(normalised, dtype) if layer.upsampled else normalised.to(dtype))
        return tuple(made)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        sigmas, vectors, *weights = ctx.saved_tensors
        parts = iter(vectors.split([n for layer in ctx.layers for n in (layer.u.numel(), layer.v.numel())]))
        grad_weights = []
        for layer, weight, grad, sigma in zip(ctx.layers, weights, grads, sigmas.split(1), strict=True):
            if layer.upsampled:
                grad = collect(grad, weight.dtype)
            # A sigma of one dimension makes the result as wide as it is.
            out = torch.mul(grad, 1 / sigma, out=torch.empty_like(weight))
            along = torch.dot(_flat(out), _flat(weight)) / sigma
            seen = layer.view(out)
            u, v = next(parts), next(parts)
            seen.addcmul_((u * along)[:, None, None], v.view(seen.shape[1:]), value=-1)
            grad_weights.append(out)
        return None, None, None, *grad_weights


def _flat(x: Tensor) -> Tensor:
    """A dense tensor as it lies in memory."""
    return x.as_strided((x.numel(),), (1,))


class _NormaliseFunction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, batch: SpectralBatch, state: SpectralState, dtype: torch.dtype, *weights: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.plan = batch.plan
        ctx.save_for_backward(*state, *weights)
        return tuple(ctx.plan.normalise(state.sigma, dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        sigma, vectors, *_ = ctx.saved_tensors
        return None, None, None, *ctx.plan.gradients(sigma, vectors, grads)


@self_test("spectral", dtype=torch.float32)
def _self_test(device: torch.device, dtype: torch.dtype) -> None:
    """Vectors, sigma, and the normalised weights with their gradients in each dtype that the card trains in."""
    generator = torch.Generator(device).manual_seed(0)

    def layer_of(shape: tuple[int, ...], dim: int = 0, upsampled: bool = False) -> SpectralLayer:
        sizes = (shape, (shape[dim],), (shape[1 - dim] * shape[2] * shape[3],))
        weight, u, v = (torch.randn(n, generator=generator, device=device, dtype=torch.float64) for n in sizes)
        return SpectralLayer(weight, u, v, dim, upsampled)

    wide = [layer_of((130, 20, 3, 3)), layer_of((5, 3, 3, 3)), layer_of((33, 7, 4, 4), dim=1)]
    wide += [layer_of((40, 48, 3, 3), upsampled=True), layer_of((35, 41, 3, 3), upsampled=True)]
    shapes = [layer.weight.shape for layer in wide[:3]] + [(48, 40, 4, 4), (41, 35, 4, 4)]
    # Representable in every dtype, sums of taps too.
    grads = [torch.randint(-8, 9, shape, generator=generator, device=device) for shape in shapes]
    made = {dtype, torch.float16, *([torch.bfloat16] if has_bf16(device) else [])}
    results = []
    for wanted, triton in ((torch.float32, True), (torch.float64, False)):
        layers = [
            layer._replace(
                weight=layer.weight.to(wanted, memory_format=torch.channels_last, copy=True).requires_grad_(),
                u=layer.u.to(wanted, copy=True), v=layer.v.to(wanted, copy=True),
            )
            for layer in wide
        ]  # fmt: skip
        batch = SpectralBatch(layers, impl="reference")
        batch.triton = triton
        for training in (True, False):
            state = batch.step(training)
        found = [*state, *(layer.v for layer in layers)]
        for low in made:
            out = batch.normalised(state, low if triton else wanted)
            incoming = [grad.to(weight.dtype) for grad, weight in zip(grads, out, strict=True)]
            found += torch.autograd.grad(out, [layer.weight for layer in layers], incoming)
            found += [weight.detach() for weight in out]
        results.append(found)
    assert_near("spectral", *results)
