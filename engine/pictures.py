"""The pictures a run leaves at its intervals: samples of the averaged generator, and what the decoders see."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastgan_engine.images import save_grid, to_uint8
from fastgan_engine.networks import quadrant
from fastgan_engine.pipelines import PreparedSet
from fastgan_engine.reconstruction import resize
from fastgan_engine.run_folder import RunFolder
from fastgan_engine.sampling import sample
from fastgan_engine.state import TrainingState

SHOWN_REALS = 8
SHOWN_PART = 0


def save_pictures(folder: RunFolder, state: TrainingState, images: PreparedSet, *, count: int, seed: int) -> Path:
    """Writes the grid of samples and, with decoders, that of reconstructions. Returns the former's path."""
    ema = state.networks.ema
    batches = list(sample(ema, count, seed=seed, device=state.networks.device))
    save_grid(folder.sample(state.step), torch.cat(batches))
    if state.networks.discriminator.decode:
        shown = min(SHOWN_REALS, images.count)
        save_grid(folder.reconstruction(state.step), _reconstructions(state, images, shown), columns=shown)
    return folder.sample(state.step)


@torch.no_grad()
def _reconstructions(state: TrainingState, images: PreparedSet, shown: int) -> Tensor:
    """Rows: reals, their reconstructions from the big and the small branch, a quadrant and its reconstruction."""
    discriminator = state.networks.discriminator
    pixels = np.stack([images.array(index) for index in range(shown)])
    reals = torch.from_numpy(pixels).to(state.networks.device).permute(0, 3, 1, 2).float() / 127.5 - 1
    size = discriminator.small_size
    was_training = discriminator.training
    discriminator.eval()
    _, made = discriminator([reals, resize(reals, size)], "real", SHOWN_PART)
    discriminator.train(was_training)
    rows = [resize(reals, size), made.big, made.small, resize(quadrant(reals, SHOWN_PART), size), made.part]
    return to_uint8(torch.cat(rows))
