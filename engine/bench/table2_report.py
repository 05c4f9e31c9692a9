"""``bench table2`` as a table and as JSON, beside the paper's own figures."""

from collections.abc import Sequence
from typing import Any

import torch
from rich import box
from rich.table import Table
from rich.text import Text

from fastgan_engine.bench import paper
from fastgan_engine.bench.table2 import Row
from fastgan_engine.config import Config
from fastgan_engine.evaluation import runs
from fastgan_engine.evaluation.metrics import METRICS
from fastgan_engine.hardware import describe_device


def table(rows: Sequence[Row]) -> Table:
    """A row a variant, a column for each set and metric (the best in bold), and the paper's FID on its own sets."""
    sets = list(dict.fromkeys(row.data for row in rows))
    columns = [(data, metric) for data in sets for metric in rows[0].evaluation.values]
    found = {(row.data, row.variant): row.evaluation.values for row in rows}
    grid = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    grid.add_column("")
    for data, metric in columns:
        grid.add_column(Text(f"{data}\n{METRICS[metric].title}"), justify="right")
    for data in paper.FID:
        grid.add_column(f"paper\n{data}", justify="right", style="dim", no_wrap=True)
    for variant in dict.fromkeys(row.variant for row in rows):
        cells = [_cell(found, data, variant, metric) for data, metric in columns]
        known = (f"{figures[variant]:.2f}" for figures in paper.FID.values())
        grid.add_row(paper.TITLES[variant], *cells, *known)
    return grid


def _cell(found: dict[tuple[str, str], dict[str, float]], data: str, variant: str, metric: str) -> Text:
    if (data, variant) not in found:
        return Text("-")  # interrupted before
    values = [own[metric] for (of, _), own in found.items() if of == data]
    best = (min if METRICS[metric].better == "lower" else max)(values)
    value = found[data, variant][metric]
    return Text(METRICS[metric].text(value), style="bold" if value == best and len(values) > 1 else "")


def notes(rows: Sequence[Row], config: Config) -> list[str]:
    """What a reader of these figures should know, a sentence each."""
    size, first = config.model.im_size, rows[0].evaluation
    told = [
        f"{size} x {size}, {config.train.steps:,} steps of batch {config.train.batch}, one seed; {first.count:,} "
        f"samples against the training images; {describe_device(config)}",
        f"the paper's are FID at {paper.FID_SIZE} x {paper.FID_SIZE} on its own sets, after five hours of training: "
        f"compare the order of the variants, not the values"
        + ("" if "fid" in first.values else "; nor is what is measured here FID"),
    ]
    for data in dict.fromkeys(row.data for row in rows):
        told += runs.notes([row.evaluation for row in rows if row.data == data])
    return list(dict.fromkeys(told))


def as_json(rows: Sequence[Row], config: Config) -> dict[str, Any]:
    """Facts, a record for each variant on each set, and the paper's figures."""
    model = config.model
    return {
        "im_size": model.im_size,
        "ngf": model.ngf,
        "ndf": model.ndf,
        "steps": config.train.steps,
        "batch": config.train.batch,
        "device": describe_device(config),
        "torch": torch.__version__,
        "notes": notes(rows, config),
        "rows": [{"set": row.data, "variant": row.variant, **row.evaluation.record()} for row in rows],
        "paper_fid_at_256": paper.FID,
    }
