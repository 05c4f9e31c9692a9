"""The folded generator against the generator itself, in float64 and in float32."""

import pytest
import torch
from torch import Tensor, nn

from fastgan_engine.folding import fold
from fastgan_engine.networks import Generator
from fastgan_engine.networks.generator import IM_SIZES
from fastgan_engine.sampling import draw_inputs

NZ = 8


@torch.no_grad()
def worn(im_size: int, **more: object) -> Generator:
    """As after training: every norm and noise weight is its own, statistics and singular vectors fit the weights."""
    torch.manual_seed(im_size)
    generator = Generator(im_size, nz=NZ, ngf=8, **more)  # type: ignore[arg-type]
    for module in generator.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.normal_(1, 0.3)
            module.bias.normal_(0, 0.3)
            module.momentum = 0.5
    for parameter in generator.parameters():
        if parameter.numel() == 1:  # the weight of a noise injection
            parameter.fill_(0.3)
    for _ in range(4):
        generator(torch.randn(2, NZ))
    return generator.eval()


@pytest.fixture(scope="module", params=IM_SIZES)
def generator(request: pytest.FixtureRequest) -> Generator:
    """Of every size."""
    return worn(request.param)


def in_double(generator: Generator) -> Generator:
    twin = Generator(generator.im_size, nz=NZ, ngf=8, nc=generator.nc, skip=generator.skip, tanh=generator.tanh)
    twin.load_state_dict(generator.state_dict())
    return twin.eval().double()


def double_inputs(generator: Generator) -> tuple[Tensor, dict[int, tuple[Tensor, Tensor]]]:
    z, noise = draw_inputs(generator, 0, range(2 if generator.im_size <= 256 else 1))
    return z.double(), {size: (first.double(), second.double()) for size, (first, second) in noise.items()}


@torch.no_grad()
def test_equal_in_float64(generator: Generator) -> None:
    exact = in_double(generator)
    z, noise = double_inputs(exact)
    expected = exact(z, noise)[0]
    torch.testing.assert_close(fold(exact)(z, noise), expected, rtol=1e-9, atol=1e-9 * expected.abs().max())


@torch.no_grad()
def test_as_near_to_float64_as_the_generator_is(generator: Generator) -> None:
    z, noise = double_inputs(generator)
    exact = in_double(generator)(z, noise)[0]
    single = {size: (first.float(), second.float()) for size, (first, second) in noise.items()}
    unit = exact.abs().max()
    folded = ((fold(generator)(z.float(), single) - exact).abs().max() / unit).item()
    unfolded = ((generator(z.float(), single)[0] - exact).abs().max() / unit).item()
    assert folded < 1e-5
    assert folded < 3 * unfolded + 1e-7


@pytest.mark.parametrize("more", [{"skip": False}, {"nc": 1, "tanh": "always"}, {"nc": 4}])
@torch.no_grad()
def test_variants(more: dict[str, object]) -> None:
    generator = in_double(worn(64, **more))
    z, noise = double_inputs(generator)
    torch.testing.assert_close(fold(generator)(z, noise), generator(z, noise)[0], rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_without_noise_the_image_is_a_function_of_z() -> None:
    generator = worn(128)
    folded, z = fold(generator), torch.randn(2, NZ)
    silent = {size: (torch.zeros(2, 1, size, size),) * 2 for size in generator.noise_sizes()}
    torch.testing.assert_close(folded(z), generator(z, silent)[0], rtol=1e-4, atol=1e-5)
    assert torch.equal(folded(z), folded(z))
    noise = draw_inputs(generator, 0, range(2))[1]
    assert not torch.allclose(folded(z, noise), folded(z), atol=1e-3)
    assert list(folded.noise_shapes()) == [
        "noise_8_1", "noise_8_2", "noise_32_1", "noise_32_2", "noise_128_1", "noise_128_2",
    ]  # fmt: skip


@torch.no_grad()
def test_the_generator_stays_as_it_was() -> None:
    generator = worn(64).train()
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    folded = fold(generator)
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert generator.training
    torch.testing.assert_close(dict(generator.state_dict()), before, rtol=0, atol=0)
    assert all(parameter.requires_grad for parameter in generator.parameters())
