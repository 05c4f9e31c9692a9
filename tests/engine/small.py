"""A configuration of a network that a test can afford."""

from typing import Any

from fastgan_engine.config import Config

SIZE, NZ, BATCH = 64, 16, 2


def small_config(**sections: dict[str, Any]) -> Config:
    """64 x 64, 8 channels a unit, reconstruction l1, on the CPU; ``sections`` over it."""
    base: dict[str, dict[str, Any]] = {
        "model": {"im_size": SIZE, "ngf": 8, "ndf": 8, "nz": NZ},
        "loss": {"reconstruction": "l1"},
        "train": {"batch": BATCH},
        "engine": {"device": "cpu"},
    }
    for name, values in sections.items():
        base[name] = base.get(name, {}) | values
    return Config.model_validate(base)
