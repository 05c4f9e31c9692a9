"""Where a changed image is to be taken from: a mask, grown and softened."""

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from fastgan_engine.errors import UserError

RADII = {"harmonize": 7, "edit": 20}  # of the disk that the mask is dilated by, pixels
SIGMA = 5.0  # of the blur, pixels
WHITE = 127


def soft_mask(mask: Image.Image, mode: Literal["harmonize", "edit"] | str) -> Tensor:
    """A grey image, white where something was changed -> float32 [H, W] from 0 to 1.

    Raises:
        UserError: the mask is black everywhere.
    """
    inside = torch.from_numpy(np.array(mask) > WHITE)
    if not inside.any():
        raise UserError("--mask: it is black everywhere; it must be white where the image was changed")
    return blur(dilate(inside, RADII[mode]), SIGMA)


def dilate(inside: Tensor, radius: int) -> Tensor:
    """bool [H, W] -> whether a pixel within ``radius`` is inside."""
    offsets = torch.arange(-radius, radius + 1)
    disk = (offsets[:, None] ** 2 + offsets**2 <= radius**2).float()
    return F.conv2d(inside[None, None].float(), disk[None, None], padding=radius)[0, 0] > 0.5


def blur(inside: Tensor, sigma: float) -> Tensor:
    """Gaussian, cut off at 4 sigma, edges repeated: float32 [H, W], stretched to 0 .. 1 where it varies."""
    reach = int(4 * sigma + 0.5)
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    weights = (weights / weights.sum()).view(1, 1, -1, 1)
    x = F.pad(inside[None, None].float(), [reach] * 4, mode="replicate")
    x = F.conv2d(F.conv2d(x, weights), weights.transpose(2, 3))[0, 0]
    low, high = x.amin(), x.amax()
    return (x - low) / (high - low) if high > low else x
