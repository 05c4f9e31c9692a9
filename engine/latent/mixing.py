"""Style mixing through skip-layer excitation, as in figure 7 of the paper.

G's maps of 64 pixels and more are gated, channel by channel, by its maps of 4 to 32 pixels. Gates taken from another
image leave the shapes and change colours and texture.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from fastgan_engine.chunks import in_chunks
from fastgan_engine.errors import UserError
from fastgan_engine.images import GRID_BACKGROUND, to_uint8
from fastgan_engine.latent.latents import Latents
from fastgan_engine.latent.rendering import render
from fastgan_engine.networks import Generator
from fastgan_engine.sampling import CHUNK, device_of, evaluating, image_in_words


def mix(
    generator: Generator,
    content: Latents,
    style: Latents,
    *,
    chunk: int = CHUNK,
    warn: Callable[[str], None] | None = None,
) -> Tensor:
    """Every content with the gates of every style: uint8 [contents, styles, H, W, C] on the CPU.

    A content with its own gates is the plain sample.

    Raises:
        UserError: a generator without skip-layer excitation, which has no gates.
    """
    if not generator.skip:
        raise UserError(
            "mixing goes through skip-layer excitation, and this generator has none (it was trained with model.skip = "
            "false); `interpolate` works"
        )
    columns = len(style)

    @torch.no_grad()
    def batch(indices: range) -> Tensor:
        shape, gates = content.pick([i // columns for i in indices]), style.pick([i % columns for i in indices])
        with evaluating(generator):
            features = generator.low_features(gates.z, gates.noise)
            return to_uint8(generator(shape.z, shape.noise, features)[0]).cpu()

    count = len(content) * columns
    batches = in_chunks(
        batch, count, chunk=chunk, device=device_of(generator), what=image_in_words(generator), warn=warn
    )
    images = torch.cat(list(batches))
    return images.view(len(content), columns, *images.shape[1:])


def mixing_table(
    generator: Generator,
    content: Latents,
    style: Latents,
    *,
    chunk: int = CHUNK,
    warn: Callable[[str], None] | None = None,
) -> Tensor:
    """``mix`` with the originals around it: uint8 [(contents + 1) (styles + 1), H, W, C], row by row.

    The first row is an empty cell and the styles; each further row is a content and its mixtures.
    """
    contents, styles = (torch.cat(list(render(generator, x, chunk=chunk, warn=warn))) for x in (content, style))
    mixed = mix(generator, content, style, chunk=chunk, warn=warn)
    empty = torch.full_like(styles[:1], GRID_BACKGROUND)
    return torch.cat([empty, styles, torch.cat([contents[:, None], mixed], 1).flatten(0, 1)])
