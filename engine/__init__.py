"""fastgan-engine: trains the standard FastGAN fast on a consumer NVIDIA card.

Importing this package is cheap: torch is loaded on the first use of a name below.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastgan_engine.api import load_run
    from fastgan_engine.latent.interpolation import interpolate
    from fastgan_engine.latent.inversion import invert
    from fastgan_engine.latent.latents import Latents, read_latents
    from fastgan_engine.latent.mixing import mix
    from fastgan_engine.latent.neighbors import neighbors
    from fastgan_engine.networks import Discriminator, Generator
    from fastgan_engine.released import load_released
    from fastgan_engine.sampling import sample
    from fastgan_engine.trainer import Trainer

__all__ = [
    "Discriminator",
    "Generator",
    "Latents",
    "Trainer",
    "interpolate",
    "invert",
    "load_released",
    "load_run",
    "mix",
    "neighbors",
    "read_latents",
    "sample",
]

_MODULES = {
    "Discriminator": "networks",
    "Generator": "networks",
    "Latents": "latent.latents",
    "Trainer": "trainer",
    "interpolate": "latent.interpolation",
    "invert": "latent.inversion",
    "load_released": "released",
    "load_run": "api",
    "mix": "latent.mixing",
    "neighbors": "latent.neighbors",
    "read_latents": "latent.latents",
    "sample": "sampling",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
