"""``fastgan-engine bench throughput``."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastgan_engine.cli.bench.options import Batch, ImSize, JsonFile
from fastgan_engine.errors import UserError

if TYPE_CHECKING:
    from fastgan_engine.bench.throughput import Timing
    from fastgan_engine.config import Config

ITERATIONS = 5


def throughput(
    compare: Annotated[str, typer.Option(help="Comma list of reference, compile, engine.")] = "reference,engine",
    im_size: ImSize = None,
    batch: Batch = None,
    iterations: Annotated[int, typer.Option(min=1, help="Timed iterations of each.")] = ITERATIONS,
    reconstruction: Annotated[str | None, typer.Option(help="lpips-vgg, lpips-squeeze, l1 or none.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Of the engine: auto, fp32, bf16 or fp16.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE")] = None,
    json_file: JsonFile = None,
) -> None:
    """Time one training iteration of each contender, in turns, in one process.

    All do the same work from the same weights. The reference is the released recipe in fp32, as plain PyTorch runs
    it; compile is the reference under AMP, channels-last and torch.compile. LPIPS has random weights here, which take
    the same time.
    """
    from fastgan_engine.config import resolve

    flags = {
        "model.im_size": im_size, "train.batch": batch, "loss.reconstruction": reconstruction,
        "engine.device": device, "precision.dtype": dtype,
    }  # fmt: skip
    config = resolve(flags=flags, sets=settings or [])
    from fastgan_engine.bench import throughput as bench

    contenders = [name.strip() for name in compare.split(",") if name.strip()]
    for name in contenders:
        if name not in bench.CONTENDERS:
            raise UserError(f"--compare: cannot compare {name!r}; known are {', '.join(bench.CONTENDERS)}")
    timings = bench.compare(config, contenders, iterations=iterations)
    _print(config, timings)
    if json_file is not None:
        json_file.write_text(json.dumps(_as_json(config, timings), indent=2) + "\n", encoding="utf-8")
        typer.echo(f"wrote {json_file}")


def _print(config: "Config", timings: "dict[str, Timing]") -> None:
    from rich.console import Console
    from rich.table import Table

    columns = ("", "ms / iteration", "20 % .. 80 %", "images/s", "first, ms", "capture, ms", "peak, GiB")
    table = Table(*columns, box=None, pad_edge=False)
    for name, timing in timings.items():
        table.add_row(
            name,
            f"{timing.median:,.0f}",
            f"{timing.quantile(20):,.0f} .. {timing.quantile(80):,.0f}",
            f"{config.train.batch / timing.median * 1e3:.2f}",
            f"{timing.first:,.0f}",
            f"{timing.setup:,.0f}",
            "-" if timing.peak_gib is None else f"{timing.peak_gib:.2f}",
        )
    console = Console()
    console.print(f"{config.model.im_size} x {config.model.im_size}, batch {config.train.batch}, {_device(config)}")
    console.print(table)
    for name in timings.keys() - {"engine"} if "engine" in timings else ():
        ratio = timings[name].median / timings["engine"].median
        console.print(f"the engine is {ratio:.2f} times as fast as {name}")


def _as_json(config: "Config", timings: "dict[str, Timing]") -> dict[str, Any]:
    import torch

    values: dict[str, Any] = {
        "im_size": config.model.im_size,
        "batch": config.train.batch,
        "device": _device(config),
        "torch": torch.__version__,
        "reconstruction": config.loss.reconstruction,
    }
    for name, timing in timings.items():
        values[name] = {
            "ms": timing.median,
            "ms_20": timing.quantile(20),
            "ms_80": timing.quantile(80),
            "ms_first": timing.first,
            "ms_capture": timing.setup,
            "peak_gib": timing.peak_gib,
            "iterations": len(timing.each),
        }
    if {"reference", "engine"} <= timings.keys():
        values["speedup"] = timings["reference"].median / timings["engine"].median
    return values


def _device(config: "Config") -> str:
    """Such as "cpu (2 threads), bfloat16" or "NVIDIA H200, bfloat16": what the engine ran on and in."""
    import torch

    from fastgan_engine.hardware import pick_device, pick_dtype

    device = pick_device(config.engine.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({torch.get_num_threads()} threads)"
    return f"{name}, {str(pick_dtype(config.precision.dtype, device)).removeprefix('torch.')}"
