"""``bench single`` as a table by stage and as JSON."""

from collections.abc import Sequence
from typing import Any

import torch
from rich.console import Console

from fastgan_engine import profiles
from fastgan_engine.bench.roofline import model
from fastgan_engine.bench.single import StageTiming
from fastgan_engine.bench.tables import figures_table
from fastgan_engine.config.single import SingleConfig
from fastgan_engine.hardware import pick_device


def show(config: SingleConfig, timings: Sequence[StageTiming], card: str | None) -> None:
    """A row a stage, and a training's time with these iterations. card: the profile whose card is modelled."""
    compared = all(timing.plain is not None for timing in timings)
    columns = ["stage", "size", "ms", "GFLOP"]
    columns += ["plain, ms", "speedup", "apart", "moved"] if compared else []
    columns += [f"{card}, ms"] if card else []
    table = figures_table(*columns)
    for timing in timings:
        row = [f"{timing.stage + 1}", f"{timing.size[1]} x {timing.size[0]}", f"{timing.ms:,.1f}"]
        row.append(f"{timing.cost.gflop:,.1f}")
        if timing.plain is not None:
            row += [f"{timing.plain.ms:,.1f}", f"{timing.plain.ms / timing.ms:.2f}"]
            row += [f"{timing.plain.difference:.1e}", f"{timing.plain.moved:.1e}"]
        table.add_row(*row, *([f"{modelled_ms(config, timing, card):.2f}"] if card else []))
    console = Console()
    console.print(_where(config))
    console.print(table)
    for name, minutes in totals(config, timings, card).items():
        console.print(f"{minutes:,.1f} min for {config.single.iterations:,} iterations a stage: {name}")
    if compared:
        console.print(
            f"the engine is {speedup(timings):.2f} times as fast as the plain loop, over all stages\n"
            f"apart: the largest difference of a weight after two iterations in fp64; moved: what training changed"
        )


def as_json(config: SingleConfig, timings: Sequence[StageTiming], card: str | None) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    for timing in timings:
        row: dict[str, Any] = {
            "stage": timing.stage + 1,
            "width": timing.size[1],
            "height": timing.size[0],
            "ms": timing.ms,
            "gflop": timing.cost.gflop,
            "gbytes": timing.cost.gbytes,
        }
        if timing.plain is not None:
            row |= {"ms_plain": timing.plain.ms, "speedup": timing.plain.ms / timing.ms}
            row |= {"apart": timing.plain.difference, "moved": timing.plain.moved}
        if card:
            row["ms_card"] = modelled_ms(config, timing, card)
        rows.append(row)
    values: dict[str, Any] = {
        "where": _where(config),
        "torch": torch.__version__,
        "mode": config.single.mode,
        "stages": rows,
    }
    values["minutes"] = totals(config, timings, card)
    if all(timing.plain is not None for timing in timings):
        values["speedup"] = speedup(timings)
    return values


def totals(config: SingleConfig, timings: Sequence[StageTiming], card: str | None) -> dict[str, float]:
    """Minutes of a whole training, by who trains."""
    sums = {"engine, measured here": sum(timing.ms for timing in timings)}
    plain = [timing.plain.ms for timing in timings if timing.plain is not None]
    if plain:
        sums["plain loop, measured here"] = sum(plain)
    if card:
        sums[f"engine on {card}, modelled"] = sum(modelled_ms(config, timing, card) for timing in timings)
    return {name: total * config.single.iterations / 60_000 for name, total in sums.items()}


def speedup(timings: Sequence[StageTiming]) -> float:
    """Over a training with the same number of iterations at each stage."""
    return sum(timing.plain.ms for timing in timings if timing.plain) / sum(timing.ms for timing in timings)


def modelled_ms(config: SingleConfig, timing: StageTiming, card: str) -> float:
    """Of an iteration at the limit of a card, replayed from a CUDA graph in fp32: a model, see ``roofline``."""
    facts = profiles.card(card)
    assert facts is not None, "checked by the command"
    return model(timing.cost, facts, half=False, graph=True).ms_launched


def _where(config: SingleConfig) -> str:
    device = pick_device(config.engine.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({torch.get_num_threads()} threads)"
    single = config.single
    return f"{name}, {single.mode}, {single.filters} filters, {single.stage_count} stages"
