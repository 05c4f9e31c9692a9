"""Changed copies of the training image: what a generator is to undo that harmonizes, or that repairs an edit.

Images are float32 [H, W, 3] from 0 to 1. Source: the policies of the released ConSinGAN code.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.float32]

RECOLOUR = 0.25  # probability
CUT_OUT = 0.9  # probability
HOLE_SIDES = {1: (30, 60), 2: (15, 30)}  # by the number of holes: smallest and largest side, pixels
SEPIA = np.array([[0.393, 0.769, 0.189], [0.349, 0.686, 0.168], [0.272, 0.534, 0.131]], dtype=np.float32)
# By the number of tiles: smallest and largest side, smallest and largest shift, as parts of the image's side.
TILES = {1: (0.2, 0.5, 0.05, 0.15), 2: (0.15, 0.3, 0.05, 0.1), 3: (0.1, 0.2, 0.05, 0.1)}
MANY_TILES = (0.1, 0.15, 0.05, 0.1)
MOST_TILES = 5


def disguise(image: Pixels, rng: np.random.Generator) -> Pixels:
    """For harmonizing: now and then other colours or noise, and mostly one or two holes of one colour."""
    image = image.copy()
    if rng.random() < RECOLOUR:
        image = RECOLOURINGS[rng.integers(len(RECOLOURINGS))](image, rng)
    if rng.random() < CUT_OUT:
        holes = int(rng.integers(1, 3))
        sides = rng.integers(*HOLE_SIDES[holes], size=2, endpoint=True)
        colour = rng.random(3)
        for _ in range(holes):
            top, left = (
                int(rng.integers(extent)) - side // 2 for extent, side in zip(image.shape, sides, strict=False)
            )
            image[max(top, 0) : top + sides[0], max(left, 0) : left + sides[1]] = colour
    return image


def shuffle_tiles(image: Pixels, rng: np.random.Generator) -> Pixels:
    """For editing: one to five rectangles of the image copied to a place nearby."""
    shuffled = image.copy()
    count = int(rng.integers(1, MOST_TILES, endpoint=True))
    least, most, near, far = TILES.get(count, MANY_TILES)
    for _ in range(count):
        sign = rng.choice((-1, 1))
        source, target = [], []
        for extent in image.shape[:2]:
            side = int(rng.integers(int(extent * least), int(extent * most), endpoint=True))
            start = int(rng.integers(0, extent - side, endpoint=True))
            shift = sign * int(rng.integers(int(extent * near), int(extent * far), endpoint=True))
            source.append(slice(start, start + side))
            moved = min(max(start + shift, 0), extent - side)
            target.append(slice(moved, moved + side))
        shuffled[target[0], target[1]] = image[source[0], source[1]]
    return shuffled


def _noise(image: Pixels, rng: np.random.Generator) -> Pixels:
    if rng.random() < 0.5:
        return np.clip(image * rng.uniform(0.5, 1.5, image.shape), 0, 1).astype(np.float32)
    return np.clip(image + rng.normal(0, rng.uniform(0.01, 0.05), image.shape), 0, 1).astype(np.float32)


def _invert_or_sepia(image: Pixels, rng: np.random.Generator) -> Pixels:
    return 1 - image if rng.random() < 0.5 else np.clip(image @ SEPIA.T, 0, 1).astype(np.float32)


def _channels(image: Pixels, rng: np.random.Generator) -> Pixels:
    """One channel dropped, or all in another order."""
    if rng.random() < 0.5:
        return image[:, :, rng.permutation(3)]
    image[:, :, rng.integers(3)] = 0
    return image


def _hue_saturation_value(image: Pixels, rng: np.random.Generator) -> Pixels:
    pixels = Image.fromarray(np.round(image * 255).astype(np.uint8)).convert("HSV")
    hsv = np.asarray(pixels).astype(np.int16) + np.round(rng.uniform(-1, 1, 3) * (28, 30, 20)).astype(np.int16)
    hsv[:, :, 0] %= 256  # hue goes round
    shifted = Image.frombytes("HSV", pixels.size, np.clip(hsv, 0, 255).astype(np.uint8).tobytes())
    return np.asarray(shifted.convert("RGB"), dtype=np.float32) / np.float32(255)


RECOLOURINGS: tuple[Callable[[Pixels, np.random.Generator], Pixels], ...] = (
    _noise,
    _invert_or_sepia,
    _channels,
    _hue_saturation_value,
)
