"""What the kernels compile to, for cards that need not be here: registers, spills, shared memory, load width, bytes.

The launches of one training iteration are recorded on fake tensors (``fake_iteration``), every distinct specialisation
among them is compiled ahead of time for each architecture, and the machine code is asked for its resources. Bytes are
counted from the same launches (``kernels.traffic``).
"""

import json
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fastgan_engine.bench.fake_iteration import iteration_launches
from fastgan_engine.errors import UserError
from fastgan_engine.kernels import launch as launching
from fastgan_engine.kernels.launch import Launch
from fastgan_engine.kernels.traffic import StandIn, Traffic, traffic

if TYPE_CHECKING:
    from rich.table import Table

ARCHS = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_120")
IM_SIZES = (256, 1024)
BATCH = 8
WARP = 32
# Takes what is being done, and how many rows of how many (None: unknown yet) are done.
Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class Resources:
    """Of one compiled kernel: registers and spilled bytes a thread, shared bytes a program, bytes of a hot load."""

    registers: int
    spill_bytes: int
    shared_bytes: int
    load_bytes: int


def compile_report(
    archs: Sequence[str] = ARCHS,
    im_sizes: Sequence[int] = IM_SIZES,
    batch: int = BATCH,
    progress: Progress = lambda what, done, total: None,
) -> list[dict[str, Any]]:
    """One row for each kernel and architecture, in the dtype that the engine trains in there.

    Registers, spills and shared memory are the largest among the kernel's specialisations, ``load_bytes`` is that of
    the specialisation which moves the most; ``bytes_moved`` and ``bytes_minimum`` are sums over its launches in one
    iteration at each of ``im_sizes``. ``progress`` hears what is done next, and how many rows of how many are done.

    Raises:
        UserError: an unknown architecture, or no Triton, or Triton in interpreter mode.
    """
    if launching.triton is None or launching.INTERPRETED:
        raise UserError("compiling kernels needs Triton, with TRITON_INTERPRET unset")
    for arch in archs:
        if arch not in ARCHS:
            raise UserError(f"--arch: cannot compile for {arch!r}; known are {', '.join(ARCHS)}")
    recorded: dict[torch.dtype, dict[str, list[Launch]]] = {}
    for dtype in dict.fromkeys(map(training_dtype, archs)):
        progress(f"recording an iteration in {dtype}", 0, None)
        recorded[dtype] = by_kernel(
            launch for im_size in im_sizes for launch in iteration_launches(im_size, batch, dtype)
        )
    jobs = [(arch, launches) for arch in archs for launches in recorded[training_dtype(arch)].values()]
    moved: dict[Any, Traffic] = {}
    rows: list[dict[str, Any]] = []
    for arch, launches in jobs:
        progress(f"{launches[0].name} for {arch}", len(rows), len(jobs))
        rows.append(report_row(launches, arch, moved))
    return rows


def training_dtype(arch: str) -> torch.dtype:
    """bfloat16 from Ampere on, float16 on Turing."""
    return torch.float16 if arch == "sm_75" else torch.bfloat16


def by_kernel(launches: Iterable[Launch]) -> dict[str, list[Launch]]:
    """Launches by the name of their kernel, sorted."""
    kernels: dict[str, list[Launch]] = {}
    for launch in launches:
        kernels.setdefault(launch.name, []).append(launch)
    return dict(sorted(kernels.items()))


def report_row(launches: Sequence[Launch], arch: str, moved: dict[Any, Traffic]) -> dict[str, Any]:
    """The row of one kernel; ``moved`` remembers the bytes of launches that were counted before."""
    bytes_of = {id(launch): _traffic(launch, moved) for launch in launches}
    resources = compile_launches(sorted(launches, key=lambda launch: -bytes_of[id(launch)].moved), arch)
    return {
        "kernel": launches[0].name,
        "arch": arch,
        "dtype": str(training_dtype(arch)).removeprefix("torch."),
        "registers": max(r.registers for r in resources),
        "spill_bytes": max(r.spill_bytes for r in resources),
        "shared_bytes": max(r.shared_bytes for r in resources),
        "load_bytes": resources[0].load_bytes,
        "bytes_moved": sum(t.moved for t in bytes_of.values()),
        "bytes_minimum": sum(t.minimum for t in bytes_of.values()),
    }


def _traffic(launch: Launch, moved: dict[Any, Traffic]) -> Traffic:
    def shape(value: Any) -> Any:
        return (value.shape, value.element_size()) if isinstance(value, Tensor) else value

    key = (launch.name, launch.grid, tuple(map(shape, launch.args)), str(launch.meta))
    if key not in moved:
        moved[key] = traffic(launch)
    return moved[key]


