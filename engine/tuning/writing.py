"""A tuned profile as TOML: what the profile it started from says, changed where measuring said otherwise."""

import textwrap
from collections.abc import Mapping
from typing import Any

from fastgan_engine import profiles
from fastgan_engine.config.toml import literal
from fastgan_engine.tuning.tune import Tuned

WIDTH = 118


def to_toml(base: str, config_settings: Mapping[str, Any], tuned: Tuned, header: str) -> str:
    """A profile that ``train --profile FILE`` accepts.

    base: the profile that the search started from; config_settings: what was given over it, by dotted key; header: what
    was measured, and on what.
    """
    values: dict[str, Any] = {f"{s}.{k}": v for s, table in profiles.load(base).items() for k, v in table.items()}
    values |= dict(config_settings) | tuned.settings
    reasons = profiles.reasons(base) | tuned.reasons
    lines = _comment(header)
    if base != "cpu":
        lines += ["", "[card]", *(f"{key} = {literal(value)}" for key, value in profiles.card_table(base).items())]
    for section in dict.fromkeys(key.split(".")[0] for key in values):
        lines += ["", f"[{section}]"]
        for key in (key for key in values if key.startswith(f"{section}.")):
            lines += _comment(reasons.get(key, ""))
            lines.append(f"{key.split('.')[1]} = {literal(values[key])}")
    return "\n".join(lines) + "\n"


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, WIDTH)]
