"""A plan as tables and as JSON."""

from typing import Any

from rich.console import Console
from rich.table import Table

from fastgan_engine.memory.plan import CONTEXT, CUBLAS_WORKSPACE, CUDNN_WORKSPACE, GIB, Plan
from fastgan_engine.memory.tracker import Storage

MIB = 2**20
NOT_MEASURED = (
    "a model, not yet run on a GPU: the tensors are those of the engine's own iteration, rehearsed without values; "
    f"what PyTorch reserves for them is its allocator's arithmetic; assumed are {CONTEXT // MIB} MiB of context, "
    f"{CUBLAS_WORKSPACE / MIB:.1f} MiB of workspace for cuBLAS and {CUDNN_WORKSPACE // MIB} for cuDNN"
)


def as_json(plan: Plan) -> dict[str, Any]:
    """GiB by phase and category, which add up to ``peak_gib``; the largest tensors at the peak, bytes."""
    return {
        "peak_gib": plan.peak / GIB,
        "reserved_gib": plan.reserved / GIB,
        "phases": {
            name: {"live_gib": peak.live / GIB, "reserved_gib": peak.reserved / GIB}
            for name, peak in plan.phases().items()
        },
        "categories": {name: size / GIB for name, size in plan.categories().items()},
        "largest": [
            {
                "bytes": storage.bytes,
                "shape": list(storage.shape),
                "dtype": _dtype(storage),
                "name": described(storage),
                "phase": storage.phase,
                "category": storage.category,
            }
            for storage in plan.largest()
        ],
        "model": NOT_MEASURED,
    }


def print_plan(console: Console, plan: Plan) -> None:
    """Phases, categories and the largest tensors."""
    phases = _table("phase", "live, MiB", "reserved, MiB")
    for name, peak in plan.phases().items():
        phases.add_row(name, _mib(peak.live), _mib(peak.reserved + plan.workspace))
    console.print(phases)
    at = plan.moments[plan.peak_index].phase
    categories = _table("at the peak", "MiB")
    for name, size in plan.categories().items():
        categories.add_row(name, _mib(size))
    categories.add_row("[bold]in all[/]", f"[bold]{_mib(plan.peak)}[/]")
    console.print(f"\nmost is needed in: {at}")
    console.print(categories)
    largest = _table("largest tensors then", "MiB")
    for column in ("shape", "of", "made in"):
        largest.add_column(column)
    for storage in plan.largest():
        shape = " x ".join(map(str, storage.shape))
        largest.add_row(
            described(storage), _mib(storage.bytes), f"{shape} {_dtype(storage)}", storage.category, storage.phase
        )
    console.print()
    console.print(largest)
    console.print(f"\n[bold]peak {plan.peak / GIB:.2f} GiB[/], of which PyTorch reserves {plan.reserved / GIB:.2f} GiB")
    console.print(f"({NOT_MEASURED})", style="dim", highlight=False)


def described(storage: Storage) -> str:
    """An owned tensor's name, or the operation that made it."""
    return storage.name or f"output of {storage.made_by}"


def _dtype(storage: Storage) -> str:
    return str(storage.dtype).removeprefix("torch.")


def _mib(size: int) -> str:
    return f"{size / MIB:,.0f}"


def _table(first: str, *columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(first)
    for column in columns:
        table.add_column(column, justify="right")
    return table
