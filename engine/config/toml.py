"""Writes a configuration as commented TOML."""

import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from fastgan_engine.config.schema import Root, sections

WIDTH = 100


def emit(config: Root, sources: Mapping[str, str]) -> str:
    """Every setting under its section, its description above it and its source (if given) beside it."""
    lines: list[str] = []
    for section, model in sections(type(config)).items():
        lines += ["", f"[{section}]"]
        for name, field in model.model_fields.items():
            lines += textwrap.wrap(_describe(field), WIDTH, initial_indent="# ", subsequent_indent="#   ")
            source = sources.get(f"{section}.{name}", "default")
            note = "" if source == "default" else f"  # from {_printable(source)}"
            lines.append(f"{name} = {literal(getattr(getattr(config, section), name))}{note}")
    return "\n".join(lines[1:]) + "\n"


def _describe(field: FieldInfo) -> str:
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    return (field.description or "") + (f" [{' | '.join(map(str, choices))}]" if choices else "")


def _printable(text: str) -> str:
    """A file's name may hold characters that TOML forbids in a comment."""
    return "".join(character if character.isprintable() else "?" for character in text)


def literal(value: Any) -> str:
    """`value` as a TOML literal; None is the word "none", which the schema reads back as None."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if value is None:
        return '"none"'
    if isinstance(value, Path):
        # A file that is really named none must not read back as "unset".
        value = "./none" if str(value) == "none" else str(value)
    # JSON's escapes are TOML's, except that TOML also wants U+007F escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
