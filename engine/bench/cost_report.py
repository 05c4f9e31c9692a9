"""``bench cost``: the counted cost as tables and as JSON."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from fastgan_engine import profiles
from fastgan_engine.bench.cost import cost
from fastgan_engine.bench.counting import Bytes, Cost, launch_traffic
from fastgan_engine.bench.roofline import EAGER_LAUNCH_US, GRAPH_LAUNCH_US, model
from fastgan_engine.bench.tables import figures_table
from fastgan_engine.config import Config, resolve

# Rows of a table by operation; the others are summed up.
ROWS = 25
DTYPES = {"auto": torch.bfloat16, "bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def cost_command(config: Config, json_file: Path | None = None) -> None:
    """Counts both, models each card's times, prints and optionally writes JSON."""
    launch_bytes = launch_traffic()
    costs = {
        "reference": cost(config, "reference"),
        "engine": cost(config, "engine", DTYPES[config.precision.dtype], launch_bytes),
    }
    cards = card_times(config, costs, launch_bytes)
    _print(config, costs, cards)
    if json_file is not None:
        values = {name: totals(counted) for name, counted in costs.items()} | {"cards": cards}
        json_file.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        Console().print(f"wrote {json_file}")


def totals(counted: Cost) -> dict[str, Any]:
    return {
        "ops": counted.ops,
        "gflop": counted.gflop,
        "gbytes": counted.gbytes,
        "by_operation": [vars(row) for row in counted.rows()],
    }


def card_times(config: Config, costs: Mapping[str, Cost], launch_bytes: Bytes) -> dict[str, dict[str, Any]]:
    """By profile: modelled ms of the reference (eager, fp32) and of the engine as that card's profile runs it."""
    counted = {_variant(config): costs["engine"]}
    times = {}
    for name in profiles.names():
        card = profiles.card(name)
        if card is None:
            continue
        own = _on_card(config, name)
        dtype, kernels, _ = variant = _variant(own)
        if variant not in counted:
            counted[variant] = cost(own, "engine", dtype, launch_bytes)
        reference = model(costs["reference"], card, half=False, graph=False)
        engine = model(counted[variant], card, half=dtype != torch.float32, graph=own.engine.step != "eager")
        times[name] = {
            "card": card.name,
            "engine_dtype": str(dtype).removeprefix("torch."),
            "engine_kernels": kernels,
            "engine_micro_batch": own.train.batch // own.train.accumulation,
            "reference_ms": reference.ms,
            "reference_ms_launched": reference.ms_launched,
            "engine_ms": engine.ms,
            "engine_ms_launched": engine.ms_launched,
        }
    return times


def _on_card(config: Config, profile: str) -> Config:
    """The configuration under a card's profile: its precision, kernels and, where it divides the batch, micro-batch."""
    own = resolve(profile)
    micro = own.train.micro_batch
    if micro is not None and config.train.batch % micro:
        micro = None
    return config.model_copy(
        update={
            "precision": own.precision,
            "engine": own.engine,
            "train": config.train.model_copy(update={"micro_batch": micro}),
        }
    )


def _variant(config: Config) -> tuple[torch.dtype, str, int]:
    """What of a configuration decides on the engine's cost, given the networks and the batch."""
    kernels = "triton" if config.engine.kernels == "auto" else config.engine.kernels
    return DTYPES[config.precision.dtype], kernels, config.train.accumulation


def _print(config: Config, costs: Mapping[str, Cost], cards: Mapping[str, Mapping[str, Any]]) -> None:
    console = Console()
    reference, engine = costs["reference"], costs["engine"]
    console.print(f"one iteration at {config.model.im_size}, batch {config.train.batch}, counted on fake tensors")
    table = figures_table("", "ops", "GFLOP", "GB")
    for name, counted in costs.items():
        table.add_row(name, f"{counted.ops:,}", f"{counted.gflop:,.0f}", f"{counted.gbytes:,.1f}")
    table.add_row(
        "engine / reference",
        f"{engine.ops / reference.ops:.3f}",
        f"{engine.gflop / reference.gflop:.3f}",
        f"{engine.gbytes / reference.gbytes:.3f}",
    )
    console.print(table)
    for name, counted in costs.items():
        console.print(f"\n{name}, by operation (T: a Triton kernel)")
        console.print(_by_operation(counted))
    console.print(
        "\na model, not a measurement: ms that bandwidth and rates of the datasheet allow, without and with launches "
        f"(assumed: {EAGER_LAUNCH_US:g} us eager, {GRAPH_LAUNCH_US:g} us in a graph)"
    )
    table = figures_table("card", "engine in", "reference", "launched", "engine", "launched", "speedup")
    for row in cards.values():
        table.add_row(
            row["card"],
            f"{row['engine_dtype']}, {row['engine_kernels']}",
            *(f"{row[key]:,.1f}" for key in ("reference_ms", "reference_ms_launched", "engine_ms")),
            f"{row['engine_ms_launched']:,.1f}",
            f"{row['reference_ms_launched'] / row['engine_ms_launched']:.1f}",
        )
    console.print(table)


def _by_operation(counted: Cost) -> Table:
    rows = counted.rows()
    table = figures_table("", "ops", "GFLOP", "GB", "% of GB")
    for row in rows[:ROWS]:
        table.add_row(
            ("T " if row.triton else "  ") + row.name,
            f"{row.ops:,}",
            f"{row.gflop:,.1f}" if row.gflop else "",
            f"{row.gbytes:,.3f}",
            f"{row.gbytes / counted.gbytes:.1%}",
        )
    rest = rows[ROWS:]
    if rest:
        gbytes = sum(row.gbytes for row in rest)
        table.add_row(
            f"  {len(rest)} others",
            f"{sum(row.ops for row in rest):,}",
            f"{sum(row.gflop for row in rest):,.1f}",
            f"{gbytes:,.3f}",
            f"{gbytes / counted.gbytes:.1%}",
        )
    return table
