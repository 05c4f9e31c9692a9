"""The networks: the released sizes, names and order, and the released arithmetic against an independent computation."""

from collections.abc import Iterator
from typing import TypeVar

import pytest
import torch
from torch import Tensor, nn

from fastgan_engine.networks import IM_SIZES, Discriminator, Generator, small_size
from tests.engine import released_forward

RELEASED_SIZES = (256, 512, 1024)
CLOSE = {"rtol": 1e-8, "atol": 1e-9}

N = TypeVar("N", bound=nn.Module)


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def spectral_layers(network: nn.Module) -> int:
    return sum(name.endswith("weight_orig") for name, _ in network.named_parameters())


def lively(network: N) -> N:
    """In fp64, with noise weights and batch-norm biases that are not 0, so that they take part."""
    generator = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return network.double()


def before(network: nn.Module) -> dict[str, Tensor]:
    """A copy of the state, since a forward in training mode changes it."""
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def noise_maps(generator: Generator, batch: int) -> dict[int, tuple[Tensor, Tensor]]:
    return {size: (draw(batch, 1, size, size), draw(batch, 1, size, size)) for size in generator.noise_sizes()}


@pytest.fixture(autouse=True)
def _seeded_and_cheap() -> Iterator[None]:
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # layers this small lose more by waiting for a second one than they gain
    with torch.no_grad():
        yield
    torch.set_num_threads(threads)


