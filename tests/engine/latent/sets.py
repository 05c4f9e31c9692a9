"""Images in memory, where the engine would read files."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class InMemory:
    """uint8 [B, H, W, C] as a set."""

    def __init__(self, pixels: Tensor) -> None:
        self.pixels, self.names = pixels, [f"{index}.png" for index in range(len(pixels))]

    def array(self, index: int) -> NDArray[np.uint8]:
        return self.pixels[index].numpy()


def random_pixels(count: int, size: int = 64, channels: int = 3, seed: int = 0) -> Tensor:
    """Blocks of 8 x 8, so that averaging leaves them different."""
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.randint(0, 256, (count, size // 8, size // 8, channels), generator=generator, dtype=torch.uint8)
    return blocks.repeat_interleave(8, 1).repeat_interleave(8, 2)
