"""Resolves a configuration: defaults < profile < config file < flags < ``--set``."""

import difflib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fastgan_engine import profiles
from fastgan_engine.config.messages import explain
from fastgan_engine.config.schema import Config, sections, settings
from fastgan_engine.errors import UserError

AUTO = "auto"


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Values by dotted key, and where they came from (`profile rtx2070`, `file run.toml`, `flag`, `--set`)."""

    source: str
    values: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """A configuration, the source of each of its values, and what the user should be told about it."""

    config: Config
    sources: dict[str, str]
    notes: list[str]


def resolve(
    profile: str | None = None,
    config_file: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    sets: Sequence[str] = (),
) -> Config:
    """The configuration of a run; see `resolve_with_sources`, which also tells where each value came from."""
    return resolve_with_sources(profile, config_file, flags, sets).config


def resolve_with_sources(
    profile: str | None = None,
    config_file: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    sets: Sequence[str] = (),
) -> Resolution:
    """Lay the sources over the defaults, the later over the earlier: profile, file, flags, sets.

    profile: a shipped profile, or "auto" for the one of this machine's hardware.
    config_file: a TOML file with the sections of `Config`.
    flags: dotted key -> value of the command's own flags; None means that the flag was not given.
    sets: ``section.key=value``, the value in TOML notation or as bare text; the last of several wins.
    Raises UserError for unknown names, wrong types and values out of range, naming the source.
    """
    above = [file_layer(config_file)] if config_file else []
    above += [Layer(source="flag", values={k: v for k, v in (flags or {}).items() if v is not None})]
    above += [set_layer(sets)]
    notes: list[str] = []
    if profile == AUTO:
        profile, note = _profile_of_this_machine(above)
        notes.append(note)
    layers = ([profile_layer(profile)] if profile else []) + above
    config, sources = merge(layers)
    return Resolution(config=config, sources=sources, notes=notes + config.warnings())


def _profile_of_this_machine(above: Sequence[Layer]) -> tuple[str, str]:
    from fastgan_engine.hardware import choose_profile

    devices = [layer.values["engine.device"] for layer in above if "engine.device" in layer.values]
    choice = choose_profile(str(devices[-1]) if devices else AUTO)
    return choice.profile, choice.reason


def profile_layer(name: str) -> Layer:
    """The differences of a shipped profile. Raises UserError naming the nearest."""
    try:
        table = profiles.load(name)
    except profiles.ProfileError as error:
        raise UserError(str(error)) from None
    return Layer(source=f"profile {name}", values=_flatten(table, f"profile {name}"))


def file_layer(path: Path) -> Layer:
    """The values of a TOML file; the [card] table of a copied profile is passed over.

    Raises UserError when the file cannot be read.
    """
    source = f"file {path}"
    try:
        # utf-8-sig: editors on Windows put a byte-order mark first, which TOML does not allow.
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"cannot read the configuration {path}: {error.strerror}") from None
    except ValueError as error:  # TOMLDecodeError, UnicodeDecodeError
        raise UserError(f"the configuration {path} is not valid TOML: {error}") from None
    table.pop(profiles.CARD, None)
    return Layer(source=source, values=_flatten(table, source))


def set_layer(sets: Sequence[str]) -> Layer:
    """The values of ``--set section.key=value``."""
    values = {}
    for text in sets:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UserError(f"--set {text}: expected section.key=value, for example --set train.batch=4")
        values[key.strip()] = _parse_value(value.strip())
    return Layer(source="--set", values=values)


def _parse_value(text: str) -> bool | int | float | str:
    """Numbers, true, false and quoted strings as in TOML; anything else is text, such as a word, a path or a date."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except ValueError:  # not TOML
        return text
    return value if isinstance(value, bool | int | float | str) else text


def _flatten(table: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Nested tables -> dotted keys. Raises UserError for an unknown section, or one that is not a table."""
    flat: dict[str, Any] = {}
    for section, values in table.items():
        if isinstance(values, Mapping):
            _check_section(section, source)
            flat.update({f"{section}.{name}": value for name, value in values.items()})
        else:
            _check_key(section, source)  # outside any section: the hint names the right one
    return flat


def merge(layers: Iterable[Layer]) -> tuple[Config, dict[str, str]]:
    """Defaults with the layers laid over them, and the source of every setting."""
    table: dict[str, dict[str, Any]] = {name: {} for name in sections()}
    sources = dict.fromkeys(settings(), "default")
    for layer in layers:
        for key, value in layer.values.items():
            _check_key(key, layer.source)
            section, name = key.split(".", 1)
            table[section][name] = value
            sources[key] = layer.source
    try:
        return Config.model_validate(table), sources
    except ValidationError as error:
        raise UserError(explain(error, sources)) from None


def _check_key(key: str, source: str) -> None:
    known = settings()
    if key in known:
        return
    section, _, name = key.partition(".")
    if section in sections() and not name:
        raise UserError(f"{section} ({source}) is a section, not a setting. {_listing(section)}")
    elsewhere = [other for other in known if other.split(".")[1] == (name or section)]
    if not elsewhere and name:
        _check_section(section, source)
    siblings = [other for other in known if other.startswith(f"{section}.")]
    by_name = {other.split(".")[1]: other for other in known}
    close = elsewhere or difflib.get_close_matches(key, siblings, n=1, cutoff=0.8)
    close = close or [by_name[other] for other in difflib.get_close_matches(name or section, by_name, n=1)]
    hint = f" Did you mean {close[0]}?" if close else ""
    raise UserError(f"unknown setting {key} ({source}).{hint} {_listing(section)}")


def _listing(section: str) -> str:
    """What may be written there instead: the keys of a known section, else the sections."""
    if section in sections():
        return f"{section} has: {', '.join(sections()[section].model_fields)}."
    return f"The sections are: {', '.join(sections())}."


def _check_section(section: str, source: str) -> None:
    if section in sections():
        return
    close = difflib.get_close_matches(section, sections(), n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    raise UserError(f"unknown section {section} ({source}).{hint} {_listing(section)}")
