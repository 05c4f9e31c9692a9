"""What makes a run fit a budget: the cheapest means first, and the largest batch.

The means, in this order, each with what it costs:

1. expandable segments: PyTorch's allocator wastes less on pieces that fit nothing; not on Windows;
2. the decoded images in host memory: a batch of bytes is copied each step;
3. recompute: G's forward runs a second time in the G step, in place of keeping its graph through the D step; the result
   is the same;
4. micro-batches, the largest that fits: G's forward runs twice too, and batch norm sees fewer images at a time.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from fastgan_engine.config import Config
from fastgan_engine.memory.plan import Plan
from fastgan_engine.sources import is_resident

Settings = Mapping[str, Any]
Planner = Callable[[Config], Plan]
MAX_BATCH = 64

EXPANDABLE: Settings = {"engine.expandable_segments": True}
HOST: Settings = {"data.resident_gib": 0.0}
RECOMPUTE: Settings = {"engine.recompute": True}
FLAGS = {"train.batch": "--batch", "train.micro_batch": "--micro-batch"}


@dataclass(frozen=True)
class Means:
    """Settings over the configuration's, and the plan with them."""

    settings: Settings
    plan: Plan

    @property
    def flags(self) -> str:
        """As ``train`` takes them; empty where nothing is changed."""
        return " ".join(_flag(key, value) for key, value in self.settings.items())


@dataclass(frozen=True)
class Fit:
    """What was tried, the cheapest first, until one fitted ``budget`` bytes."""

    tried: list[Means]
    budget: int

    @property
    def chosen(self) -> Means | None:
        """None where nothing fits."""
        return self.tried[-1] if self.tried[-1].plan.peak <= self.budget else None


def fit(config: Config, budget: int, images: int, planner: Planner) -> Fit:
    """The cheapest means with which the configured batch fits ``budget`` bytes."""
    tried = []
    for settings in candidates(config, images):
        tried.append(Means(settings, planner(with_settings(config, settings))))
        if tried[-1].plan.peak <= budget:
            break
    return Fit(tried, budget)


def candidates(config: Config, images: int) -> Iterator[Settings]:
    """Settings to try, the cheapest first."""
    expandable = {} if config.engine.expandable_segments or sys.platform == "win32" else EXPANDABLE
    host = HOST if is_resident(config, images) and config.data.loader == "auto" else {}
    again = RECOMPUTE if config.train.accumulation == 1 and not config.engine.recompute else {}
    settings: Settings = {}
    yield settings
    for means in (expandable, host, again):
        if means:
            settings = {**settings, **means}
            yield settings
    settings = {**expandable, **host}
    batch, now = config.train.batch, config.train.batch // config.train.accumulation
    for size in range(now - 1, 0, -1):
        if batch % size == 0:
            yield {**settings, "train.micro_batch": size}


def largest_batch(config: Config, budget: int, planner: Planner) -> int:
    """The most images a step that fit, all at once; 0 where not one does. At most ``MAX_BATCH``."""

    @cache
    def peak(batch: int) -> int:
        return planner(with_settings(config, {"train.batch": batch, "train.micro_batch": None})).peak

    fits, fails = 0, MAX_BATCH + 1
    guess = config.train.batch
    while fails - fits > 1:
        if peak(guess) <= budget:
            fits = guess
        else:
            fails = guess
        guess = min(max(_line(peak, guess, budget), fits + 1), fails - 1)
    return fits


def _line(peak: Callable[[int], int], batch: int, budget: int) -> int:
    """Memory grows all but linearly with the batch: where the line through two plans meets the budget."""
    other = 1 if batch > 1 else 2
    slope = max((peak(batch) - peak(other)) / (batch - other), 1)
    return int(batch + (budget - peak(batch)) / slope)


def with_settings(config: Config, settings: Settings) -> Config:
    """The configuration with dotted settings over it."""
    for key, value in settings.items():
        section, name = key.split(".")
        config = config.model_copy(update={section: getattr(config, section).model_copy(update={name: value})})
    return config


def _flag(key: str, value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
    return f"{FLAGS[key]} {text}" if key in FLAGS else f"--set {key}={text}"
