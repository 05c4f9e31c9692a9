"""Kernels inside a CUDA graph: replays advance the same state as eager steps."""

import pytest
import torch

from fastgan_engine.kernels.adam_ema import AdamEma
from fastgan_engine.kernels.diffaug import diffaug, draw_diffaug
from fastgan_engine.kernels.hinge import draw_margins, hinge
from fastgan_engine.kernels.spectral import SpectralBatch, SpectralLayer
from fastgan_engine.kernels.up_conv import up_conv

WARM_UP, REPLAYS = 3, 4


class Step:
    """One iteration of a toy discriminator with an up-convolution before it: spectral norms, a loss on augmented
    images, backward, inf check and Adam. Gradients are found by their addresses, which autograd chooses.
    """

    def __init__(self, device: str) -> None:
        generator = torch.Generator(device).manual_seed(0)

        def normal(*shape):
            return torch.randn(*shape, generator=generator, device=device)

        def channels_last(*shape):
            return normal(*shape).contiguous(memory_format=torch.channels_last)

        self.dtype = torch.float16 if device == "cuda" else torch.float32
        self.images = channels_last(2, 4, 8, 8).to(self.dtype)
        self.params = draw_diffaug(2, 16, 16, "color,translation,cutout", generator=generator, device=device)
        self.margins = draw_margins(normal(2, 8 * 14 * 14), generator)
        self.weights = [channels_last(4, 4, 3, 3).requires_grad_(), channels_last(8, 4, 3, 3).requires_grad_()]
        self.emas = [weight.detach().clone() for weight in self.weights]
        self.layers = [
            SpectralLayer(weight, normal(weight.shape[0]), normal(36), upsampled=index == 0)
            for index, weight in enumerate(self.weights)
        ]
        self.batch = SpectralBatch(self.layers, impl="triton")
        self.optimizer = AdamEma(self.weights, 0.01, (0.5, 0.999), emas=self.emas, impl="triton")

    def __call__(self) -> None:
        self.optimizer.zero_grad()
        kernel, weight = self.batch.normalised(self.batch.step(), self.dtype)
        images = diffaug(up_conv(self.images, kernel), self.params, impl="triton")
        logits = torch.nn.functional.conv2d(images, weight)
        hinge(logits.flatten(1), *self.margins, impl="triton").sum().backward()
        self.optimizer.step(found_inf=self.optimizer.find_inf())

    def state(self) -> list[torch.Tensor]:
        moments = [value for weight in self.weights for value in self.optimizer.state[weight].values()]
        vectors = [vector for layer in self.layers for vector in (layer.u, layer.v)]
        return [*(weight.detach() for weight in self.weights), *self.emas, *vectors, *moments]


def test_eager_steps_move_everything() -> None:
    step = Step("cpu")
    before = [tensor.clone() for tensor in step.state()]
    step()
    assert all(not torch.equal(a, b) for a, b in zip(step.state(), before, strict=True))
    assert all(tensor.isfinite().all() for tensor in step.state())


@pytest.mark.gpu
def test_replays_equal_eager_steps() -> None:
    eager, captured = Step("cuda"), Step("cuda")
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
    steps = {captured.optimizer.state[weight]["step"].item() for weight in captured.weights}
    assert steps == {WARM_UP + REPLAYS}
    # An eager step after the capture finds its own gradients again.
    captured()
    eager()
    for got, expected in zip(captured.state(), eager.state(), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
