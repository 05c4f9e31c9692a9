"""Resampling and the gradient penalty against PyTorch's own; the generator's sizes and its frozen part."""

import pytest
import torch
import torch.nn.functional as F

from fastgan_engine.single.inputs import noise_shapes
from fastgan_engine.single.networks import Discriminator, Generator
from fastgan_engine.single.penalty import gradient_penalty, input_gradient
from fastgan_engine.single.resize import Size, resize
from tests.engine.single.small import begun, small_single


@pytest.mark.parametrize("margin", [0, 3])
@pytest.mark.parametrize("size", [(20, 23), (13, 30), (9, 11), (1, 5), (13, 17)])
def test_resize_is_bicubic_with_aligned_corners(size: tuple[int, int], margin: int) -> None:
    x = torch.randn(2, 5, 13, 17, dtype=torch.float64, requires_grad=True)
    larger = (size[0] + 2 * margin, size[1] + 2 * margin)
    expected = F.interpolate(x, size=larger, mode="bicubic", align_corners=True)
    made = resize(x, size, margin=margin)
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-13)
    g = torch.randn_like(expected)
    gradients = [torch.autograd.grad(y, x, g)[0] for y in (made, expected)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)


def discriminator(filters: int = 6) -> Discriminator:
    made = Discriminator(filters=filters).double()
    with torch.no_grad():
        for weight in made.parameters():
            weight.mul_(8)
    return made


def by_double_backward(network: Discriminator, x: torch.Tensor) -> torch.Tensor:
    x = x.clone().requires_grad_()
    gradient = torch.autograd.grad(network(x).sum(), x, create_graph=True)[0]
    return ((gradient.norm(2, dim=1) - 1) ** 2).mean()


def test_the_penalty_and_its_gradient_are_those_of_a_double_backward() -> None:
    network = discriminator()
    x = torch.randn(1, 3, 20, 19, dtype=torch.float64)
    weights = [conv.weight for conv in network.convs]
    made, expected = gradient_penalty(network, x), by_double_backward(network, x)
    assert expected > 0.1
    torch.testing.assert_close(made, expected, rtol=1e-12, atol=0)
    for a, b in zip(torch.autograd.grad(made, weights), torch.autograd.grad(expected, weights), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-14)


def test_the_penalty_leaves_the_biases_alone() -> None:
    network = discriminator()
    gradient_penalty(network, torch.randn(1, 3, 14, 14, dtype=torch.float64)).backward()
    assert all(conv.bias.grad is None for conv in network.convs)


def test_gradients_of_the_penalty_by_finite_differences() -> None:
    """gradcheck and gradgradcheck of what the penalty is made of: D's input gradient, and D itself twice."""
    torch.manual_seed(1)
    network = discriminator(filters=2)
    x = torch.randn(1, 3, 12, 12, dtype=torch.float64)
    weights = [conv.weight for conv in network.convs]

    def chain(*values: torch.Tensor) -> torch.Tensor:
        names = [f"convs.{index}.weight" for index in range(len(values))]
        return torch.func.functional_call(
            _Chain(network), {f"network.{n}": v for n, v in zip(names, values, strict=True)}, x
        )

    inputs = [weight.detach().clone().requires_grad_() for weight in weights]
    assert torch.autograd.gradcheck(chain, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(chain, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(network, x.clone().requires_grad_(), fast_mode=True)


class _Chain(torch.nn.Module):
    def __init__(self, network: Discriminator) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return input_gradient(self.network, x)


def test_the_penalty_stays_in_fp32_under_autocast() -> None:
    network = discriminator().float()
    x = torch.randn(1, 3, 20, 20)
    with torch.autocast("cpu", torch.bfloat16):
        made = gradient_penalty(network, x)
    assert made.dtype == torch.float32
    assert made.item() == pytest.approx(by_double_backward(network, x).item(), rel=1e-5)


@pytest.mark.parametrize("mode", ["generate", "retarget", "harmonize", "edit", "animate"])
def test_every_mode_makes_images_of_the_stages_size_and_the_frozen_part_is_the_same(mode: str) -> None:
    single = small_single(mode=mode, stages=4)
    state, _, sizes = begun(single, 3, torch.float64)
    generator = state.networks.generator
    whole = generator(state.fixed, sizes, state.amplitudes)
    assert whole.shape == (1, 3, *sizes[-1])
    for first in (1, 2, 3):
        entry = generator.entry(first, state.fixed, sizes, state.amplitudes)
        parted = generator.above(first, entry, state.fixed, sizes, state.amplitudes)
        torch.testing.assert_close(parted, whole, rtol=0, atol=1e-12)


def test_the_ends_of_a_wider_image_are_made_as_in_training() -> None:
    """Given the same noise near the borders: what is made there does not depend on how far the other border is."""
    torch.manual_seed(0)
    generator = Generator(filters=4, batch_norm=False, varies_borders=True).double()
    generator.grow()
    generator.grow()
    with torch.no_grad():
        for weight in generator.parameters():
            weight.mul_(8)
    trained, wide, amplitudes = [(16, 60), (18, 70), (20, 80)], [(16, 120), (18, 141), (20, 159)], [1.0, 0.5, 0.5]
    narrow_noise, wide_noise = [], []
    for narrow, shape in zip(shapes(trained), shapes(wide), strict=True):
        narrow_noise.append(torch.randn(narrow, dtype=torch.float64))
        wide_noise.append(torch.randn(shape, dtype=torch.float64))
        half = narrow[3] // 2
        wide_noise[-1][..., :half] = narrow_noise[-1][..., :half]
        wide_noise[-1][..., -half:] = narrow_noise[-1][..., -half:]
    expected = generator(narrow_noise, trained, amplitudes)
    made = generator(wide_noise, wide, amplitudes, trained)
    released = generator(wide_noise, wide, amplitudes)
    assert made.shape == released.shape == (1, 3, 20, 159)
    for end in (slice(0, 15), slice(-15, None)):
        torch.testing.assert_close(made[..., end], expected[..., end], rtol=0, atol=1e-9)
        assert (released[..., end] - expected[..., end]).abs().amax() > 0.01


def shapes(sizes: list[Size]) -> list[tuple[int, int, int, int]]:
    return noise_shapes(small_single(), sizes)


def test_a_grown_stage_starts_as_a_copy() -> None:
    state, _, _ = begun(small_single(), 1, torch.float32)
    below, top = state.networks.generator.stages
    for a, b in zip(below.parameters(), top.parameters(), strict=True):
        assert torch.equal(a, b)
        assert a.data_ptr() != b.data_ptr()
