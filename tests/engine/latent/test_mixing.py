"""Style mixing: with itself the plain sample, and otherwise only through the gates."""

import pytest
import torch
from torch import Tensor

from fastgan_engine.errors import UserError
from fastgan_engine.latent.latents import draw
from fastgan_engine.latent.mixing import mix, mixing_table
from fastgan_engine.networks import Generator
from fastgan_engine.networks.blocks import UpBlockComp
from fastgan_engine.sampling import sample
from tests.engine.weights import assert_same_state, copied

Noise = dict[int, tuple[Tensor, Tensor]]


def by_hand(generator: Generator, content: tuple[Tensor, Noise], style: tuple[Tensor, Noise]) -> list[Tensor]:
    """Two passes, module by module: the second one's gates are made of the first one's small maps."""

    def block(size: int, x: Tensor, noise: Noise) -> Tensor:
        module = getattr(generator, f"feat_{size}")
        return module(x, noise[size]) if isinstance(module, UpBlockComp) else module(x)

    gate_of = {64: 4, 128: 8, 256: 16, 512: 32}
    (z, noise), (z_style, noise_style) = content, style
    maps = {4: generator.init(z_style)}
    for size in (8, 16, 32):
        maps[size] = block(size, maps[size // 2], noise_style)
    x = generator.init(z)
    small = None
    for size in (8, 16, 32, 64, 128, 256, 512):
        if size > generator.im_size:
            break
        x = block(size, x, noise)
        if size in gate_of:
            x = x * getattr(generator, f"se_{size}").main(maps[gate_of[size]])
        if size == min(128, generator.im_size // 2):
            small = x
    assert small is not None
    return [generator.to_big(x), getattr(generator, f"to_{min(128, generator.im_size // 2)}")(small)]


def lively(im_size: int) -> Generator:
    """With noise, in evaluation mode."""
    torch.manual_seed(im_size)
    generator = Generator(im_size, nz=8, ngf=8)
    with torch.no_grad():
        for parameter in generator.parameters():
            if parameter.numel() == 1:
                parameter.fill_(0.3)
        for _ in range(2):  # batch norm sees some images
            generator(torch.randn(4, 8))
    return generator.eval()


@pytest.mark.parametrize("im_size", [64, 512])
@torch.no_grad()
def test_the_style_enters_by_the_gates_alone(im_size: int) -> None:
    generator = lively(im_size)
    content, style = draw(generator, 0, [0]), draw(generator, 1, [0])
    features = generator.low_features(style.z, style.noise)
    mixed = generator(content.z, content.noise, features)
    expected = by_hand(generator, (content.z, content.noise), (style.z, style.noise))
    for image, reference in zip(mixed, expected, strict=True):
        torch.testing.assert_close(image, reference, rtol=0, atol=0)
    plain = generator(content.z, content.noise)
    for image, reference in zip(plain, by_hand(generator, *[(content.z, content.noise)] * 2), strict=True):
        torch.testing.assert_close(image, reference, rtol=0, atol=0)
    assert (mixed[0] - plain[0]).abs().max() > 1e-3


def test_with_itself_it_is_the_plain_sample(generator: Generator) -> None:
    latents = draw(generator, 5, range(3))
    mixed = mix(generator, latents, latents, chunk=1)
    plain = torch.cat(list(sample(generator, 3, seed=5, chunk=1)))
    assert mixed.shape == (3, 3, 64, 64, 3)
    assert torch.equal(mixed[range(3), range(3)], plain)
    for row in range(3):
        for column in range(row):
            assert not torch.equal(mixed[row, column], plain[row])


def test_rows_are_contents_and_columns_styles(generator: Generator) -> None:
    content, style = draw(generator, 0, range(2)), draw(generator, 1, range(3))
    mixed = mix(generator, content, style, chunk=4)
    one = mix(generator, content.pick([1]), style.pick([2]))
    assert (mixed[1, 2].int() - one[0, 0].int()).abs().max() <= 1
    assert (mixed[0, 2].int() - one[0, 0].int()).abs().max() > 10


def test_the_table_has_the_originals_around(generator: Generator) -> None:
    content, style = draw(generator, 0, range(2)), draw(generator, 1, range(3))
    table = mixing_table(generator, content, style).view(3, 4, 64, 64, 3).int()
    (contents,), (styles,) = sample(generator, 2, seed=0), sample(generator, 3, seed=1)
    assert (table[0, 0] == 255).all()
    assert (table[0, 1:] - styles.int()).abs().max() <= 1
    assert (table[1:, 0] - contents.int()).abs().max() <= 1
    assert (table[1:, 1:] - mix(generator, content, style).int()).abs().max() <= 1


def test_the_network_is_left_as_it_was(generator: Generator) -> None:
    before = copied(generator.state_dict())
    generator.train()
    mix(generator, draw(generator, 0, [0]), draw(generator, 1, [0]))
    assert generator.training
    assert_same_state(generator.eval().state_dict(), before)


def test_without_gates_there_is_nothing_to_mix() -> None:
    bare = Generator(64, nz=16, ngf=8, skip=False)
    with pytest.raises(UserError, match="this generator has none"):
        mix(bare, draw(bare, 0, [0]), draw(bare, 1, [0]))
