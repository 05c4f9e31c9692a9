"""``fastgan-engine profiles list|show``: the shipped profiles, what each says and why."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastgan_engine.cli.tune import tune

if TYPE_CHECKING:
    from fastgan_engine.profiles import Card

app = typer.Typer(help="The shipped profiles, one a card; and one for this machine.", no_args_is_help=True)
app.command("tune")(tune)

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.command("list")
def list_profiles(as_json: Json = False) -> None:
    """List the profiles with the card each is for and what it changes."""
    from fastgan_engine import profiles

    rows = {name: (profiles.card(name), _changes(name)) for name in profiles.names()}
    if as_json:
        typer.echo(json.dumps([_as_dict(name, card, changes) for name, (card, changes) in rows.items()], indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("profile", "card", "arch", "memory", "bandwidth", "changes", box=None, pad_edge=False)
    for name, (card, changes) in rows.items():
        facts = _facts(card) if card else ("no graphics card", "", "", "")
        table.add_row(name, *facts, ", ".join(key.split(".")[1] for key in changes))
    console = Console()
    console.print(table)
    console.print("`--profile auto` takes the one for this machine. Card figures are from datasheets.")


@app.command("show")
def show_profile(
    name: Annotated[str, typer.Argument(help="A profile's name or .toml file, or auto for this machine's.")],
    as_json: Json = False,
) -> None:
    """Show what a profile says, beside the default and with the reason, and the facts of its card."""
    from fastgan_engine import profiles

    notes = []
    if name == "auto":
        from fastgan_engine.hardware import choose_profile

        choice = choose_profile()
        name, notes = choice.profile, [choice.reason]
    said = _said(name)  # first: an unknown name fails here, as a UserError
    card = profiles.card(name)
    if as_json:
        typer.echo(json.dumps(_as_dict(name, card, said) | {"reasons": profiles.reasons(name)}, indent=2))
        return
    _print_profile(name, card, said, notes)


def _said(name: str) -> dict[str, tuple[Any, Any]]:
    """Dotted key -> (the profile's value, the default), for what the profile says."""
    from fastgan_engine.config import Config, resolve_with_sources

    defaults, found = Config().values(), resolve_with_sources(name)
    values = found.config.values()
    return {key: (values[key], defaults[key]) for key, source in found.sources.items() if source != "default"}


def _changes(name: str) -> dict[str, tuple[Any, Any]]:
    """What of it differs from the default."""
    return {key: (value, default) for key, (value, default) in _said(name).items() if value != default}


def _as_dict(name: str, card: "Card | None", changes: dict[str, tuple[Any, Any]]) -> dict[str, Any]:
    settings = {key: {"value": value, "default": default} for key, (value, default) in changes.items()}
    return {"name": name, "card": asdict(card) if card else None, "settings": settings}


def _facts(card: "Card") -> tuple[str, str, str, str]:
    return card.name, card.arch, f"{card.memory_gib:g} GiB", f"{card.bandwidth_gbs:g} GB/s"


def _print_profile(name: str, card: "Card | None", said: dict[str, tuple[Any, Any]], notes: list[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    from fastgan_engine import profiles

    console = Console()
    for note in notes:
        console.print(note)
    console.print(f"[bold]{name}[/]: " + (", ".join(_facts(card)) if card else "no graphics card"))
    if card:
        console.print(f"[dim]{card.note}[/]")
    reasons = profiles.reasons(name)
    table = Table("setting", "value", "default", "why", box=None, pad_edge=False)
    for key, (value, default) in said.items():
        table.add_row(key, _word(value), _word(default) if value != default else "same", reasons.get(key, ""))
    console.print(table)


def _word(value: object) -> str:
    """As a user types it after ``--set key=``."""
    from fastgan_engine.config.toml import literal

    return literal(value).strip('"')
