"""Latents by name and by file."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from fastgan_engine.errors import UserError
from fastgan_engine.latent.latents import Latents, draw, load_latents, read_latents, save_latents
from fastgan_engine.latent.rendering import render
from fastgan_engine.networks import Generator
from fastgan_engine.sampling import draw_inputs, sample


def assert_same(found: Latents, z: Tensor, noise: dict[int, tuple[Tensor, Tensor]]) -> None:
    torch.testing.assert_close(found.z, z, rtol=0, atol=0)
    torch.testing.assert_close(found.noise, noise, rtol=0, atol=0)


def test_names(generator: Generator, tmp_path: Path) -> None:
    save_latents(tmp_path / "two.safetensors", draw(generator, 4, [1, 2]))
    found = read_latents(generator, f"7, 0:5,{tmp_path / 'two.safetensors'}")
    parts = [draw_inputs(generator, 7, [0]), draw_inputs(generator, 0, [5]), draw_inputs(generator, 4, [1, 2])]
    noise = {n: tuple(torch.cat([part[1][n][which] for part in parts]) for which in (0, 1)) for n in (8, 32)}
    assert_same(found, torch.cat([part[0] for part in parts]), noise)  # type: ignore[arg-type]


def test_they_make_the_images_of_sample(generator: Generator) -> None:
    (expected,) = sample(generator, 6, seed=2)
    found = torch.cat(list(render(generator, read_latents(generator, "2:3,2:0,2:5"), chunk=2)))
    assert (found.int() - expected[[3, 0, 5]].int()).abs().max() <= 1  # another batch may round otherwise


@pytest.mark.parametrize("name", ["", "x", "-1", "1:", "1:x", "1.5", "a.png", "3,"])
def test_no_name(generator: Generator, name: str) -> None:
    with pytest.raises(UserError, match=r"a latent: got '.*', expected a SEED such as 7, SEED:INDEX such as 0:5"):
        read_latents(generator, name)


class TestFiles:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "x.safetensors"

    def test_round_trip(self, generator: Generator, path: Path) -> None:
        latents = draw(generator, 3, [2, 9])
        save_latents(path, latents)
        assert_same(load_latents(path, generator), latents.z, latents.noise)

    def test_missing_and_damaged(self, generator: Generator, path: Path) -> None:
        with pytest.raises(UserError, match=r"cannot read the latents .*x\.safetensors: "):
            load_latents(path, generator)
        save_latents(path, draw(generator, 3, [2]))
        path.write_bytes(path.read_bytes()[:-5])
        with pytest.raises(UserError, match="is no whole safetensors file"):
            load_latents(path, generator)

    def test_another_kind_of_file(self, generator: Generator, path: Path) -> None:
        save_file({"z": torch.zeros(1, 16)}, path)
        with pytest.raises(UserError, match=r"a safetensors file, but not one of latents, as `fastgan-engine invert`"):
            load_latents(path, generator)

    def test_another_version(self, generator: Generator, path: Path) -> None:
        save_file({"z": torch.zeros(1, 16)}, path, {"format": "fastgan-engine latents", "version": "9"})
        with pytest.raises(UserError, match="format version 9, this engine reads 1"):
            load_latents(path, generator)

    @pytest.mark.parametrize(
        ("tensors", "held"),
        [
            ({"z": torch.zeros(1, 16)}, r"z \[1, 16\]"),
            ({"z": torch.zeros(16)}, r"z \[16\]"),
            ({"w": torch.zeros(1, 16)}, r"w \[1, 16\]"),
            ({}, "nothing"),
        ],
    )
    def test_of_another_generator(
        self, generator: Generator, path: Path, tensors: dict[str, Tensor], held: str
    ) -> None:
        save_file(tensors, path, {"format": "fastgan-engine latents", "version": "1"})
        with pytest.raises(UserError, match=rf"another generator: they hold {held}, and this one \(nz 16, 64 x 64\)"):
            load_latents(path, generator)

    def test_of_a_wider_generator(self, generator: Generator, path: Path) -> None:
        save_latents(path, draw(Generator(64, nz=20, ngf=8), 0, [1]))
        with pytest.raises(UserError, match=r"z \[1, 20\].* takes .*z \[1, 16\]"):
            load_latents(path, generator)
