"""The paper's tables 1 and 2: the models they compare, and the figures that they print.

Source: Liu, Zhu, Song, Elgammal, "Towards Faster and Stabilized GAN Training for High-fidelity Few-shot Image
Synthesis", ICLR 2021 (arXiv 2101.04775).
"""

from dataclasses import dataclass
from typing import Any

BASELINE, SKIP, DECODE, FULL = "baseline", "skip", "decode", "full"
STYLEGAN2 = "StyleGAN2"
# The models of the ablation, by the switches of the configuration. Without decoders nothing is reconstructed.
VARIANTS: dict[str, dict[str, Any]] = {
    BASELINE: {"model.skip": False, "model.decode": False, "loss.reconstruction": "none"},
    SKIP: {"model.skip": True, "model.decode": False, "loss.reconstruction": "none"},
    DECODE: {"model.skip": False, "model.decode": True},
    FULL: {"model.skip": True, "model.decode": True},
}
TITLES = {BASELINE: "baseline", SKIP: "+ skip", DECODE: "+ decode", FULL: "full"}

ITERATIONS = 10_000
BATCH = 8
CARD = "RTX 2080 Ti"


@dataclass(frozen=True)
class Cost:
    """A model in table 1: hours for 10,000 iterations at batch 8 on an RTX 2080 Ti, and GB of its memory."""

    hours: float
    gb: float


COSTS: dict[int, dict[str, Cost]] = {
    256: {STYLEGAN2: Cost(3.8, 18), BASELINE: Cost(0.7, 5), FULL: Cost(1, 6.5)},
    1024: {STYLEGAN2: Cost(7, 36), BASELINE: Cost(1.3, 9), FULL: Cost(1.7, 10)},
}
# Millions, of G and D together, by size: what table 1 prints for the full model, and what the released code has.
PARAMETERS = {256: 47.363, 1024: 47.413}
PARAMETERS_RELEASED = {256: 40.654, 1024: 40.705}

# FID of the ablation at 256 x 256, five hours of training each, by training set.
FID_SIZE = 256
FID: dict[str, dict[str, float]] = {
    "dog": {BASELINE: 108.19, SKIP: 94.21, DECODE: 56.25, FULL: 50.66},
    "cat": {BASELINE: 150.3, SKIP: 72.97, DECODE: 36.74, FULL: 35.11},
    "Obama": {BASELINE: 62.74, SKIP: 52.5, DECODE: 44.34, FULL: 41.05},
    "panda": {BASELINE: 15.4, SKIP: 14.39, DECODE: 10.12, FULL: 10.03},
    "grumpy": {BASELINE: 42.13, SKIP: 38.17, DECODE: 29.38, FULL: 26.65},
}
