"""Sampling: reproducible by seed and index, in chunks, in evaluation mode, and within the memory there is."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from fastgan_engine.errors import UserError
from fastgan_engine.networks import Generator
from fastgan_engine.sampling import draw_inputs, sample
from tests.engine.weights import assert_same_state, copied, trained

# Convolutions of another batch size may round otherwise: one step of 255 at most.
ROUNDING = 1


@pytest.fixture(scope="module")
def generator() -> Generator:
    return trained().generator


def images(generator: Generator, count: int, **options: object) -> Tensor:
    return torch.cat(list(sample(generator, count, **options))).int()  # type: ignore[arg-type]


def test_batches(generator: Generator) -> None:
    batches = list(sample(generator, 7, chunk=3))
    assert [batch.shape for batch in batches] == [(3, 64, 64, 3), (3, 64, 64, 3), (1, 64, 64, 3)]
    assert {batch.dtype for batch in batches} == {torch.uint8}


@pytest.mark.parametrize("chunk", [1, 2, 7])
def test_an_image_depends_on_seed_and_index_alone(generator: Generator, chunk: int) -> None:
    expected = images(generator, 7, seed=3, chunk=4)
    torch.manual_seed(chunk)  # the global random state plays no part
    assert (images(generator, 7, seed=3, chunk=chunk) - expected).abs().max() <= ROUNDING
    assert (images(generator, 2, seed=3, chunk=chunk) - expected[:2]).abs().max() <= ROUNDING


def test_images_differ(generator: Generator) -> None:
    found = torch.cat([images(generator, 4, seed=0), images(generator, 4, seed=1)])
    for first in range(8):
        for second in range(first):
            assert (found[first] - found[second]).abs().max() > 50


def test_inputs_are_standard_normal_and_independent(generator: Generator) -> None:
    z, noise = draw_inputs(generator, 0, range(500))
    values = torch.cat([z, draw_inputs(generator, 1, range(500))[0]])
    assert abs(values.mean()) < 4 / values.numel() ** 0.5
    assert abs(values.std() - 1) < 4 / (2 * values.numel()) ** 0.5
    assert torch.corrcoef(values).fill_diagonal_(0).abs().max() < 0.95  # 1000 latents of 16: none is another's copy
    assert list(noise) == [8, 32]
    assert all(abs(maps.mean()) < 0.02 and abs(maps.std() - 1) < 0.02 for pair in noise.values() for maps in pair)
    assert not torch.equal(*noise[8])


def test_the_networks_evaluation_mode_makes_the_images(generator: Generator) -> None:
    z, noise = draw_inputs(generator, 5, range(3))
    generator.eval()
    with torch.no_grad():
        big, _ = generator(z * 0.5, noise)
    generator.train()
    expected = ((big.clamp(-1, 1) + 1) * 127.5).round().permute(0, 2, 3, 1).int()
    assert (images(generator, 3, seed=5, truncation=0.5) - expected).abs().max() <= ROUNDING


def test_truncation_to_nothing_leaves_only_the_noise(generator: Generator) -> None:
    quiet = Generator(64, nz=16, ngf=8)
    quiet.load_state_dict(generator.state_dict())
    with torch.no_grad():
        for parameter in quiet.parameters():
            if parameter.numel() == 1:
                parameter.zero_()
    found = images(quiet, 4, truncation=0)
    assert (found - found[0]).abs().max() <= ROUNDING
    assert (images(quiet, 4) - found[0]).abs().max() > 50


@pytest.mark.parametrize("training", [True, False])
def test_the_network_is_left_as_it_was(generator: Generator, training: bool) -> None:
    generator.train(training)
    before = copied(generator.state_dict())
    for _ in sample(generator, 4, chunk=2):
        assert all(module.training is training for module in generator.modules())
    assert_same_state(generator.state_dict(), before)


class Limited(Generator):
    """Runs out of memory with more than `fits` images at once."""

    fits = 8

    def forward(self, z: Tensor, noise: dict[int, tuple[Tensor, Tensor]] | None = None) -> list[Tensor]:
        if len(z) > self.fits:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return super().forward(z, noise)


class TestOutOfMemory:
    @pytest.fixture
    def limited(self, generator: Generator) -> Iterator[Limited]:
        limited = Limited(64, nz=16, ngf=8)
        limited.load_state_dict(generator.state_dict())
        return limited

    def test_goes_on_with_smaller_chunks(self, generator: Generator, limited: Limited) -> None:
        limited.fits = 2
        warnings: list[str] = []
        batches = list(sample(limited, 7, chunk=16, warn=warnings.append))
        assert [len(batch) for batch in batches] == [1] * 7  # 7 fail, 3 fail, 1 fits
        assert warnings == [f"out of memory on cpu; going on with {chunk} image(s) at once" for chunk in (3, 1)]
        assert (torch.cat(batches).int() - images(generator, 7)).abs().max() <= ROUNDING

    def test_not_even_one_image(self, limited: Limited) -> None:
        limited.fits = 0
        with pytest.raises(
            UserError, match=r"not even one image of 64 x 64 fits into the memory of cpu; .*--device cpu"
        ):
            list(sample(limited, 2))
        assert limited.training


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "count: got 0, expected 1 or more"),
        ({"seed": -1}, "seed: got -1, expected 0 or more"),
        ({"chunk": 0}, "chunk: got 0, expected 1 or more"),
        ({"truncation": -0.5}, "truncation: got -0.5, expected 0"),
        ({"truncation": float("nan")}, "truncation: got nan"),
    ],
)
def test_arguments_out_of_range_fail_at_the_call(generator: Generator, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        sample(generator, **{"count": 1, **options})
