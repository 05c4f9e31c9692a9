"""Nothing waits on the host: forward and backward run on tensors without values, which cannot be read."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from fastgan_engine.kernels.adam_ema import AdamEma
from fastgan_engine.kernels.batch import gather_batch
from fastgan_engine.kernels.conv_relu import conv_relu
from fastgan_engine.kernels.conv_tap import conv_features, conv_tap
from fastgan_engine.kernels.diffaug import diffaug, draw_diffaug
from fastgan_engine.kernels.hinge import draw_margins, hinge
from fastgan_engine.kernels.lpips_distance import lpips_distance
from fastgan_engine.kernels.spectral import SpectralBatch, SpectralLayer
from fastgan_engine.kernels.up_conv import up_conv


def empty_map(*shape):
    return torch.empty(*shape, memory_format=torch.channels_last, requires_grad=True)


def run_hinge(impl):
    logits = torch.empty(16, 50, requires_grad=True)
    margins = draw_margins(torch.empty(2, 400)).unbind()
    hinge(logits, *margins, scales=2, impl=impl).sum().backward()


def run_diffaug(impl):
    params = draw_diffaug(2, 16, 16, "color,translation,cutout")
    diffaug(empty_map(2, 3, 16, 16), params, impl=impl).sum().backward()


def run_lpips_distance(impl):
    lpips_distance(empty_map(2, 8, 4, 4), empty_map(2, 8, 4, 4), torch.empty(8), impl=impl).sum().backward()


def run_conv_tap(impl):
    weight, bias = torch.empty(8, 8, 3, 3), torch.empty(8)
    x = conv_relu(empty_map(3, 8, 4, 4), weight, bias, impl=impl)
    target, _ = conv_features(empty_map(2, 8, 4, 4), weight, bias, pool=True, impl=impl)
    parts, pooled = conv_tap(x, weight, bias, target, torch.empty(8), pool=True, impl=impl)
    (parts.sum() + pooled.sum()).backward()


def run_up_conv(impl):
    layer = SpectralLayer(empty_map(6, 8, 3, 3), torch.empty(6), torch.empty(72), upsampled=True)
    batch = SpectralBatch([layer], impl=impl)
    (kernel,) = batch.normalised(batch.step(), torch.float32)
    up_conv(empty_map(2, 8, 4, 4), kernel).sum().backward()


def run_spectral(impl):
    layer = SpectralLayer(empty_map(8, 4, 3, 3), torch.empty(8), torch.empty(36))
    batch = SpectralBatch([layer], impl=impl)
    batch.step(training=False)
    (weight,) = batch.normalised(batch.step(), torch.bfloat16)
    weight.sum().backward()


def run_adam_ema(impl):
    weight = empty_map(8, 4, 3, 3)
    weight.grad = torch.empty_like(weight)
    optimizer = AdamEma([weight], 0.1, emas=[torch.empty_like(weight, requires_grad=False)], impl=impl)
    optimizer.step(grad_scale=torch.empty(()), found_inf=optimizer.find_inf())


def run_batch(impl):
    cache, flips = torch.empty(9, 8, 8, 3, dtype=torch.uint8), torch.empty(2, dtype=torch.bool)
    gather_batch(cache, torch.empty(2, dtype=torch.int64), flips, torch.float16, impl=impl)


@pytest.mark.parametrize("impl", ["reference", "triton"])
@pytest.mark.parametrize(
    "run",
    [run_hinge, run_diffaug, run_lpips_distance, run_conv_tap, run_up_conv, run_spectral, run_adam_ema, run_batch],
)
def test_runs_without_values(run, impl):
    with FakeTensorMode():
        run(impl)
