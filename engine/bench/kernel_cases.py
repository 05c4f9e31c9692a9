"""What ``bench kernels`` times: each fused operation on the tensors that an iteration gives it.

Maps have the shapes of the operation's largest launch among the recorded ones of an iteration; what runs over all
tensors of a network (spectral, adam_ema) gets those of G, and the gathering of a batch a resident set.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fastgan_engine.bench.fake_iteration import iteration_launches
from fastgan_engine.build import build_networks
from fastgan_engine.config import Config, resolve
from fastgan_engine.kernels.adam_ema import AdamEma
from fastgan_engine.kernels.batch import gather_batch
from fastgan_engine.kernels.conv_relu import conv_relu
from fastgan_engine.kernels.conv_tap import conv_tap
from fastgan_engine.kernels.diffaug import diffaug, draw_diffaug
from fastgan_engine.kernels.dispatch import Impl
from fastgan_engine.kernels.hinge import draw_margins, hinge
from fastgan_engine.kernels.launch import Launch
from fastgan_engine.kernels.lrelu_pool import lrelu_pool
from fastgan_engine.kernels.norm_glu import norm_glu
from fastgan_engine.kernels.norm_lrelu import norm_lrelu
from fastgan_engine.kernels.sle import sle
from fastgan_engine.kernels.spectral import SpectralBatch, SpectralLayer
from fastgan_engine.kernels.up_conv import up_conv

RESIDENT_IMAGES = 100


@dataclass(frozen=True)
class Case:
    """An operation that takes ``impl``, its tensors, those that want gradients, and what makes it plain PyTorch.

    The function gives one tensor, or several, or none where it works in place; without leaves there is no backward.
    """

    op: str
    function: Callable[..., Any]
    tensors: dict[str, Tensor]
    leaves: tuple[str, ...]
    plain: dict[str, Any] = field(default_factory=lambda: {"impl": "reference"})

    @property
    def shape(self) -> str:
        return " x ".join(map(str, next(iter(self.tensors.values())).shape))


def _like(tensor: Tensor, device: str) -> Tensor:
    x = torch.randn(tensor.shape, device=device).to(tensor.dtype)
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def _norm(op: str, function: Callable[..., Tensor], optional: Sequence[str], launch: Launch, device: str) -> Case:
    found = launch.tensors
    x = _like(found["x_ptr"], device)
    channels = x.shape[1]
    tensors = {"x": x, "weight": torch.ones(channels, device=device), "bias": torch.zeros(channels, device=device)}
    tensors |= {
        "running_mean": torch.zeros(channels, device=device),
        "running_var": torch.ones(channels, device=device),
    }
    tensors |= {name: _like(found[f"{name}_ptr"], device) for name in optional if f"{name}_ptr" in found}
    leaves = tuple(name for name in ("x", "weight", "bias", "noise_weight", "gate", "residual") if name in tensors)
    groups = found["mean_ptr"].numel() // channels
    options = {"pool": True} if "pooled_ptr" in found else {}
    return Case(op, partial(function, groups=groups, **options), tensors, leaves)


def _lrelu_pool(launch: Launch, device: str) -> Case:
    return Case("lrelu_pool", lrelu_pool, {"x": _like(launch.tensors["x_ptr"], device)}, ("x",))


def _sle(launch: Launch, device: str) -> Case:
    low = _like(launch.tensors["low_ptr"], device)
    channels = 8 * low.shape[1]  # as from D's first map to the one that it gates
    w4 = _like(low.new_empty(channels, low.shape[1], 4, 4), device)
    w1 = _like(low.new_empty(channels, channels, 1, 1), device)
    return Case("sle", sle, {"low": low, "w4": w4, "w1": w1}, ("low", "w4", "w1"))


def _diffaug(launch: Launch, device: str) -> Case:
    x = _like(launch.tensors["x_ptr"], device)
    params = draw_diffaug(x.shape[0], x.shape[2], x.shape[3], "color,translation", device=device)
    return Case("diffaug", partial(diffaug, params=params), {"x": x}, ("x",))


def _frozen(y: Tensor, device: str) -> dict[str, Tensor]:
    """Input, weight and bias of a frozen convolution of which y: [B, C, H, W] is the output."""
    channels = y.shape[1]
    weight = _like(y.new_empty(channels, channels, 3, 3), device) / (9 * channels) ** 0.5
    return {"x": _like(y, device), "weight": weight, "bias": _like(y.new_empty(channels), device)}


def _conv_relu(launch: Launch, device: str) -> Case:
    return Case("conv_relu", conv_relu, _frozen(launch.tensors["x_ptr"], device), ("x",))


def _conv_tap(launch: Launch, device: str) -> Case:
    tensors = _frozen(launch.tensors["x_ptr"], device)
    target = _like(launch.tensors["target_ptr"], device).abs()
    linear = torch.rand(target.shape[1], device=device)
    return Case("conv_tap", partial(conv_tap, pool=True), {**tensors, "target": target, "linear": linear}, ("x",))


def _hinge(launch: Launch, device: str) -> Case:
    logits = _like(launch.tensors["logits_ptr"], device)
    margins = [draw_margins(logits.flatten()[: logits.numel() // 2]) for _ in range(2)]
    tensors = {"logits": logits, "margins_real": margins[0], "margins_fake": margins[1]}
    return Case("hinge", partial(hinge, scales=2), tensors, ("logits",))


# The kernel whose largest launch gives an operation its shapes, and what makes a case of it.
BUILDERS: dict[str, Callable[[Launch, str], Case]] = {
    "norm_glu_apply_kernel": partial(_norm, "norm_glu", norm_glu, ("noise", "noise_weight", "gate")),
    "norm_lrelu_apply_kernel": partial(_norm, "norm_lrelu", norm_lrelu, ("residual", "gate")),
    "lrelu_pool_kernel": _lrelu_pool,
    "pool4_kernel": _sle,
    "diffaug_apply_kernel": _diffaug,
    "conv_relu_kernel": _conv_relu,
    "conv_tap_kernel": _conv_tap,
    "hinge_fwd_kernel": _hinge,
}


def _spectral(config: Config, dtype: torch.dtype, device: str) -> Case:
    """One power iteration and the normalised weights of all layers of G."""
    network = build_networks(config, torch.device(device)).generator
    layers = [SpectralLayer.of(module) for module in network.modules() if hasattr(module, "weight_orig")]

    batches: dict[tuple[Impl, int], SpectralBatch] = {}

    def function(impl: Impl, **weights: Tensor) -> tuple[Tensor, ...]:
        given = list(weights.values())
        key = impl, id(given[0])
        if key not in batches:  # prepared once, as in training
            own = [layer._replace(weight=weight) for layer, weight in zip(layers, given, strict=True)]
            batches[key] = SpectralBatch(own, impl=impl)
        return tuple(batches[key].normalised(batches[key].step(), dtype))

    tensors = {f"weight {index}": layer.weight.detach() for index, layer in enumerate(layers)}
    return Case("spectral", function, tensors, tuple(tensors))


def _up_conv(config: Config, dtype: torch.dtype, device: str) -> Case:
    """G's up-convolution from 8 x 8, its normalised weight included; in plain PyTorch as upsampling and convolution."""
    layer = SpectralLayer.of(build_networks(config, torch.device(device)).generator.get_submodule("feat_16.1"))
    weight = layer.weight.detach()
    x = _like(weight.new_empty(config.train.batch, weight.shape[1], 8, 8, dtype=dtype), device)

    def function(x: Tensor, weight: Tensor, impl: Impl) -> Tensor:
        own = layer._replace(weight=weight, upsampled=impl == "triton")
        batch = SpectralBatch([own], impl=impl)
        return up_conv(x, batch.normalised(batch.step(training=False), dtype)[0])

    return Case("up_conv", function, {"x": x, "weight": weight}, ("x", "weight"))


