"""One TOML file a card: only what differs from the engine's defaults, and the card's facts.

A file's ``[card]`` table describes the hardware; every other table is a section of the configuration.
"""

import difflib
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

CARD = "card"


class ProfileError(ValueError):
    """No such profile; the message names the nearest and lists all."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """Facts of a graphics card, from its datasheet (not measured here)."""

    name: str
    """Marketing name without the maker, as it appears in the driver's name of the device."""
    arch: str
    """CUDA architecture, such as ``sm_75``."""
    memory_gib: float
    """Memory, GiB."""
    bandwidth_gbs: float
    """Memory bandwidth, GB/s."""
    tensor_tflops: float | None = None
    """Matrix products in half precision on tensor cores, TFLOP/s; None: it has none."""
    fp32_tflops: float
    """Convolutions of fp32 tensors, TFLOP/s: in TF32 where the card has it, as PyTorch runs them by default."""
    note: str
    """What decides its settings."""

    @property
    def capability(self) -> tuple[int, int]:
        """Compute capability: ``sm_75`` -> (7, 5)."""
        number = int(self.arch.removeprefix("sm_"))
        return number // 10, number % 10


def names() -> list[str]:
    """The shipped profiles, sorted."""
    files = resources.files(__name__).iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))


def load(name: str) -> dict[str, Any]:
    """The settings in which profile `name` differs from the defaults, as nested tables. Raises ProfileError."""
    return {section: dict(values) for section, values in _read(name).items() if section != CARD}


def card(name: str) -> Card | None:
    """The card that profile `name` is for; None for the CPU. Raises ProfileError."""
    facts = _read(name).get(CARD)
    return Card(**facts) if facts else None


@cache
def _read(name: str) -> dict[str, Any]:
    known = names()
    if name not in known:
        close = difflib.get_close_matches(name.lower().replace(" ", "").replace("-", ""), known, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise ProfileError(f"unknown profile {name}.{hint} The profiles are: auto, {', '.join(known)}.")
    return tomllib.loads(resources.files(__name__).joinpath(f"{name}.toml").read_text(encoding="utf-8"))
