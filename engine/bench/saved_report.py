"""``bench saved``: memory kept for backward as a table and as JSON."""

import json
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from fastgan_engine.bench.saved import saved
from fastgan_engine.config import Config

DTYPES = (torch.bfloat16, torch.float32)
MIB = 2**20


def saved_command(config: Config, json_file: Path | None = None) -> None:
    """Counts reference and engine in half precision and in fp32."""
    values = {}
    table = Table(box=None, pad_edge=False)
    table.add_column("MiB kept for backward")
    for heading in ("reference", "engine", "engine / reference"):
        table.add_column(heading, justify="right")
    for dtype in DTYPES:
        name = str(dtype).removeprefix("torch.")
        reference, engine = (vars(saved(config, who, dtype)) for who in ("reference", "engine"))
        values[name] = {"reference": reference, "engine": engine}
        for key, words in (("g", "G pass"), ("d", "D pass"), ("d_at_once", "D pass, at once")):
            table.add_row(f"{name}, {words}", *_row(reference[key], engine[key]))
        table.add_row(f"{name}, G and D pass", *_row(*(each["g"] + each["d"] for each in (reference, engine))))
    console = Console()
    console.print(f"one iteration at {config.model.im_size}, batch {config.train.batch}, counted on fake tensors")
    console.print(table)
    if json_file is not None:
        json_file.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        console.print(f"wrote {json_file}")


def _row(reference: int, engine: int) -> tuple[str, str, str]:
    return f"{reference / MIB:,.0f}", f"{engine / MIB:,.0f}", f"{engine / reference:.3f}"
