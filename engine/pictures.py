"""The pictures a run leaves at its intervals: samples of the averaged generator, and what the decoders see."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fastgan_engine.images import save_grid, to_uint8
from fastgan_engine.networks import Discriminator, quadrant
from fastgan_engine.pipelines import PreparedSet
from fastgan_engine.reconstruction import resize
from fastgan_engine.run_folder import RunFolder
from fastgan_engine.sampling import sample
from fastgan_engine.state import TrainingState

SHOWN_REALS = 8
SHOWN_PART = 0
# Pixels of the images that pass through a network at once, at least one image: pictures are made beside a training
# iteration whose memory is taken, and need not be fast.
PIXELS_AT_ONCE = 2 * 256**2


def save_pictures(folder: RunFolder, state: TrainingState, images: PreparedSet, *, count: int, seed: int) -> Path:
    """Writes the grid of samples and, with decoders, that of reconstructions. Returns the former's path."""
    ema = state.networks.ema
    chunk = images_at_once(ema.im_size)
    with keeping_no_weights(ema):
        batches = list(sample(ema, count, seed=seed, chunk=chunk, device=state.networks.device))
    save_grid(folder.sample(state.step), torch.cat(batches))
    if state.networks.discriminator.decode:
        shown = min(SHOWN_REALS, images.count)
        pixels = np.stack([images.array(index) for index in range(shown)])
        save_grid(folder.reconstruction(state.step), reconstructions(state, pixels), columns=shown)
    return folder.sample(state.step)


@torch.no_grad()
def reconstructions(state: TrainingState, pixels: np.ndarray) -> Tensor:
    """Rows: reals, their reconstructions from the big and the small branch, a quadrant and its reconstruction.

    pixels: the reals, uint8 [N, H, W, C].
    """
    discriminator = state.networks.discriminator
    was_training = discriminator.training
    discriminator.eval()
    chunks = torch.from_numpy(pixels).split(images_at_once(discriminator.im_size))
    with keeping_no_weights(discriminator):
        columns = [_columns(discriminator, chunk.to(state.networks.device)) for chunk in chunks]
    discriminator.train(was_training)
    return torch.cat(columns, dim=1).flatten(0, 1)


def _columns(discriminator: Discriminator, pixels: Tensor) -> Tensor:
    """The five rows of some of the reals: uint8 [5, n, s, s, C]."""
    size = discriminator.small_size
    reals = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
    _, made = discriminator([reals, resize(reals, size)], "real", SHOWN_PART)
    rows = [resize(reals, size), made.big, made.small, resize(quadrant(reals, SHOWN_PART), size), made.part]
    return torch.stack([to_uint8(row) for row in rows])


@contextmanager
def keeping_no_weights(network: nn.Module) -> Iterator[None]:
    """Inside, a layer's spectrally normalised weight goes after its forward: all of them are as large as the network.

    The legacy hook leaves each behind as ``weight`` until the layer's next forward; before its first, that is an alias
    of ``weight_orig``, which it becomes again here.
    """
    layers = [module for module in network.modules() if hasattr(module, "weight_orig")]

    def forget(module: nn.Module, *_: object) -> None:
        module.weight = module.weight_orig.data

    handles = [layer.register_forward_hook(forget) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def images_at_once(im_size: int) -> int:
    return max(1, PIXELS_AT_ONCE // im_size**2)
