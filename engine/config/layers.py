"""Resolves a configuration: defaults < profile < config file < flags < ``--set``."""

import difflib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from fastgan_engine import profiles
from fastgan_engine.config.messages import explain
from fastgan_engine.config.schema import Config, Root, sections, settings
from fastgan_engine.errors import UserError

AUTO = "auto"

R = TypeVar("R", bound=Root)


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Values by dotted key, and where they came from (`profile rtx2070`, `file run.toml`, `flag`, `--set`)."""

    source: str
    values: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Resolution(Generic[R]):
    """A configuration, the source of each of its values, and what the user should be told about it."""

    config: R
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
) -> Resolution[Config]:
    """What `resolve` returns, with its sources; see `resolve_as`."""
    return resolve_as(Config, profile, config_file, flags, sets)


def resolve_as(
    root: type[R],
    profile: str | None = None,
    config_file: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    sets: Sequence[str] = (),
) -> Resolution[R]:
    """Lay the sources over the defaults, the later over the earlier: profile, file, flags, sets.

    root: the kind of configuration: `Config`, or one of another kind of run.

    profile: a shipped profile, or "auto" for the one of this machine's hardware.
    config_file: a TOML file with the sections of `root`.
    flags: dotted key -> value of the command's own flags; None means that the flag was not given.
    sets: ``section.key=value``, the value in TOML notation or as bare text; the last of several wins.
    Raises UserError for unknown names, wrong types and values out of range, naming the source.
    """
    above = [file_layer(config_file, root)] if config_file else []
    above += [Layer(source="flag", values={k: v for k, v in (flags or {}).items() if v is not None})]
    above += [set_layer(sets)]
    notes: list[str] = []
    if profile == AUTO:
        profile, note = _profile_of_this_machine(above)
        notes.append(note)
    layers = ([profile_layer(profile, root)] if profile else []) + above
    config, sources = merge(layers, root)
    return Resolution(config=config, sources=sources, notes=notes + config.warnings())


def _profile_of_this_machine(above: Sequence[Layer]) -> tuple[str, str]:
    from fastgan_engine.hardware import choose_profile

    devices = [layer.values["engine.device"] for layer in above if "engine.device" in layer.values]
    choice = choose_profile(str(devices[-1]) if devices else AUTO)
    return choice.profile, choice.reason


def profile_layer(name: str, root: type[Root]) -> Layer:
    """The differences of a shipped profile, in the sections that `root` has. Raises UserError naming the nearest."""
    try:
        table = profiles.load(name)
    except profiles.ProfileError as error:
        raise UserError(str(error)) from None
    if root is not Config:  # a profile is written for `Config`; other kinds of run share what describes the card
        table = {section: values for section, values in table.items() if section in sections(root)}
    return Layer(source=f"profile {name}", values=_flatten(table, f"profile {name}", root))


def file_layer(path: Path, root: type[Root]) -> Layer:
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
    return Layer(source=source, values=_flatten(table, source, root))


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


def _flatten(table: Mapping[str, Any], source: str, root: type[Root]) -> dict[str, Any]:
    """Nested tables -> dotted keys. Raises UserError for an unknown section, or one that is not a table."""
    flat: dict[str, Any] = {}
    for section, values in table.items():
        if isinstance(values, Mapping):
            _check_section(section, source, root)
            flat.update({f"{section}.{name}": value for name, value in values.items()})
        else:
            _check_key(section, source, root)  # outside any section: the hint names the right one
    return flat


def merge(layers: Iterable[Layer], root: type[R]) -> tuple[R, dict[str, str]]:
    """Defaults with the layers laid over them, and the source of every setting."""
    table: dict[str, dict[str, Any]] = {name: {} for name in sections(root)}
    sources = dict.fromkeys(settings(root), "default")
    for layer in layers:
        for key, value in layer.values.items():
            _check_key(key, layer.source, root)
            section, name = key.split(".", 1)
            table[section][name] = value
            sources[key] = layer.source
    try:
        return root.model_validate(table), sources
    except ValidationError as error:
        raise UserError(explain(error, sources, settings(root))) from None


def _check_key(key: str, source: str, root: type[Root]) -> None:
    known = settings(root)
    if key in known:
        return
    section, _, name = key.partition(".")
    if section in sections(root) and not name:
        raise UserError(f"{section} ({source}) is a section, not a setting. {_listing(section, root)}")
    elsewhere = [other for other in known if other.split(".")[1] == (name or section)]
    if not elsewhere and name:
        _check_section(section, source, root)
    siblings = [other for other in known if other.startswith(f"{section}.")]
    by_name = {other.split(".")[1]: other for other in known}
    close = elsewhere or difflib.get_close_matches(key, siblings, n=1, cutoff=0.8)
    close = close or [by_name[other] for other in difflib.get_close_matches(name or section, by_name, n=1)]
    hint = f" Did you mean {close[0]}?" if close else ""
    raise UserError(f"unknown setting {key} ({source}).{hint} {_listing(section, root)}")


def _listing(section: str, root: type[Root]) -> str:
    """What may be written there instead: the keys of a known section, else the sections."""
    known = sections(root)
    if section in known:
        return f"{section} has: {', '.join(known[section].model_fields)}."
    return f"The sections are: {', '.join(known)}."


def _check_section(section: str, source: str, root: type[Root]) -> None:
    if section in sections(root):
        return
    close = difflib.get_close_matches(section, sections(root), n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    raise UserError(f"unknown section {section} ({source}).{hint} {_listing(section, root)}")
