"""One file with everything a run needs to go on as if it had never stopped."""

from pathlib import Path
from typing import Any

import torch

from fastgan_engine.atomic import atomic_write
from fastgan_engine.errors import UserError
from fastgan_engine.run_folder import RunFolder
from fastgan_engine.safe_load import safe_load
from fastgan_engine.snapshot import save_snapshot
from fastgan_engine.state import TrainingState

FORMAT = 1
NO_IMAGES = ""  # in place of the hash of the training images, where it is not known what they were


def save_checkpoint(folder: RunFolder, state: TrainingState, *, keep: int, config: str, data_hash: str) -> Path:
    """Writes checkpoint and EMA snapshot of ``state.step``, then removes all but the last ``keep`` of each.

    Files of later steps, left where a run was resumed from an earlier checkpoint, are no longer of this run's history:
    they go too, so that the latest checkpoint always is the last one written.

    config: the resolved configuration as TOML. data_hash: hash of the prepared images, to notice when they change.
    Each file is whole or absent: written aside, synced, renamed.
    """
    path, snapshot = folder.checkpoint(state.step), folder.snapshot(state.step)
    content = {"format": FORMAT, "config": config, "data_hash": data_hash, "state": state.state_dict()}
    with atomic_write(path) as temporary:
        torch.save(content, temporary)
    save_snapshot(snapshot, state.networks.ema, step=state.step)
    prune(folder.all_checkpoints(), path, keep)
    prune(folder.all_snapshots(), snapshot, keep)
    return path


def prune(files: list[Path], newest: Path, keep: int) -> None:
    """Removes all of ``files``, ordered by step, but the last ``keep`` up to ``newest``."""
    end = files.index(newest) + 1
    for file in (*files[: max(end - keep, 0)], *files[end:]):
        file.unlink(missing_ok=True)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The content that ``save_checkpoint`` wrote, on the CPU.

    Raises:
        UserError: the file is damaged or of another kind.
    """
    try:
        content = safe_load(path)
    except (OSError, ValueError) as error:
        raise UserError(
            f"checkpoint {path} cannot be read ({error}); resume from an older one with --resume FILE"
        ) from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(
            f"{path} is not a training checkpoint of format {FORMAT}; "
            f"a released .pth is brought in with `fastgan-engine import`"
        )
    return content
