"""One trial: a configuration's step, timed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastgan_engine.bench.throughput import engine_step_ms
from fastgan_engine.config import Config


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        seconds: after so long no other trial is begun.
        iterations: timed in a trial, after one that warms up.
        trial_seconds: after so long a trial times no other iteration.
    """

    seconds: float
    iterations: int
    trial_seconds: float


QUICK = Effort(seconds=90, iterations=5, trial_seconds=4)
THOROUGH = Effort(seconds=420, iterations=20, trial_seconds=20)


@dataclass(frozen=True)
class Trial:
    """One choice that was tried.

    Attributes:
        axis: what is chosen, such as "precision".
        choice: in words.
        settings: by dotted key, over those chosen before.
        images_per_second: None where it could not be tried.
        note: why not, or what else there is to say.
    """

    axis: str
    choice: str
    settings: Mapping[str, Any]
    images_per_second: float | None = None
    note: str = ""


def try_step(axis: str, choice: str, settings: Mapping[str, Any], config: Config, effort: Effort) -> Trial:
    """Times the engine's step under ``config``, which has ``settings`` in it; what fails is noted."""
    try:
        ms = engine_step_ms(config, effort.iterations, seconds=effort.trial_seconds)
    except (RuntimeError, ValueError) as error:  # out of memory, and whatever this device cannot do
        return Trial(axis, choice, settings, note=f"failed: {str(error).strip().splitlines()[0]}")
    return Trial(axis, choice, settings, config.train.batch / ms * 1e3)


def changed(config: Config, settings: Mapping[str, Any]) -> Config:
    """The configuration with other values of ``settings``, by dotted key."""
    for key, value in settings.items():
        section, name = key.split(".", 1)
        config = config.model_copy(
            update={section: getattr(config, section).model_copy(update={name: value})},
        )
    return config
