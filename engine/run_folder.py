"""What a run's folder holds, and how its files are named.

A file's name carries its step so that people and listings can order files; the step that counts is stored in the file.
"""

import re
from dataclasses import dataclass
from pathlib import Path

CONFIG = "config.toml"
CHECKPOINT_SUFFIX = ".pt"
SNAPSHOT_SUFFIX = ".safetensors"
PICTURE_SUFFIX = ".png"


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run. Creates nothing by itself."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / CONFIG

    @property
    def log(self) -> Path:
        """Statistics, one JSON object a line."""
        return self.path / "log.jsonl"

    @property
    def environment(self) -> Path:
        """Versions, device and data, one JSON object for each start of training."""
        return self.path / "environment.jsonl"

    @property
    def evaluations(self) -> Path:
        """What `evaluate` found of the run, one JSON object for each time."""
        return self.path / "evaluations.jsonl"

    @property
    def report(self) -> Path:
        """The run as a page: pictures, curves, settings."""
        return self.path / "report.html"

    @property
    def tensorboard(self) -> Path:
        """Folder of the TensorBoard event files."""
        return self.path / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints: everything that resuming needs."""
        return self.path / "checkpoints"

    @property
    def snapshots(self) -> Path:
        """Folder of the snapshots: the averaged generator alone."""
        return self.path / "snapshots"

    @property
    def best(self) -> Path:
        """The snapshot of the best evaluation."""
        return self.path / f"best{SNAPSHOT_SUFFIX}"

    @property
    def samples(self) -> Path:
        """Folder of the sample grids."""
        return self.path / "samples"

    @property
    def reconstructions(self) -> Path:
        """Folder of the decoders' grids."""
        return self.path / "reconstructions"

    @property
    def single_image(self) -> Path:
        """The training image of a run on one image, which no other run has."""
        return self.path / "image.png"

    def checkpoint(self, step: int) -> Path:
        return self.checkpoints / f"{_name(step)}{CHECKPOINT_SUFFIX}"

    def snapshot(self, step: int) -> Path:
        return self.snapshots / f"{_name(step)}{SNAPSHOT_SUFFIX}"

    def sample(self, step: int) -> Path:
        return self.samples / f"{_name(step)}{PICTURE_SUFFIX}"

    def reconstruction(self, step: int) -> Path:
        return self.reconstructions / f"{_name(step)}{PICTURE_SUFFIX}"

    def all_checkpoints(self) -> list[Path]:
        """Oldest step first."""
        return _by_step(self.checkpoints, CHECKPOINT_SUFFIX)

    def all_snapshots(self) -> list[Path]:
        """Oldest step first."""
        return _by_step(self.snapshots, SNAPSHOT_SUFFIX)

    def all_samples(self) -> list[Path]:
        """Oldest step first."""
        return _by_step(self.samples, PICTURE_SUFFIX)

    def all_reconstructions(self) -> list[Path]:
        """Oldest step first."""
        return _by_step(self.reconstructions, PICTURE_SUFFIX)

    def latest_checkpoint(self) -> Path | None:
        return next(reversed(self.all_checkpoints()), None)

    def latest_snapshot(self) -> Path | None:
        return next(reversed(self.all_snapshots()), None)


def run_of(snapshot: Path) -> RunFolder | None:
    """The run in whose folder a snapshot lies, named as training names it; None elsewhere."""
    file = snapshot.absolute()
    folders = map(RunFolder, list(file.parents)[:2])
    return next(
        (each for each in folders if each.config.is_file() and file in (each.best, *each.all_snapshots())), None
    )


def _name(step: int) -> str:
    return f"step-{step:07d}"


def _by_step(folder: Path, suffix: str) -> list[Path]:
    """Files called step-N in the order of N; others, such as temporary ones, are passed over."""
    found = {}
    for file in folder.glob(f"step-*{suffix}"):
        if match := re.fullmatch(r"step-(\d+)", file.stem):
            found[int(match[1]), file.name] = file
    return [found[key] for key in sorted(found)]
