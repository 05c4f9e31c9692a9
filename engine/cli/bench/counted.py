"""``fastgan-engine bench cost|ablation|saved``: counted on fake tensors, without a GPU."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from fastgan_engine.cli.bench.options import Batch, Device, ImSize, JsonFile, Settings, write_json
from fastgan_engine.errors import UserError

if TYPE_CHECKING:
    from fastgan_engine.config import Config

CountedDtype = Annotated[str | None, typer.Option("--dtype", help="Of the engine: auto (bf16), fp32, bf16 or fp16.")]


def cost(
    im_size: ImSize = None,
    batch: Batch = None,
    dtype: CountedDtype = None,
    settings: Settings = None,
    json_file: JsonFile = None,
) -> None:
    """Count operations, GFLOP and bytes of one iteration, reference and engine, and model each card's time for it.

    Counted on fake tensors: needs no GPU and no images. Takes a minute or two. A card's time is of the engine as the
    card's profile runs it.
    """
    config = _counted_config(im_size, batch, dtype, settings)
    from fastgan_engine.bench.cost_report import cost_command

    cost_command(config, json_file)


def ablation(
    im_size: ImSize = None,
    batch: Batch = None,
    dtype: CountedDtype = None,
    device: Device = None,
    settings: Settings = None,
    counted: Annotated[bool, typer.Option("--count/--no-count", help="Count it; a few minutes.")] = True,
    timed: Annotated[
        bool | None, typer.Option("--time/--no-time", help="Also time it; by default where there is a GPU.")
    ] = None,
    iterations: Annotated[int, typer.Option(min=1, help="Timed iterations without each.")] = 20,
    json_file: JsonFile = None,
) -> None:
    """What each opportunity is worth: the engine's iteration with one off in turn, counted, and timed on a GPU."""
    config = _counted_config(im_size, batch, dtype, settings, device)
    from fastgan_engine.bench.ablation_report import ablation_command
    from fastgan_engine.hardware import pick_device

    if timed is None:
        timed = pick_device(config.engine.device).type == "cuda"
    if not (counted or timed):
        raise UserError("--no-count without --time leaves nothing to do")
    values = ablation_command(config, count=counted, iterations=iterations if timed else 0)
    if json_file is not None:
        write_json(json_file, values)


def saved(im_size: ImSize = None, batch: Batch = None, settings: Settings = None, json_file: JsonFile = None) -> None:
    """Count the memory that autograd keeps for backward, reference and engine at the same precision."""
    config = _counted_config(im_size, batch, None, settings)
    from fastgan_engine.bench.saved_report import saved_command

    saved_command(config, json_file)


def _counted_config(
    im_size: int | None,
    batch: int | None,
    dtype: str | None,
    settings: Sequence[str] | None,
    device: str | None = None,
) -> "Config":
    """The configuration to count; the engine's kernels are counted as Triton's, which must be there, compiled."""
    from fastgan_engine.config import resolve
    from fastgan_engine.kernels import launch

    if launch.triton is None or launch.INTERPRETED:
        raise UserError("counting kernels needs Triton, with TRITON_INTERPRET unset")
    flags = {"model.im_size": im_size, "train.batch": batch, "precision.dtype": dtype, "engine.device": device}
    return resolve(flags=flags, sets=list(settings or []))
