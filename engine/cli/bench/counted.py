"""``fastgan-engine bench cost|ablation|saved``: counted on fake tensors, without a GPU."""

from typing import TYPE_CHECKING, Annotated

import typer

from fastgan_engine.cli.bench.options import Batch, ImSize, JsonFile
from fastgan_engine.errors import UserError

if TYPE_CHECKING:
    from fastgan_engine.config import Config


def cost(
    im_size: ImSize = None,
    batch: Batch = None,
    dtype: Annotated[str | None, typer.Option(help="Of the engine: auto (bf16), fp32, bf16 or fp16.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Count operations, GFLOP and bytes of one iteration, reference and engine, and model each card's time for it.

    Counted on fake tensors: needs no GPU and no images. Takes a minute or two.
    """
    config = _counted_config(im_size, batch, dtype)
    from fastgan_engine.bench.cost_report import cost_command

    cost_command(config, json_file)


def ablation(
    im_size: ImSize = None,
    batch: Batch = None,
    dtype: Annotated[str | None, typer.Option(help="Of the engine: auto (bf16), fp32, bf16 or fp16.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Count what each opportunity that has a switch is worth: the engine's iteration with one off in turn."""
    config = _counted_config(im_size, batch, dtype)
    from fastgan_engine.bench.cost_report import ablation_command

    ablation_command(config, json_file)


def saved(im_size: ImSize = None, batch: Batch = None, json_file: JsonFile = None) -> None:
    """Count the memory that autograd keeps for backward, reference and engine at the same precision."""
    config = _counted_config(im_size, batch, None)
    from fastgan_engine.bench.saved_report import saved_command

    saved_command(config, json_file)


def _counted_config(im_size: int | None, batch: int | None, dtype: str | None) -> "Config":
    """The configuration to count; the engine's kernels are counted as Triton's, which must be there, compiled."""
    from fastgan_engine.config import resolve
    from fastgan_engine.kernels import launch

    if launch.triton is None or launch.INTERPRETED:
        raise UserError("counting kernels needs Triton, with TRITON_INTERPRET unset")
    return resolve(flags={"model.im_size": im_size, "train.batch": batch, "precision.dtype": dtype})
