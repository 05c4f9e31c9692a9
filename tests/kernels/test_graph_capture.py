"""Kernels inside a CUDA graph: replays advance the same state as eager steps."""

import pytest
import torch

from fastgan_engine.kernels.adam_ema import AdamEma
from fastgan_engine.kernels.diffaug import diffaug, draw_diffaug
from fastgan_engine.kernels.hinge import draw_margins, hinge
from fastgan_engine.kernels.spectral import SpectralBatch, SpectralLayer

pytestmark = pytest.mark.gpu
WARM_UP, REPLAYS = 3, 4


class Step:
    """Spectral norm, a loss on augmented images, backward, inf check and Adam: one iteration of a toy discriminator."""

    def __init__(self):
        generator = torch.Generator("cuda").manual_seed(0)

        def normal(*shape):
            return torch.randn(*shape, generator=generator, device="cuda")

        weight = normal(8, 4, 3, 3).contiguous(memory_format=torch.channels_last).requires_grad_()
        self.images = normal(2, 4, 16, 16).contiguous(memory_format=torch.channels_last)
        self.params = draw_diffaug(2, 16, 16, "color,translation,cutout", generator=generator, device="cuda")
        self.margins = draw_margins(normal(2, 8 * 14 * 14), generator)
        self.weight, self.ema = weight, weight.detach().clone()
        self.layer = SpectralLayer(weight, normal(8), normal(36))
        self.batch = SpectralBatch([self.layer], impl="triton")
        self.optimizer = AdamEma([weight], 0.01, (0.5, 0.999), emas=[self.ema], impl="triton")

    def __call__(self):
        self.weight.grad = None
        (weight,) = self.batch.normalised(self.batch.step(), torch.float16)
        images = diffaug(self.images, self.params, impl="triton").half()
        logits = torch.nn.functional.conv2d(images, weight)
        hinge(logits.flatten(1), *self.margins, impl="triton").sum().backward()
        self.optimizer.step(found_inf=self.optimizer.find_inf())

    def state(self):
        optimizer = self.optimizer.state[self.weight]
        moments = (optimizer["exp_avg"], optimizer["exp_avg_sq"], optimizer["step"])
        return [self.weight.detach(), self.ema, self.layer.u, self.layer.v, *moments]


def test_replays_equal_eager_steps():
    eager, captured = Step(), Step()
    for _ in range(WARM_UP + REPLAYS):
        eager()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            captured()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured()
    for _ in range(REPLAYS):
        graph.replay()
    for got, expected in zip(captured.state(), eager.state(), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    assert captured.optimizer.state[captured.weight]["step"].item() == WARM_UP + REPLAYS
    # An eager step after the capture finds its own gradients again.
    captured()
    eager()
    torch.testing.assert_close(captured.weight.detach(), eager.weight.detach(), rtol=1e-4, atol=1e-5)
