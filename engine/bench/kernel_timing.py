"""``bench kernels`` on a GPU: each fused operation against plain PyTorch and against torch.compile of it.

Not yet run on a GPU. Each operation is timed on the largest map that an iteration at each size gives it, found among
the recorded launches; what runs over tables (spectral, adam_ema) or takes no time (hinge, batch) is not. Bytes are the
least that the operation's own launches could move (``kernels.traffic``); with cuBLAS or cuDNN inside (sle, up_conv) the
time is of all, the bytes of the kernels around.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from fastgan_engine.bench.fake_iteration import iteration_launches
from fastgan_engine.hardware import pick_dtype
from fastgan_engine.kernels.diffaug import diffaug, draw_diffaug
from fastgan_engine.kernels.launch import Launch, record_launches
from fastgan_engine.kernels.lpips_distance import lpips_distance
from fastgan_engine.kernels.norm_glu import norm_glu
from fastgan_engine.kernels.norm_lrelu import norm_lrelu
from fastgan_engine.kernels.sle import sle
from fastgan_engine.kernels.traffic import traffic
from fastgan_engine.kernels.up_conv import up_conv

CONTENDERS = ("triton", "eager", "compile")
PASSES = ("forward", "backward", "both")
COPY_BYTES = 1 << 28
# Time in ms of a function: median, 20th and 80th percentile.
Clock = Callable[[Callable[[], Any]], tuple[float, float, float]]


@dataclass(frozen=True)
class Case:
    """An operation that takes ``impl``, its tensors, those that want gradients, and what makes it plain PyTorch."""

    op: str
    function: Callable[..., Tensor]
    tensors: dict[str, Tensor]
    leaves: tuple[str, ...]
    plain: dict[str, Any] = field(default_factory=lambda: {"impl": "reference"})

    @property
    def shape(self) -> str:
        return " x ".join(map(str, next(iter(self.tensors.values())).shape))


def _like(tensor: Tensor, device: str) -> Tensor:
    x = torch.randn(tensor.shape, device=device).to(tensor.dtype)
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def _norm(op: str, function: Callable[..., Tensor], optional: Sequence[str], launch: Launch, device: str) -> Case:
    found = launch.tensors
    x = _like(found["x_ptr"], device)
    channels = x.shape[1]
    tensors = {"x": x, "weight": torch.ones(channels, device=device), "bias": torch.zeros(channels, device=device)}
    tensors |= {
        "running_mean": torch.zeros(channels, device=device),
        "running_var": torch.ones(channels, device=device),
    }
    tensors |= {name: _like(found[f"{name}_ptr"], device) for name in optional if f"{name}_ptr" in found}
    leaves = tuple(name for name in ("x", "weight", "bias", "noise_weight", "gate", "residual") if name in tensors)
    groups = found["mean_ptr"].numel() // channels
    return Case(op, partial(function, groups=groups), tensors, leaves)


def _sle(launch: Launch, device: str) -> Case:
    high = _like(launch.tensors["high_ptr"], device)
    batch, channels = high.shape[:2]
    low = _like(high.new_empty(batch, channels // 2, high.shape[2] * 8, high.shape[3] * 8), device)
    w4 = _like(high.new_empty(channels, channels // 2, 4, 4), device)
    w1 = _like(high.new_empty(channels, channels, 1, 1), device)
    return Case("sle", sle, {"low": low, "w4": w4, "w1": w1, "high": high}, ("low", "w4", "w1", "high"))


def _diffaug(launch: Launch, device: str) -> Case:
    x = _like(launch.tensors["x_ptr"], device)
    params = draw_diffaug(x.shape[0], x.shape[2], x.shape[3], "color,translation", device=device)
    return Case("diffaug", partial(diffaug, params=params), {"x": x}, ("x",))


def _lpips(launch: Launch, device: str) -> Case:
    a, b = (_like(launch.tensors[name], device) for name in ("a_ptr", "b_ptr"))
    weight = torch.rand(a.shape[1], device=device)
    return Case("lpips_distance", lpips_distance, {"a": a, "b": b, "weight": weight}, ("a",))


def _up_conv(launch: Launch, device: str) -> Case:
    weight = _like(launch.tensors["weight_ptr"], device)
    x = _like(weight.new_empty(8, weight.shape[1], 8, 8), device)  # the widest layer that takes this form
    return Case(
        "up_conv", up_conv, {"x": x, "weight": weight}, ("x", "weight"), {"impl": "reference", "method": "direct"}
    )


# The kernel whose largest launch gives an operation its shapes, and what makes a case of it.
BUILDERS: dict[str, Callable[[Launch, str], Case]] = {
    "norm_glu_apply_kernel": partial(_norm, "norm_glu", norm_glu, ("noise", "noise_weight", "gate")),
    "norm_lrelu_apply_kernel": partial(_norm, "norm_lrelu", norm_lrelu, ("residual",)),
    "gate_kernel": _sle,
    "diffaug_apply_kernel": _diffaug,
    "lpips_distance_fwd_kernel": _lpips,
    "up_conv_assemble_kernel": _up_conv,
}


def largest_launches(im_size: int, batch: int, dtype: torch.dtype) -> list[Launch]:
    """Of each kernel that gives shapes, the launch on the largest tensors in one iteration."""
    largest: dict[str, tuple[int, Launch]] = {}
    for launch in iteration_launches(im_size, batch, dtype):
        size = sum(tensor.numel() for tensor in launch.tensors.values())
        if launch.name in BUILDERS and size > largest.get(launch.name, (0, launch))[0]:
            largest[launch.name] = size, launch
    return [launch for _, launch in largest.values()]


def closures(case: Case, contender: str) -> dict[str, Callable[[], Any]]:
    """What is timed, by pass."""
    function = partial(case.function, **({"impl": "triton"} if contender == "triton" else case.plain))
    run = torch.compile(function, dynamic=False) if contender == "compile" else function
    tensors = {name: t.detach().requires_grad_(name in case.leaves) for name, t in case.tensors.items()}
    leaves = [tensors[name] for name in case.leaves]
    y = run(**tensors)
    grad = torch.ones_like(y)
    return {
        "forward": lambda: run(**tensors),
        "backward": lambda: torch.autograd.grad(y, leaves, grad, retain_graph=True),
        "both": lambda: torch.autograd.grad(run(**tensors), leaves, grad),
    }


def minimum_bytes(launch: Launch) -> dict[str, int]:
    """Least bytes of the operation's launches, by pass, counted on fake tensors."""
    sums = {}
    with FakeTensorMode(allow_non_fake_inputs=True):
        for name, closure in closures(BUILDERS[launch.name](launch, "cpu"), "triton").items():
            with record_launches() as launches:
                closure()
            sums[name] = launches
    return {name: sum(traffic(own).minimum for own in launches) for name, launches in sums.items()}


def time_launch(launch: Launch, device: str, clock: Clock, copy_rate: float) -> list[dict[str, Any]]:
    """Rows of one operation, ``copy_rate`` in GB/s."""
    case, least = BUILDERS[launch.name](launch, device), minimum_bytes(launch)
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
        for launch in largest_launches(im_size, batch, dtype)
        for row in time_launch(launch, "cuda", clock, copy_rate)
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
