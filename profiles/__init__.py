"""One TOML file a card: only what differs from the engine's defaults, and the card's facts.

A file's ``[card]`` table describes the hardware; every other table is a section of the configuration. The comment above
a setting is its reason. Wherever a profile is named, the path of a file that ends in ``.toml`` may stand for it.
"""

import difflib
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
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
    """What profile `name` says, as nested tables: where it differs from the defaults, and what it states nevertheless.

    Raises ProfileError.
    """
    return {section: dict(values) for section, values in _read(name).items() if section != CARD}


def card(name: str) -> Card | None:
    """The card that profile `name` is for; None for the CPU. Raises ProfileError."""
    facts = card_table(name)
    return Card(**facts) if facts else None


def card_table(name: str) -> dict[str, Any]:
    """The facts of the card as the file has them; empty for the CPU. Raises ProfileError."""
    return dict(_read(name).get(CARD, {}))


def reasons(name: str) -> dict[str, str]:
    """Dotted key -> the comment above that setting in profile `name`. Raises ProfileError."""
    found: dict[str, str] = {}
    section, comment = "", list[str]()
    for line in map(str.strip, _text(name).splitlines()):
        if line.startswith("#"):
            comment.append(line.lstrip("# "))
            continue
        if line.startswith("["):
            section = line.strip("[]")
        elif "=" in line and comment:
            found[f"{section}.{line.partition('=')[0].strip()}"] = " ".join(comment)
        comment = []
    return found


def _read(name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(_text(name))
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(f"the profile {name} is not valid TOML: {error}") from None


def _text(name: str) -> str:
    if not name.endswith(".toml"):
        return _shipped(name)
    try:
        # utf-8-sig: editors on Windows put a byte-order mark first, which TOML does not allow.
        return Path(name).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ProfileError(f"cannot read the profile {name}: {getattr(error, 'strerror', None) or error}") from None


@cache
def _shipped(name: str) -> str:
    known = names()
    if name not in known:
        close = difflib.get_close_matches(name.lower().replace(" ", "").replace("-", ""), known, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise ProfileError(
            f"unknown profile {name}.{hint} The profiles are: auto, {', '.join(known)}; or the path of a .toml file."
        )
    return resources.files(__name__).joinpath(f"{name}.toml").read_text(encoding="utf-8")
