"""``bench throughput`` as a table, as JSON and as a plot, with what the machine would allow at best."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from fastgan_engine.bench.cost import cost
from fastgan_engine.bench.counting import Cost
from fastgan_engine.bench.plots import Bar, bar_plot
from fastgan_engine.bench.roofline import Rates, limit_ms, measure_rates
from fastgan_engine.bench.tables import figures_table
from fastgan_engine.bench.throughput import Timing
from fastgan_engine.config import Config
from fastgan_engine.hardware import describe_device, pick_device, pick_dtype


@dataclass(frozen=True)
class Limit:
    """What a contender's iteration costs, counted, against what the machine was measured to do in its precision."""

    gflop: float
    gbytes: float | None
    """None: what its kernels read and write is not known (torch.compile)."""
    rates: Rates
    ms: float | None
    """Of an iteration at the limit; None without bytes."""


@dataclass(frozen=True)
class Comparison:
    """The contenders at one size."""

    config: Config
    timings: Mapping[str, Timing]
    limits: Mapping[str, Limit]

    @property
    def speedups(self) -> dict[str, float]:
        """How many times as fast the engine is, by the other contender."""
        if "engine" not in self.timings:
            return {}
        engine = self.timings["engine"].median
        return {name: timing.median / engine for name, timing in self.timings.items() if name != "engine"}


def find_limits(config: Config, names: Sequence[str]) -> dict[str, Limit]:
    """Counts what each contender does and measures the machine: seconds, with Triton's kernels a minute or two."""
    device = pick_device(config.engine.device)
    dtype = pick_dtype(config.precision.dtype, device)
    rates = {kind: measure_rates(device, kind) for kind in {torch.float32, dtype}}
    reference = cost(config, "reference")
    limits = {}
    for name in names:
        if name == "engine":
            limits[name] = _limit(cost(_as_run(config, device), "engine", dtype), rates[dtype])
        elif name == "reference":
            limits[name] = _limit(reference, rates[torch.float32])
        else:
            limits[name] = Limit(reference.gflop, None, rates[dtype], None)
    return limits


def _as_run(config: Config, device: torch.device) -> Config:
    """On the CPU the engine runs the kernels' references: they are to be counted there."""
    if device.type == "cuda" or config.engine.kernels != "auto":
        return config
    return config.model_copy(update={"engine": config.engine.model_copy(update={"kernels": "reference"})})


def _limit(counted: Cost, rates: Rates) -> Limit:
    return Limit(counted.gflop, counted.gbytes, rates, limit_ms(counted, rates))


def show(comparison: Comparison) -> None:
    config, console = comparison.config, Console()
    table = figures_table("", "ms", "20 to 80 %", "images/s", "first ms", "capture ms", "peak GiB")
    for name, timing in comparison.timings.items():
        table.add_row(
            name,
            _ms(timing.median),
            f"{_ms(timing.quantile(20))} to {_ms(timing.quantile(80))}",
            f"{config.train.batch / timing.median * 1e3:.2f}",
            f"{timing.first:,.0f}",
            f"{timing.setup:,.0f}" if timing.setup else "-",
            "-" if timing.peak_gib is None else f"{timing.peak_gib:.2f}",
        )
    size = config.model.im_size
    console.print(f"{size} x {size}, batch {config.train.batch}, {describe_device(config)}")
    console.print(table)
    for name, ratio in comparison.speedups.items():
        console.print(f"the engine is {ratio:.2f} times as fast as {name}")
    if comparison.limits:
        _show_limits(comparison, console)


def _show_limits(comparison: Comparison, console: Console) -> None:
    table = figures_table("roofline", "TFLOP/s", "measured", "GB/s", "measured", "limit ms", "time / limit")
    for name, limit in comparison.limits.items():
        row = _achieved(comparison.timings[name], limit)
        table.add_row(
            name,
            f"{row['tflops']:.3g}",
            f"{limit.rates.tflops:.3g}",
            "-" if row["gbs"] is None else f"{row['gbs']:,.3g}",
            f"{limit.rates.gbs:,.3g}",
            "-" if limit.ms is None else _ms(limit.ms),
            "-" if row["over_limit"] is None else f"{row['over_limit']:.2f}",
        )
    console.print(table)
    console.print(
        "[dim]FLOP and bytes are counted operation by operation; 'measured' are a large matrix product in the "
        "contender's precision and a large copy on this machine. The limit adds up, for every operation, the longer of "
        "its bytes and its FLOP at those rates: 1 would be a step without any loss.[/]"
    )


def _achieved(timing: Timing, limit: Limit) -> dict[str, float | None]:
    return {
        "gflop": limit.gflop,
        "gbytes": limit.gbytes,
        "tflops": limit.gflop / timing.median,
        "gbs": None if limit.gbytes is None else limit.gbytes / timing.median * 1e3,
        "tflops_measured": limit.rates.tflops,
        "gbs_measured": limit.rates.gbs,
        "limit_ms": limit.ms,
        "over_limit": None if limit.ms is None else timing.median / limit.ms,
    }


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Facts of the comparison and one object a contender, times in ms."""
    config = comparison.config
    values: dict[str, Any] = {
        "im_size": config.model.im_size,
        "batch": config.train.batch,
        "device": describe_device(config),
        "torch": torch.__version__,
        "reconstruction": config.loss.reconstruction,
    }
    for name, timing in comparison.timings.items():
        values[name] = {
            "ms": timing.median,
            "ms_20": timing.quantile(20),
            "ms_80": timing.quantile(80),
            "ms_first": timing.first,
            "ms_capture": timing.setup,
            "peak_gib": timing.peak_gib,
            "iterations": len(timing.each),
        }
        if name in comparison.limits:
            values[name]["roofline"] = _achieved(timing, comparison.limits[name])
    if "reference" in comparison.speedups:
        values["speedup"] = comparison.speedups["reference"]
    if "compile" in comparison.speedups:
        values["speedup_compile"] = comparison.speedups["compile"]
    return values


def plot(comparisons: Sequence[Comparison], path: Path) -> None:
    """Milliseconds an iteration by size and contender, with the peak memory in the label where it is known."""
    names = list(dict.fromkeys(name for comparison in comparisons for name in comparison.timings))
    first = comparisons[0].config
    bar_plot(
        path,
        title=f"One training iteration, batch {first.train.batch}, {describe_device(first)}",
        unit="ms (median; line: 20 % to 80 %)",
        groups=[f"{c.config.model.im_size} x {c.config.model.im_size}" for c in comparisons],
        series={name: [_bar(c.timings.get(name)) for c in comparisons] for name in names},
    )


def _bar(timing: Timing | None) -> Bar | None:
    if timing is None:
        return None
    peak = "" if timing.peak_gib is None else f"\n{timing.peak_gib:.1f} GiB"
    return Bar(timing.median, _ms(timing.median) + peak, timing.quantile(20), timing.quantile(80))


def _ms(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
