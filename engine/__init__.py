"""fastgan-engine: trains the standard FastGAN fast on a consumer NVIDIA card.

Importing this package is cheap: torch is loaded on the first use of a name below.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastgan_engine.api import load_run
    from fastgan_engine.networks import Discriminator, Generator
    from fastgan_engine.released import load_released
    from fastgan_engine.sampling import sample
    from fastgan_engine.trainer import Trainer

__all__ = ["Discriminator", "Generator", "Trainer", "load_released", "load_run", "sample"]

_MODULES = {
    "Discriminator": "networks",
    "Generator": "networks",
    "Trainer": "trainer",
    "load_released": "released",
    "load_run": "api",
    "sample": "sampling",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
