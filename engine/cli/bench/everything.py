"""``fastgan-engine bench all``."""

from pathlib import Path
from typing import Annotated

import typer

from fastgan_engine.cli.outcome import refuse_to_overwrite


def everything(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder for figures, plots and the index.")] = Path("bench"),
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes, and without what takes long.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Write into a folder that holds something.")] = False,
) -> None:
    """Run every benchmark that this machine can run, one after the other, into one folder.

    Each writes its figures (JSON), its plot where it has one, and what it printed; index.md lists them. One that fails
    does not stop the rest; the exit code is then 1.
    """
    refuse_to_overwrite(out, force)
    import torch

    from fastgan_engine.bench.everything import INDEX, parts, run_all
    from fastgan_engine.bench.parts import outcome

    assert context.parent is not None
    commands = context.parent.command.commands  # type: ignore[attr-defined]
    cuda = torch.cuda.is_available()
    name = torch.cuda.get_device_name() if cuda else f"cpu ({torch.get_num_threads()} threads)"
    chosen = parts(out.absolute(), set(commands), quick=quick, cuda=cuda)
    results = run_all(chosen, out.absolute(), {"machine": name, "torch": torch.__version__})
    typer.echo()
    for result in results:
        typer.echo(f"{result['part']:<12}{outcome(result)}")
    typer.echo(f"wrote {out / INDEX}")
    if any(result.get("exit") for result in results):
        raise typer.Exit(1)
