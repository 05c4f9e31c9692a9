"""The standard FastGAN networks in plain PyTorch: the reference that every fast path is tested against."""

from fastgan_engine.networks.discriminator import Discriminator, Reconstructions, quadrant
from fastgan_engine.networks.generator import IM_SIZES, Generator, small_size

__all__ = ["IM_SIZES", "Discriminator", "Generator", "Reconstructions", "quadrant", "small_size"]
