"""``fastgan-engine evaluate``: metrics of runs, snapshots and released checkpoints, side by side."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastgan_engine.cli.outcome import data_errors, refuse_to_overwrite, waiting, warn, writing
from fastgan_engine.cli.sample import Force
from fastgan_engine.errors import UserError
from fastgan_engine.evaluation import defaults

if TYPE_CHECKING:
    from rich.table import Table

    from fastgan_engine.evaluation.runs import Evaluation

MIN_NAME = 16  # columns for a run's name, which is folded where it is longer
WIDE = 200  # columns, where there is no terminal to fit into


def evaluate(
    sources: Annotated[
        list[Path], typer.Argument(metavar="RUN|FILE...", help="Runs, snapshots (.safetensors) or released .pth.")
    ],
    data: Annotated[
        Path | None, typer.Option(help="Training images to compare with.", show_default="those of each run")
    ] = None,
    metrics: Annotated[
        str, typer.Option(help="Comma list; swd alone needs no weights.", show_default="all")
    ] = ",".join(defaults.NAMES),
    count: Annotated[int, typer.Option(min=1, help="Samples of each run.")] = defaults.COUNT,
    seed: Annotated[int, typer.Option(min=0, help="Of the samples.")] = defaults.SEED,
    weights_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder with weights of InceptionV3 and LPIPS.", show_default="the run's, the torch cache, a download"
        ),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the values there.")] = None,
    chunk: Annotated[int, typer.Option(min=1, help="Images at once; lower needs less memory.")] = 8,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    force: Force = False,
) -> None:
    """Measure how good a generator's images are: FID, KID, precision, recall, density, coverage, LPIPS, SWD.

    Values of runs are kept for their reports, features of the training images in the user's cache. Values of different
    --count, or against different images, do not compare.
    """
    if json_file is not None:
        refuse_to_overwrite(json_file, force, "--json")
    names = _names(metrics)
    with waiting("loading"):
        from fastgan_engine.config import resolve
        from fastgan_engine.evaluation.runs import evaluate as evaluate_runs
        from fastgan_engine.evaluation.runs import notes, remember
        from fastgan_engine.hardware import pick_device

        setting = resolve(flags={"engine.device": device}).engine.device  # checks it
    with data_errors(), _progress() as progress:
        evaluations = evaluate_runs(
            sources,
            data=data,
            metrics=names,
            count=count,
            seed=seed,
            weights_dir=weights_dir,
            device=pick_device(setting),
            chunk=chunk,
            warn=warn,
            progress=progress,
        )
    _print(evaluations, notes(evaluations))
    try:
        remember(evaluations)
    except OSError as error:
        warn(f"the values are not kept for the run's report: {error}")
    if json_file is not None:
        with writing(json_file):
            _write(json_file, evaluations)


def _names(metrics: str) -> tuple[str, ...]:
    try:
        return defaults.parse_metrics(metrics)
    except ValueError as error:
        raise UserError(f"--metrics: {error}") from None


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on the terminal's error stream that says what is looked at; nothing where there is no terminal."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("")
        yield lambda what, done, total: bar.update(task, description=escape(what), completed=done, total=total)


def _print(evaluations: "Sequence[Evaluation]", told: Sequence[str]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDE)
    console.print(table(evaluations))
    first = evaluations[0]
    against = f"{first.reals:,}" if len({e.data_hash for e in evaluations}) == 1 else "their"
    console.print(Text(f"{first.count:,} samples of seed {first.seed} against {against} training images"))
    for note in told:
        console.print(Text(f"note: {note}"))


def table(evaluations: "Sequence[Evaluation]") -> "Table":
    """A row a run, a column a metric; the best of several in bold, with what the training images have below."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from fastgan_engine.evaluation.metrics import METRICS

    grid = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    grid.add_column("run", overflow="fold", min_width=MIN_NAME)
    for title in ("step", *(METRICS[name].title for name in evaluations[0].values)):
        grid.add_column(title, justify="right", no_wrap=True)
    best = {name: _best(name, evaluations) for name in evaluations[0].values}
    for evaluation in evaluations:
        cells = [
            Text(METRICS[name].text(value), style="bold" if value == best[name] and len(evaluations) > 1 else "")
            for name, value in evaluation.values.items()
        ]
        step = "" if evaluation.step is None else f"{evaluation.step:,}"
        grid.add_row(Text(str(evaluation.source)), step, *cells)
    for diversity in dict.fromkeys(e.real_diversity for e in evaluations if e.real_diversity is not None):
        cells = [Text(METRICS[n].text(diversity) if n == "lpips" else "") for n in evaluations[0].values]
        grid.add_row(Text("training images", style="dim"), "", *cells)
    return grid


def _best(name: str, evaluations: "Sequence[Evaluation]") -> float:
    from fastgan_engine.evaluation.metrics import METRICS

    pick = min if METRICS[name].better == "lower" else max
    return pick(evaluation.values[name] for evaluation in evaluations)


def _write(path: Path, evaluations: "Sequence[Evaluation]") -> None:
    from fastgan_engine.atomic import atomic_write

    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps([e.record() for e in evaluations], indent=2) + "\n", encoding="utf-8")
