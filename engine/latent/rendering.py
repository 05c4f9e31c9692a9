"""Plain images of given latents."""

from collections.abc import Callable, Iterator

from torch import Tensor

from fastgan_engine.chunks import in_chunks
from fastgan_engine.latent.latents import Latents
from fastgan_engine.networks import Generator
from fastgan_engine.sampling import CHUNK, device_of, image_in_words, images_of


def render(
    generator: Generator, latents: Latents, *, chunk: int = CHUNK, warn: Callable[[str], None] | None = None
) -> Iterator[Tensor]:
    """Yields the images of these latents as uint8 batches [n, H, W, C] on the CPU, n <= ``chunk``; see ``sample``."""

    def batch(indices: range) -> Tensor:
        part = latents.pick(indices)
        return images_of(generator, part.z, part.noise)

    what = image_in_words(generator)
    return in_chunks(batch, len(latents), chunk=chunk, device=device_of(generator), what=what, warn=warn)