def _adam_ema(config: Config, dtype: torch.dtype, device: str) -> Case:
    """One step over the weights of G and their average."""
    networks = build_networks(config, torch.device(device))
    weights = list(networks.generator.parameters())
    for weight in weights:
        weight.grad = torch.randn_like(weight)
    optimizers: dict[Impl, AdamEma] = {}

    def function(impl: Impl, **_: Tensor) -> None:
        if impl not in optimizers:
            optimizers[impl] = AdamEma(weights, 1e-4, (0.5, 0.999), emas=networks.ema.parameters(), impl=impl)
        optimizers[impl].step()

    return Case("adam_ema", function, {"largest": max(weights, key=Tensor.numel)}, ())


def _batch(config: Config, dtype: torch.dtype, device: str) -> Case:
    model, batch = config.model, config.train.batch
    shape = RESIDENT_IMAGES, model.im_size, model.im_size, model.nc
    tensors = {
        "cache": torch.randint(0, 256, shape, dtype=torch.uint8, device=device),
        "indices": torch.randint(0, RESIDENT_IMAGES, (batch,), device=device),
        "flips": torch.rand(batch, device=device) < 0.5,
    }
    return Case("batch", partial(gather_batch, dtype=torch.float32), tensors, ())


# What runs over all of a network or of a batch.
WHOLE: tuple[Callable[[Config, torch.dtype, str], Case], ...] = (_spectral, _up_conv, _adam_ema, _batch)


def largest_launches(im_size: int, batch: int, dtype: torch.dtype) -> list[Launch]:
    """Of each kernel that gives shapes, the launch on the largest tensors in one iteration."""
    largest: dict[str, tuple[int, Launch]] = {}
    for launch in iteration_launches(im_size, batch, dtype):
        size = sum(tensor.numel() for tensor in launch.tensors.values())
        if launch.name in BUILDERS and size > largest.get(launch.name, (0, launch))[0]:
            largest[launch.name] = size, launch
    return [launch for _, launch in largest.values()]


def cases(im_size: int, batch: int, dtype: torch.dtype) -> list[Callable[[str], Case]]:
    """All of them, to be made on a device."""
    config = resolve(flags={"model.im_size": im_size, "train.batch": batch})
    of_maps = [partial(BUILDERS[launch.name], launch) for launch in largest_launches(im_size, batch, dtype)]
    return [*of_maps, *(partial(build, config, dtype) for build in WHOLE)]
