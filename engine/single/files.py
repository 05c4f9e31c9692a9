"""What a run on one image leaves in its folder, and how it is opened again."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from fastgan_engine.atomic import atomic_write
from fastgan_engine.checkpoint import FORMAT, load_checkpoint, prune
from fastgan_engine.config import resolve_as
from fastgan_engine.config.single import Mode, SingleConfig
from fastgan_engine.errors import UserError
from fastgan_engine.run_folder import RunFolder
from fastgan_engine.single.applications import SingleModel
from fastgan_engine.single.pyramid import stage_sizes
from fastgan_engine.single.state import SingleState, build_state

KIND = "single"

# Which modes of training serve which use.
SERVES: dict[str, tuple[Mode, ...]] = {
    "generate": ("generate", "retarget"),
    "retarget": ("retarget", "generate"),
    "animate": ("animate",),
    "harmonize": ("harmonize",),
    "edit": ("edit",),
}


@dataclass(frozen=True)
class SingleRun:
    """An opened run: its model and, to go on training it, its whole state."""

    config: SingleConfig
    model: SingleModel
    state: SingleState


def save_single_checkpoint(folder: RunFolder, state: SingleState, *, keep: int, config: str, image_hash: str) -> Path:
    """Writes the checkpoint of ``state.step``, then removes all but the last ``keep``. Whole or absent."""
    path = folder.checkpoint(state.step)
    content = {"format": FORMAT, "kind": KIND, "config": config, "image_hash": image_hash, "state": state.state_dict()}
    with atomic_write(path) as temporary:
        torch.save(content, temporary)
    prune(folder.all_checkpoints(), path, keep)
    return path


def load_single_checkpoint(path: Path) -> dict[str, Any]:
    """The content that ``save_single_checkpoint`` wrote, on the CPU.

    Raises:
        UserError: the file is damaged or of another kind.
    """
    content = load_checkpoint(path)
    if content.get("kind") != KIND:
        raise UserError(f"{path} is not a checkpoint of `fastgan-engine single train`")
    return content


def load_single(path: Path, use: str, device: torch.device) -> SingleRun:
    """Opens a run's folder at its latest checkpoint, for one of ``SERVES``.

    Raises:
        UserError: no run there, not yet trained to its last stage, or trained for another use.
    """
    folder = RunFolder(path)
    checkpoint = folder.latest_checkpoint()
    if checkpoint is None or not folder.config.is_file() or not folder.single_image.is_file():
        raise UserError(
            f"{path} is no run on one image; train one with `fastgan-engine single train IMAGE --out {path}`"
        )
    content = load_single_checkpoint(checkpoint)
    config = resolve_as(SingleConfig, config_file=folder.config).config
    single = config.single
    if single.mode not in SERVES[use]:
        raise UserError(
            f"{path} was trained for {single.mode}, which does not serve {use}; "
            f"train a run with --mode {' or --mode '.join(SERVES[use])}"
        )
    state = build_state(single, device)
    state.load_state_dict(single, content["state"])
    if len(state.amplitudes) < single.stage_count:
        raise UserError(
            f"{path} has only reached stage {state.stage + 1} of {single.stage_count}; go on with "
            f"`fastgan-engine single train {single.image} --resume auto --out {path}`"
        )
    image = Image.open(folder.single_image).convert("RGB")
    sizes = stage_sizes((image.height, image.width), single)
    model = SingleModel(single, state.networks.generator, image, sizes, state.fixed, state.amplitudes)
    return SingleRun(config, model, state)
