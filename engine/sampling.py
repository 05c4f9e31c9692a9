"""Images of a generator, reproducible by (seed, index) and in chunks that fit the memory."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from fastgan_engine.chunks import in_chunks
from fastgan_engine.errors import UserError
from fastgan_engine.images import to_uint8
from fastgan_engine.networks import Generator

CHUNK = 8

Noise = dict[int, tuple[Tensor, Tensor]]


def sample(
    generator: Generator,
    count: int,
    *,
    seed: int = 0,
    truncation: float = 1.0,
    chunk: int = CHUNK,
    device: torch.device | str | None = None,
    warn: Callable[[str], None] | None = None,
) -> Iterator[Tensor]:
    """Yields ``count`` images as uint8 batches [n, H, W, C] on the CPU, n <= ``chunk``.

    Image i of a seed is the same whatever the chunk, the count and the device, up to the rounding of convolutions: its
    latent and its noise maps come from a random stream of its own. The generator runs in evaluation mode, so that an
    image does not depend on the others of its batch; its mode is restored after each batch.

    Args:
        truncation: factor on the latents. FastGAN has no mapping network to truncate in; scaling z towards 0, the
            centre of its distribution, trades variety for typicality and keeps each image recognisable on the way.
        chunk: images at once. Where CUDA runs out of memory it is halved, and ``warn`` is told.
        device: the generator is moved there; None: it stays.

    Raises:
        UserError: an argument out of range, or not even one image fits into the device's memory.
    """
    _check(count, seed, truncation, chunk)
    if device is not None:
        generator.to(device)

    def batch(indices: range) -> Tensor:
        z, noise = draw_inputs(generator, seed, indices)
        return images_of(generator, z * truncation, noise)

    return in_chunks(batch, count, chunk=chunk, device=device_of(generator), what=image_in_words(generator), warn=warn)


def draw_inputs(generator: Generator, seed: int, indices: Sequence[int]) -> tuple[Tensor, Noise]:
    """Latents [B, nz] and noise maps, all N(0, 1), of the images ``indices`` of a seed, on the generator's device."""
    streams = [np.random.default_rng((seed, index)) for index in indices]

    def normal(*shape: int) -> Tensor:
        values = np.stack([stream.standard_normal(shape, dtype=np.float32) for stream in streams])
        return torch.from_numpy(values).to(device_of(generator))

    z = normal(generator.nz)
    return z, {size: (normal(1, size, size), normal(1, size, size)) for size in generator.noise_sizes()}


def _check(count: int, seed: int, truncation: float, chunk: int) -> None:
    for name, value, least in (("count", count, 1), ("seed", seed, 0), ("chunk", chunk, 1)):
        if value < least:
            raise UserError(f"{name}: got {value}, expected {least} or more")
    if not (math.isfinite(truncation) and truncation >= 0):
        raise UserError(f"truncation: got {truncation}, expected 0 (all alike) to 1 (the whole variety), or more")


@torch.no_grad()
def images_of(generator: Generator, z: Tensor, noise: Noise) -> Tensor:
    """The big images of these inputs, in evaluation mode, as uint8 [B, H, W, C] on the CPU."""
    with evaluating(generator):
        return to_uint8(generator(z, noise)[0]).cpu()


@contextmanager
def evaluating(generator: Generator) -> Iterator[None]:
    """The generator in evaluation mode; afterwards in the one it was in."""
    was_training = generator.training
    generator.eval()
    try:
        yield
    finally:
        generator.train(was_training)


def image_in_words(generator: Generator) -> str:
    return f"image of {generator.im_size} x {generator.im_size}"


def device_of(generator: Generator) -> torch.device:
    return next(generator.parameters()).device
