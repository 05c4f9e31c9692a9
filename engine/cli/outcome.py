"""What commands share: never overwrite unasked, wait visibly, warn aside, blame bad images on the images."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from fastgan_engine.errors import UserError
from fastgan_engine.pipelines.errors import DataError


def refuse_to_overwrite(path: Path, force: bool, option: str = "--out") -> None:
    """Raises UserError where `path` is a file, or a folder that holds something, unless `force`."""
    taken = any(path.iterdir()) if path.is_dir() else path.exists()
    if taken and not force:
        raise UserError(f"{option}: {path} exists; choose another path, or overwrite it with --force")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """A full disk or a folder that cannot be written to is the user's to know, in one line."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None


@contextmanager
def waiting(for_what: str) -> Iterator[None]:
    """A spinner on the terminal's error stream; nothing where there is no terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(for_what):
        yield


@contextmanager
def progress_bar(doing: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on the terminal's error stream, gone when done; nothing where there is no terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(doing)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def data_errors() -> Iterator[None]:
    """What is wrong with a folder of images is the user's to know, in one line."""
    try:
        yield
    except DataError as error:
        raise UserError(str(error)) from error


def warn(message: str) -> None:
    typer.secho("warning: ", err=True, nl=False, fg="yellow", bold=True)
    typer.echo(message, err=True)