class TestSizes:
    @pytest.mark.parametrize(
        ("im_size", "millions_g", "millions_d"),
        [(256, 29.128, 11.526), (512, 29.174, 11.526), (1024, 29.177, 11.528)],
    )
    def test_parameters_are_the_released_ones(self, im_size: int, millions_g: float, millions_d: float) -> None:
        with torch.device("meta"):
            generator, discriminator = Generator(im_size), Discriminator(im_size)
        assert round(parameters(generator) / 1e6, 3) == millions_g
        assert round(parameters(discriminator) / 1e6, 3) == millions_d

    @pytest.mark.parametrize(("im_size", "g", "d"), [(256, 18, 44), (512, 22, 44), (1024, 23, 45)])
    def test_layers_under_spectral_norm(self, im_size: int, g: int, d: int) -> None:
        assert spectral_layers(Generator(im_size, ngf=8)) == g
        assert spectral_layers(Discriminator(im_size, ndf=8)) == d

    @pytest.mark.parametrize("im_size", IM_SIZES)
    def test_shapes(self, im_size: int) -> None:
        small = min(128, im_size // 2)
        assert small_size(im_size) == small
        images = Generator(im_size, ngf=8, nz=16)(torch.randn(2, 16))
        assert [image.shape for image in images] == [(2, 3, im_size, im_size), (2, 3, small, small)]
        logits, reconstructions = Discriminator(im_size, ndf=8)(images, "real", 0)
        assert logits.shape == (2 * 50,)
        assert [image.shape for image in reconstructions] == 3 * [(2, 3, small, small)]

    @pytest.mark.parametrize("network", [Generator, Discriminator])
    def test_another_size_is_refused(self, network: type[nn.Module]) -> None:
        with pytest.raises(ValueError, match="im_size must be one of 64, 128, 256, 512, 1024; got 300"):
            network(300)


class TestStateDict:
    def test_keys_are_the_released_ones(self) -> None:
        g, d = Generator(1024, ngf=8).state_dict(), Discriminator(1024, ndf=8).state_dict()
        for name in ("init.init.0", "feat_8.1", "feat_8.5", "feat_1024.1", "se_512.main.1", "to_128", "to_big"):
            assert {f"{name}.weight_orig", f"{name}.weight_u", f"{name}.weight_v"} <= set(g)
        assert {"feat_8.2.weight", "feat_8.6.weight", "feat_8.3.running_mean", "feat_16.2.bias"} <= set(g)
        names = ("down_from_big.2", "down_4.main.0", "down_64.direct.1", "se_2_16.main.3", "rf_big.0", "rf_small")
        for name in (*names, "down_from_small.4.main.0", "decoder_part.main.4.1", "decoder_big.main.5"):
            assert {f"{name}.weight_orig", f"{name}.weight_u", f"{name}.weight_v"} <= set(d)
        assert not any(key.endswith((".conv.weight", "rf_small.weight")) for key in (*g, *d))

    def test_modules_come_in_the_released_order(self) -> None:
        blocks = [f"feat_{size}" for size in (8, 16, 32, 64, 128, 256)]
        gates = ["se_64", "se_128", "se_256"]
        g = ["init", *blocks, *gates, "to_128", "to_big", "feat_512", "se_512", "feat_1024"]
        for im_size, names in ((1024, g), (512, g[:-1]), (256, g[:-3])):
            assert [name for name, _ in Generator(im_size, ngf=8).named_children()] == names
        d = ["down_from_big", *(f"down_{step}" for step in (4, 8, 16, 32, 64)), "rf_big", "se_2_16", "se_4_32"]
        d += ["se_8_64", "down_from_small", "rf_small", "decoder_big", "decoder_part", "decoder_small"]
        assert [name for name, _ in Discriminator(256, ndf=8).named_children()] == d

    def test_initialisation(self) -> None:
        for name, parameter in (*Generator(256, ngf=32).named_parameters(), *Discriminator(256).named_parameters()):
            if parameter.numel() == 1:  # of a noise injection
                assert parameter.item() == 0, name
            elif parameter.ndim == 4 and parameter.numel() > 5000:
                assert abs(parameter.mean().item()) < 0.002, name
                assert 0.018 < parameter.std().item() < 0.022, name
            elif name.endswith("bias"):
                assert parameter.abs().max() == 0, name
            elif parameter.ndim == 1 and parameter.numel() > 64:
                assert abs(parameter.mean().item() - 1) < 0.01, name
                assert 0.01 < parameter.std().item() < 0.03, name


class TestGenerator:
    @pytest.mark.parametrize("im_size", IM_SIZES)
    def test_training_forward_is_the_released_one(self, im_size: int) -> None:
        generator = lively(Generator(im_size, ngf=8, nz=32))
        state, z, noise = before(generator), draw(2, 32), noise_maps(generator, 2)
        images = generator(z, noise)
        expected = released_forward.generate(state, z, noise, im_size=im_size, bounded=im_size == 1024)
        for image, reference in zip(images, expected, strict=True):
            torch.testing.assert_close(image, reference, **CLOSE)

    def test_each_training_forward_is_one_power_iteration(self) -> None:
        generator = lively(Generator(64, ngf=8))
        state = before(generator)
        generator(draw(2, 256))
        after = generator.state_dict()
        for name in (key.removesuffix("_u") for key in state if key.endswith("weight_u")):
            dim = int(name.startswith("init"))  # a transposed convolution keeps its outputs in dimension 1
            _, u = released_forward.power_iteration(state[f"{name}_orig"], state[f"{name}_u"], dim)
            torch.testing.assert_close(after[f"{name}_u"], u, **CLOSE)

    def test_evaluation_leaves_the_state_alone(self) -> None:
        generator = Generator(64, ngf=8).eval()
        state = before(generator)
        generator(torch.randn(2, 256))
        assert all(torch.equal(tensor, state[name]) for name, tensor in generator.state_dict().items())

    def test_noise_is_drawn_where_none_is_given(self) -> None:
        generator = lively(Generator(64, ngf=8)).eval()
        z = draw(1, 256)
        assert not torch.equal(generator(z)[0], generator(z)[0])

    def test_without_skip(self) -> None:
        generator = lively(Generator(128, ngf=8, skip=False))
        assert not any(name.startswith("se_") for name, _ in generator.named_parameters())
        state, z, noise = before(generator), draw(2, 256), noise_maps(generator, 2)
        expected = released_forward.generate(state, z, noise, im_size=128, bounded=False)
        torch.testing.assert_close(generator(z, noise)[0], expected[0], **CLOSE)

    @pytest.mark.parametrize(
        ("im_size", "policy", "bounded"),
        [(256, "auto", False), (64, "always", True), (1024, "auto", True), (1024, "never", False)],
    )
    def test_tanh_policy(self, im_size: int, policy: str, bounded: bool) -> None:
        generator = lively(Generator(im_size, ngf=8, nz=8, tanh=policy))  # type: ignore[arg-type]
        for name in ("to_big", f"to_{small_size(im_size)}"):  # larger than 1 without tanh
            generator.get_submodule(name).register_forward_hook(lambda module, inputs, output: 50 * output)
        assert all((image.abs().max() <= 1) == bounded for image in generator(draw(1, 8), noise_maps(generator, 1)))

    @pytest.mark.parametrize("nc", [1, 4])
    def test_channels(self, nc: int) -> None:
        images = Generator(256, ngf=8, nc=nc)(torch.randn(1, 256))
        assert [image.shape[1] for image in images] == [nc, nc]
        logits, reconstructions = Discriminator(256, ndf=8, nc=nc)(images, "real", 3)
        assert logits.shape == (50,)
        assert {image.shape[1] for image in reconstructions} == {nc}


class TestDiscriminator:
    @pytest.mark.parametrize(("im_size", "part"), [(64, 3), (128, 2), (128, 1), (256, 0)])
    def test_training_forward_is_the_released_one(self, im_size: int, part: int) -> None:
        discriminator = lively(Discriminator(im_size, ndf=8))
        state = before(discriminator)
        big, small = draw(2, 3, im_size, im_size), draw(2, 3, small_size(im_size), small_size(im_size))
        logits, made = discriminator([big, small], "real", part)
        expected, reconstructions = released_forward.discriminate(state, big, small, im_size=im_size, part=part)
        torch.testing.assert_close(logits, expected, **CLOSE)
        assert len(reconstructions) == 3
        for image, reference in zip((made.big, made.small, made.part), reconstructions, strict=True):
            torch.testing.assert_close(image, reference, **CLOSE)

    @pytest.mark.parametrize("im_size", [512, 1024])
    def test_large_images_differ_in_the_first_layers(self, im_size: int) -> None:
        discriminator = lively(Discriminator(im_size, ndf=8, decode=False))
        state, big, small = before(discriminator), draw(2, 3, im_size, im_size), draw(2, 3, 128, 128)
        logits, _ = released_forward.discriminate(state, big, small, im_size=im_size, part=0)
        torch.testing.assert_close(discriminator([big, small]), logits, **CLOSE)

    def test_fakes_get_the_same_logits_and_no_reconstructions(self) -> None:
        discriminator = lively(Discriminator(64, ndf=8)).eval()
        images = [draw(2, 3, 64, 64), draw(2, 3, 32, 32)]
        torch.testing.assert_close(discriminator(images), discriminator(images, "real", 0)[0])

    @pytest.mark.parametrize("switches", [{"skip": False}, {"decode": False}, {"skip": False, "decode": False}])
    def test_ablation(self, switches: dict[str, bool]) -> None:
        discriminator = lively(Discriminator(128, ndf=8, **switches))
        names = {name.split("_")[0] for name, _ in discriminator.named_parameters()}
        assert ("se" in names) == switches.get("skip", True)
        assert ("decoder" in names) == switches.get("decode", True)
        state, big, small = before(discriminator), draw(2, 3, 128, 128), draw(2, 3, 64, 64)
        logits, _ = released_forward.discriminate(state, big, small, im_size=128, part=0)
        torch.testing.assert_close(discriminator([big, small]), logits, **CLOSE)

    @pytest.mark.parametrize(("im_size", "stride"), [(64, 2), (256, 2), (512, 4)])
    def test_one_image_stands_for_both_by_its_nearest_resize(self, im_size: int, stride: int) -> None:
        discriminator = Discriminator(im_size, ndf=8).eval()
        big = torch.randn(1, 3, im_size, im_size)
        both = discriminator([big, big[..., ::stride, ::stride]])
        torch.testing.assert_close(discriminator(big), both)
