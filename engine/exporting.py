"""A run, or any file with a generator, in the formats that others read."""

from pathlib import Path
from typing import Any

import torch

from fastgan_engine.api import load_run
from fastgan_engine.build import build_networks
from fastgan_engine.checkpoint import load_checkpoint
from fastgan_engine.config import resolve
from fastgan_engine.errors import UserError
from fastgan_engine.model_card import model_card
from fastgan_engine.released import load_released, save_released
from fastgan_engine.run_folder import SNAPSHOT_SUFFIX, RunFolder
from fastgan_engine.snapshot import save_snapshot


def export_snapshot(source: Path, out: Path) -> None:
    """The averaged generator as safetensors, which this engine reads, with its model card in the metadata."""
    run = load_run(source)
    card = model_card(run, load="fastgan_engine.load_run(FILE).generator(z)")
    save_snapshot(out, run.generator, step=run.step or 0, card=card)


def export_released(source: Path, out: Path, *, everything: bool = False) -> None:
    """A file for the released code.

    {g, d} with the averaged weights as g (d where the source has it); with ``everything`` {g, d, g_ema, opt_g, opt_d},
    from which the released code trains further.

    Raises:
        UserError: ``everything``, and the source holds only a generator; or a checkpoint and the configuration of
            its run do not fit.
    """
    if source.is_dir() and (checkpoint := RunFolder(source).latest_checkpoint()) is not None:
        _export_checkpoint(RunFolder(source), checkpoint, out, everything)
    elif source.is_file() and source.suffix != SNAPSHOT_SUFFIX:
        _export_file(source, out, everything)
    elif everything:
        raise UserError(f"{source} holds only a generator; without a checkpoint, leave out --everything")
    else:
        save_released(out, load_run(source).generator)


def _export_checkpoint(folder: RunFolder, checkpoint: Path, out: Path, everything: bool) -> None:
    state: dict[str, Any] = load_checkpoint(checkpoint)["state"]
    networks = build_networks(resolve(config_file=folder.config), torch.device("cpu"))
    try:
        networks.generator.load_state_dict(state["generator"])
        networks.discriminator.load_state_dict(state["discriminator"])
        networks.ema.load_state_dict(state["ema"])
    except RuntimeError:
        raise UserError(
            f"{checkpoint} holds other networks than {folder.config} describes; export one of the run's snapshots"
        ) from None
    if everything:
        save_released(
            out,
            networks.generator,
            networks.discriminator,
            ema=networks.ema,
            opt_g=state["opt_g"],
            opt_d=state["opt_d"],
        )
    else:
        save_released(out, networks.ema, networks.discriminator)


def _export_file(source: Path, out: Path, everything: bool) -> None:
    released = load_released(source)
    if not everything:
        save_released(out, released.ema, released.discriminator)
    elif released.averaged is None:
        raise UserError(f"{source} holds no optimizers and no live weights; leave out --everything")
    else:
        save_released(
            out,
            released.generator,
            released.discriminator,
            ema=released.ema,
            opt_g=released.opt_g,
            opt_d=released.opt_d,
        )
