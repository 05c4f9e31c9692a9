"""``fastgan-engine bench kernels``."""

from typing import Annotated

import typer

from fastgan_engine.cli.bench.options import JsonFile
from fastgan_engine.errors import UserError

NO_GPU = (
    "bench kernels times the kernels on an NVIDIA GPU, and none is visible here; "
    "with --compile-only it compiles them for cards that are not here, and reports"
)


def kernels(
    compile_only: Annotated[
        bool, typer.Option("--compile-only", help="Compile for cards that need not be here, and report; takes minutes.")
    ] = False,
    arch: Annotated[
        str | None, typer.Option(help="With --compile-only: comma list of architectures, such as sm_75,sm_86; all.")
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Time the fused kernels on the GPU, or compile them ahead of time without one.

    Compiled are the kernels that training at 256 and 1024 launches. Reported: registers, spills, shared memory, bytes
    of a load, and bytes moved by one iteration against the least it could move.
    """
    from fastgan_engine.bench import compile_report

    if compile_only:
        named = None if arch is None else [name.strip() for name in arch.split(",") if name.strip()]
        compile_report.kernels_command(named or compile_report.ARCHS, json_file)
        return
    if arch is not None:
        raise UserError("--arch goes with --compile-only; timing is done on the GPU that is here")
    import torch

    if not torch.cuda.is_available():
        raise UserError(NO_GPU)
    from fastgan_engine.bench.kernel_timing import timing_command

    timing_command(json_file)
