"""``bench kernels`` on a GPU: each fused operation against plain PyTorch and against torch.compile of it.

Not yet run on a GPU. What is timed stands in ``kernel_cases``. Bytes are the least that the operation's own launches
could move (``kernels.traffic``); with cuBLAS or cuDNN inside (sle, up_conv, conv_relu, conv_tap) the time is of all,
the bytes of the kernels around.
"""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastgan_engine.bench.fake_iteration import fake_tensors
from fastgan_engine.bench.kernel_cases import Case, cases
from fastgan_engine.hardware import pick_dtype
from fastgan_engine.kernels.launch import record_launches
from fastgan_engine.kernels.traffic import traffic

CONTENDERS = ("triton", "eager", "compile")
PASSES = ("forward", "backward", "both")
COPY_BYTES = 1 << 28
# Time in ms of a function: median, 20th and 80th percentile.
Clock = Callable[[Callable[[], Any]], tuple[float, float, float]]


def closures(case: Case, contender: str) -> dict[str, Callable[[], Any]]:
    """What is timed, by pass; only the forward pass of what has no gradient."""
    function = partial(case.function, **({"impl": "triton"} if contender == "triton" else case.plain))
    run = torch.compile(function, dynamic=False) if contender == "compile" else function
    tensors = {name: t.detach().requires_grad_(name in case.leaves) for name, t in case.tensors.items()}
    leaves = [tensors[name] for name in case.leaves]
    if not leaves:
        return {"forward": lambda: run(**tensors)}
    outputs = _differentiable(run(**tensors))
    grads = [torch.ones_like(output) for output in outputs]
    return {
        "forward": lambda: run(**tensors),
        "backward": lambda: torch.autograd.grad(outputs, leaves, grads, retain_graph=True),
        "both": lambda: torch.autograd.grad(_differentiable(run(**tensors)), leaves, grads),
    }


def _differentiable(result: Tensor | tuple[Tensor, ...]) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else list(result)


def minimum_bytes(make: Callable[[str], Case]) -> dict[str, int]:
    """Least bytes of the operation's launches, by pass, counted on fake tensors."""
    sums = {}
    with fake_tensors():
        for name, closure in closures(make("cpu"), "triton").items():
            closure()  # tables are made at the first call
            with record_launches() as launches:
                closure()
            sums[name] = launches
    return {name: sum(traffic(own).minimum for own in launches) for name, launches in sums.items()}


def time_case(make: Callable[[str], Case], device: str, clock: Clock, copy_rate: float) -> list[dict[str, Any]]:
    """Rows of one operation, ``copy_rate`` in GB/s."""
    case, least = make(device), minimum_bytes(make)
    rows = []
    for contender in CONTENDERS:
        for name, closure in closures(case, contender).items():
            median, low, high = clock(closure)
            rate = least[name] / median / 1e6
            rows.append({
                "op": case.op, "shape": case.shape, "contender": contender, "pass": name, "ms": median, "ms_20": low,
                "ms_80": high, "bytes_minimum": least[name], "gb_s": rate, "of_copy": rate / copy_rate,
            })  # fmt: skip
    return rows


def timing_report(batch: int = 8, im_sizes: Sequence[int] = (256, 1024)) -> list[dict[str, Any]]:
    """Rows of all operations on the current GPU, in the dtype that the engine trains in there."""
    from triton.testing import do_bench

    def clock(closure: Callable[[], Any]) -> tuple[float, float, float]:
        return do_bench(closure, quantiles=[0.5, 0.2, 0.8])

    dtype = pick_dtype("auto", torch.device("cuda"))
    source = torch.empty(COPY_BYTES, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    copy_rate = 2 * COPY_BYTES / clock(lambda: target.copy_(source))[0] / 1e6
    return [
        {"im_size": im_size, **row, "copy_gb_s": copy_rate}
        for im_size in im_sizes
        for make in cases(im_size, batch, dtype)
        for row in time_case(make, "cuda", clock, copy_rate)
    ]


def timing_command(json_file: Path | None = None) -> None:
    """``bench kernels``: the report as a table, and as JSON."""
    from rich.console import Console
    from rich.table import Table

    rows = timing_report()
    table = Table("im_size", "op", "pass", "by", box=None, pad_edge=False)
    for heading in ("ms", "20 % .. 80 %", "GB/s", "of copy"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            str(row["im_size"]), row["op"], row["pass"], row["contender"], f"{row['ms']:.3f}",
            f"{row['ms_20']:.3f} .. {row['ms_80']:.3f}", f"{row['gb_s']:,.0f}", f"{row['of_copy']:.0%}",
        )  # fmt: skip
    console = Console()
    console.print(f"{torch.cuda.get_device_name()}: a copy moves {rows[0]['copy_gb_s']:,.0f} GB/s")
    console.print(table)
    if json_file is not None:
        json_file.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
        console.print(f"wrote {json_file}")
