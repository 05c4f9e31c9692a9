"""A run's folder from a released checkpoint: sampled, exported and trained further like any other run."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fastgan_engine.atomic import atomic_write
from fastgan_engine.build import build_state
from fastgan_engine.checkpoint import NO_IMAGES, save_checkpoint
from fastgan_engine.config import Config, resolve
from fastgan_engine.released import Released
from fastgan_engine.run_folder import RunFolder
from fastgan_engine.snapshot import save_snapshot
from fastgan_engine.state import TrainingState


@dataclass(frozen=True)
class Imported:
    """What was written. checkpoint: None where the file cannot be trained further (no discriminator or optimizer)."""

    snapshot: Path
    checkpoint: Path | None


def import_released(released: Released, folder: RunFolder, step: int) -> Imported:
    """Writes configuration, snapshot of the averaged generator and, if the file has all of it, a checkpoint.

    Raises:
        UserError: the networks are of a size that a configuration cannot have.
    """
    config = config_of(released)
    folder.path.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder.config) as temporary:
        temporary.write_text(config.to_toml(), encoding="utf-8")
    if released.discriminator is None or released.opt_g is None or released.opt_d is None:
        save_snapshot(folder.snapshot(step), released.ema, step=step)
        return Imported(folder.snapshot(step), None)
    state = _training_state(config, released, step)
    checkpoint = save_checkpoint(folder, state, keep=config.log.keep, config=config.to_toml(), data_hash=NO_IMAGES)
    return Imported(folder.snapshot(step), checkpoint)


def config_of(released: Released) -> Config:
    """The defaults, with the networks and Adam's settings of the file."""
    generator, discriminator = released.generator, released.discriminator
    flags: dict[str, Any] = {
        "model.im_size": generator.im_size,
        "model.nz": generator.nz,
        "model.ngf": generator.ngf,
        "model.nc": generator.nc,
        "model.skip": generator.skip,
    }
    if discriminator is not None:
        flags |= {"model.ndf": discriminator.ndf, "model.decode": discriminator.decode}
    if released.opt_g is not None:
        group = released.opt_g["param_groups"][0]
        beta1, beta2 = group["betas"]
        flags |= {"train.lr": group["lr"], "train.beta1": beta1, "train.beta2": beta2}
    return resolve(flags=flags)


def _training_state(config: Config, released: Released, step: int) -> TrainingState:
    assert released.discriminator is not None
    state = build_state(config, torch.device("cpu"), torch.float32)
    state.networks.generator.load_state_dict(released.generator.state_dict())
    state.networks.discriminator.load_state_dict(released.discriminator.state_dict())
    state.networks.ema.load_state_dict(released.ema.state_dict())
    _load_moments(state.opt_g, released.opt_g)
    _load_moments(state.opt_d, released.opt_d)
    state.step = step
    return state


def _load_moments(optimizer: torch.optim.Optimizer, saved: dict[str, Any] | None) -> None:
    """Adam's moments and counts; its settings stay those of the configuration, which were taken from the file."""
    assert saved is not None
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": copy.deepcopy(saved["state"]), "param_groups": groups})
