"""What a generator makes an image of, how it is named on the command line, and its file."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fastgan_engine.atomic import atomic_write
from fastgan_engine.errors import UserError
from fastgan_engine.networks import Generator
from fastgan_engine.sampling import Noise, device_of, draw_inputs

FORMAT = "fastgan-engine latents"
VERSION = 1
SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Latents:
    """Inputs of B images: z [B, nz], and two noise maps [B, 1, size, size] of each of G's ``noise_sizes()``."""

    z: Tensor
    noise: Noise

    def __len__(self) -> int:
        return len(self.z)

    def pick(self, indices: Sequence[int]) -> "Latents":
        """Those at these positions, in this order; one may come twice."""
        rows = torch.tensor(indices, device=self.z.device)
        return Latents(self.z[rows], {size: (a[rows], b[rows]) for size, (a, b) in self.noise.items()})

    def scaled(self, truncation: float) -> "Latents":
        """z times ``truncation``; the noise as it is."""
        return Latents(self.z * truncation, self.noise)


def draw(generator: Generator, seed: int, indices: Sequence[int]) -> Latents:
    """Those of the images ``indices`` of a seed, as ``sample`` draws them."""
    return Latents(*draw_inputs(generator, seed, indices))


def join(parts: Sequence[Latents]) -> Latents:
    """One after another."""
    noise = {
        size: (torch.cat([part.noise[size][0] for part in parts]), torch.cat([part.noise[size][1] for part in parts]))
        for size in parts[0].noise
    }
    return Latents(torch.cat([part.z for part in parts]), noise)


def read_latents(generator: Generator, names: str) -> Latents:
    """The latents that a comma list names, on the generator's device.

    Each name is ``SEED`` (the first image of that seed), ``SEED:INDEX`` (image INDEX of ``sample --seed SEED``, counted
    from 0 row by row), or the path of a file that ``save_latents`` wrote (all that it holds).

    Raises:
        UserError: a name of another kind, or a file that cannot be read or is of another generator.
    """
    return join([_read_one(generator, name.strip()) for name in names.split(",")])


def _read_one(generator: Generator, name: str) -> Latents:
    if match := re.fullmatch(r"(\d+)(?::(\d+))?", name):
        return draw(generator, int(match[1]), [int(match[2] or 0)])
    if name.endswith(SUFFIX):
        return load_latents(Path(name), generator)
    raise UserError(
        f"a latent: got {name!r}, expected a SEED such as 7, SEED:INDEX such as 0:5 (image 5 of `sample --seed 0`), "
        f"or a {SUFFIX} that `fastgan-engine invert` wrote"
    )


def save_latents(path: Path, latents: Latents) -> None:
    """Writes z and noise as safetensors; whole or not at all."""
    tensors = {"z": latents.z} | {
        _noise_name(size, which): pair[which] for size, pair in latents.noise.items() for which in (0, 1)
    }
    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_write(path) as temporary:
        temporary.write_bytes(save(content, {"format": FORMAT, "version": str(VERSION)}))


def load_latents(path: Path, generator: Generator) -> Latents:
    """Reads what ``save_latents`` wrote, onto the generator's device.

    Raises:
        UserError: no such file, not one of latents, damaged, or of a generator of another shape.
    """
    try:
        with safe_open(path, "pt", device="cpu") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is not a mapping)
    except OSError as error:
        raise UserError(f"cannot read the latents {path}: {error.strerror or error}") from None
    except SafetensorError as error:
        raise UserError(f"{path} is no whole safetensors file ({error}); write it again with `invert`") from None
    if metadata.get("format") != FORMAT:
        raise UserError(f"{path} is a safetensors file, but not one of latents, as `fastgan-engine invert` writes them")
    if metadata.get("version") != str(VERSION):
        raise UserError(
            f"the latents {path} have format version {metadata.get('version')}, this engine reads {VERSION}; "
            f"write them again with `invert`"
        )
    _check_shapes(path, tensors, generator)
    device = device_of(generator)
    noise = {
        size: (tensors[_noise_name(size, 0)].to(device), tensors[_noise_name(size, 1)].to(device))
        for size in generator.noise_sizes()
    }
    return Latents(tensors["z"].to(device), noise)


def _check_shapes(path: Path, tensors: dict[str, Tensor], generator: Generator) -> None:
    count = len(tensors["z"]) if "z" in tensors and tensors["z"].ndim else 0
    expected = {"z": [count, generator.nz]} | {
        _noise_name(size, which): [count, 1, size, size] for size in generator.noise_sizes() for which in (0, 1)
    }
    found = {name: list(tensor.shape) for name, tensor in tensors.items()}
    if count == 0 or found != expected or any(tensor.dtype != torch.float32 for tensor in tensors.values()):
        raise UserError(
            f"the latents {path} are of another generator: they hold {_in_words(found)}, and this one (nz "
            f"{generator.nz}, {generator.im_size} x {generator.im_size}) takes {_in_words(expected)}, float32"
        )


def _in_words(shapes: dict[str, list[int]]) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in sorted(shapes.items())) or "nothing"


def _noise_name(size: int, which: int) -> str:
    return f"noise_{size}.{which}"
