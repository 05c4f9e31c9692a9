"""Opening what a run, a snapshot or a released checkpoint holds, for sampling."""

from dataclasses import dataclass
from pathlib import Path

import torch

from fastgan_engine.config import Config, resolve
from fastgan_engine.errors import UserError
from fastgan_engine.networks import Generator
from fastgan_engine.released import load_released
from fastgan_engine.run_folder import SNAPSHOT_SUFFIX, RunFolder, run_of
from fastgan_engine.snapshot import load_snapshot


@dataclass(frozen=True)
class Run:
    """An averaged generator in evaluation mode.

    Attributes:
        step: training step it is of; None where a released file does not tell.
        config: configuration of the run; None for a file that lies in none.
        source: the file that was read.
        folder: of the run; None for a file that lies in none.
    """

    generator: Generator
    step: int | None
    config: Config | None
    source: Path
    folder: RunFolder | None = None


def load_run(path: Path | str, device: torch.device | str = "cpu") -> Run:
    """Opens a run's folder (its latest snapshot), a snapshot, or a released checkpoint.

    A snapshot in a run's folder, such as ``RUN/best.safetensors``, is of that run, and has its configuration.
    A released checkpoint takes some seconds more: its batch-norm statistics have to be measured.

    Raises:
        UserError: nothing there, no snapshot yet, or a file of another kind.
    """
    path = Path(path)
    if path.is_dir():
        return _load_folder(RunFolder(path), device)
    if not path.exists():
        raise UserError(f"{path} does not exist; give the folder of a run, a snapshot or a released .pth")
    if path.suffix == SNAPSHOT_SUFFIX:
        return _load_snapshot(path, run_of(path), device)
    released = load_released(path, device)
    return Run(released.ema, released.step, None, path)


def _load_folder(folder: RunFolder, device: torch.device | str) -> Run:
    latest = folder.latest_snapshot()
    if latest is None and folder.single_image.is_file():
        raise UserError(
            f"{folder.path} is a run on one image, which has no latents; use it with `fastgan-engine single generate`, "
            f"retarget, animate, harmonize or edit"
        )
    if latest is None:
        raise UserError(
            f"{folder.path} holds no snapshot ({folder.snapshots.name}/step-N{SNAPSHOT_SUFFIX}); training writes one "
            f"with each checkpoint and when it ends or is interrupted"
        )
    return _load_snapshot(latest, folder, device)


def _load_snapshot(path: Path, folder: RunFolder | None, device: torch.device | str) -> Run:
    snapshot = load_snapshot(path, device)
    config = resolve(config_file=folder.config) if folder is not None and folder.config.exists() else None
    return Run(snapshot.generator, snapshot.step, config, path, folder)
