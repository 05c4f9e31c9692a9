"""``fastgan-engine doctor``: what this machine has, what falls back and why, what to install."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fastgan_engine.doctor import Check

MARKS = {"ok": "[green]ok[/]", "fallback": "[yellow]falls back[/]", "missing": "[red]missing[/]"}


def doctor(
    weights_dir: Annotated[
        Path | None, typer.Option(help="Folder that may hold LPIPS backbone weights, as given to train.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where runs are to be written.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Check this machine: driver, GPUs, PyTorch, Triton, DALI, LPIPS, apex; say what to install.

    Exits with 0 if training can work, else with 1.
    """
    from fastgan_engine.doctor import can_train, diagnose

    checks = diagnose(weights_dir, out)
    works = can_train(checks)
    if as_json:
        typer.echo(json.dumps({"can_train": works, "checks": [asdict(check) for check in checks]}, indent=2))
    else:
        _print(checks, works)
    raise typer.Exit(0 if works else 1)


def _print(checks: "list[Check]", works: bool) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("", "status", "found"):
        table.add_column(column, overflow="fold")
    for check in checks:
        lines = [escape(check.found)]
        lines += [f"[dim]{escape(check.effect)}[/]"] if check.effect else []
        lines += [f"-> {escape(check.remedy)}"] if check.remedy else []
        table.add_row(check.name, MARKS[check.status], "\n".join(lines))
    console = Console()
    console.print(table)
    console.print("[bold]Training can work here.[/]" if works else "[bold red]Training cannot work here.[/]")