def compile_launches(launches: Iterable[Launch], arch: str) -> list[Resources]:
    """Resources of the distinct specialisations among launches, in the order in which they first occur."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, make_backend

    target = GPUTarget("cuda", int(arch.removeprefix("sm_")), WARP)
    backend = make_backend(target)
    sources: dict[tuple[str, str], tuple[Any, dict[str, Any]]] = {}
    for launch in launches:
        source, options = _source(launch, backend, ASTSource)
        sources.setdefault((source.hash(), str(options)), (source, options))

    def compile_one(job: tuple[Any, dict[str, Any]]) -> Resources:
        compiled = triton.compile(job[0], target=target, options=job[1])
        registers, spilled = _usage(compiled.asm["cubin"])
        return Resources(registers, spilled, compiled.metadata.shared, load_width(compiled.asm["ptx"]))

    with ThreadPoolExecutor() as pool:
        return list(pool.map(compile_one, sources.values()))


def _source(launch: Launch, backend: Any, ast_source: Any) -> tuple[Any, dict[str, Any]]:
    """What Triton would compile for this launch, and with which options, as its own launcher works it out."""
    from triton.runtime.jit import create_function_from_signature

    kernel, meta = launch.kernel, dict(launch.meta)
    arguments = [StandIn(arg) if isinstance(arg, Tensor) else arg for arg in launch.args]
    bind = create_function_from_signature(kernel.signature, kernel.params, backend)
    bound, specialisation, options = bind(*arguments, **meta)
    packed, signature, constants, attributes = kernel._pack_args(backend, meta, bound, specialisation, options)
    return ast_source(kernel, signature, constants, attributes), packed.__dict__


def _usage(cubin: bytes) -> tuple[int, int]:
    """Registers, and bytes of local memory (spills), of the kernel in a cubin."""
    from triton import knobs

    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [knobs.nvidia.cuobjdump.path, "-res-usage", file.name]
        usage = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", usage)
    assert found, f"cuobjdump -res-usage said {usage!r}"
    registers, stack, local = map(int, found.groups())
    return registers, stack + local


_LOAD = re.compile(r"ld\.global(?:\.[a-zA-Z_0-9:]+?)*?(?:\.v(\d))?\.[a-z](\d+)\b")
_LABEL = re.compile(r"^(\$\w+):")
_BRANCH = re.compile(r"\bbra(?:\.uni)?\s+(\$\w+);")


def load_width(ptx: str) -> int:
    """Bytes of the loads from global memory by which most bytes arrive; of those in loops, where there are any."""
    lines = [line.strip() for line in ptx.splitlines()]
    labels = {found.group(1): index for index, line in enumerate(lines) if (found := _LABEL.match(line))}
    in_loop: set[int] = set()
    for index, line in enumerate(lines):
        if (found := _BRANCH.search(line)) and (start := labels.get(found.group(1), index)) < index:
            in_loop.update(range(start, index))
    loads = [(index, _width(found)) for index, line in enumerate(lines) if (found := _LOAD.search(line))]
    hot = [width for index, width in loads if index in in_loop] or [width for _, width in loads]
    return max(set(hot), key=lambda width: width * hot.count(width), default=0)


def _width(load: re.Match[str]) -> int:
    return int(load.group(1) or 1) * int(load.group(2)) // 8


def kernels_command(archs: Sequence[str], json_file: Path | None = None) -> None:
    """``bench kernels --compile-only``: the report as a table, and as JSON."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    aside = Console(stderr=True)
    columns = BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}")
    with Progress(*columns, console=aside, disable=not aside.is_terminal, transient=True) as bar:
        task = bar.add_task("")
        rows = compile_report(
            archs,
            progress=lambda what, done, total: bar.update(task, description=what, completed=done, total=total),
        )
    console = Console()
    console.print(f"launches of one iteration at {' and '.join(map(str, IM_SIZES))}, batch {BATCH}")
    for arch, own in groupby(rows, key=lambda row: row["arch"]):
        console.print(_as_table(f"{arch}, {training_dtype(arch)}".replace("torch.", ""), own))
    if json_file is not None:
        json_file.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
        console.print(f"wrote {json_file}")


def _as_table(title: str, rows: Iterable[dict[str, Any]]) -> "Table":
    from rich.table import Table

    table = Table(title, box=None, pad_edge=False)
    for heading in ("registers", "spilled B", "shared B", "load B", "moved MB", "/ minimum"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row["kernel"].removesuffix("_kernel"),
            *(str(row[name]) for name in ("registers", "spill_bytes", "shared_bytes", "load_bytes")),
            f"{row['bytes_moved'] / 1e6:,.1f}", f"{row['bytes_moved'] / row['bytes_minimum']:.3f}",
        )  # fmt: skip
    return table
