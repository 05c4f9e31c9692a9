"""Metrics of several runs, each against its own training images or all against the same."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from fastgan_engine.api import load_run
from fastgan_engine.errors import UserError
from fastgan_engine.evaluation.defaults import COUNT, NAMES, SEED
from fastgan_engine.evaluation.evaluator import Evaluator, Progress, silent
from fastgan_engine.evaluation.metrics import FEATURES, check_samples
from fastgan_engine.run_folder import RunFolder
from fastgan_engine.run_images import prepare_for, training_source
from fastgan_engine.sampling import CHUNK


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What was found of one generator.

    Attributes:
        source: as it was given. weights: the file that was read. step: None where a released file does not tell.
        folder: of the run that it is of; None where it is of none.
        count, seed: which samples.
        data: the training images compared with; reals: how many; data_hash: of their pixels.
        values: by metric. real_diversity: LPIPS among the training images, where ``lpips`` was asked for.
    """

    source: Path
    weights: Path
    step: int | None
    count: int
    seed: int
    data: Path
    reals: int
    data_hash: str
    values: dict[str, float]
    real_diversity: float | None = None
    folder: RunFolder | None = None

    def record(self) -> dict[str, Any]:
        """Ready for JSON."""
        fields = {name: value for name, value in asdict(self).items() if name != "folder"}
        return {name: str(value) if isinstance(value, Path) else value for name, value in fields.items()}


def evaluate(
    sources: Sequence[Path | str],
    *,
    data: Path | None = None,
    metrics: Sequence[str] = NAMES,
    count: int = COUNT,
    seed: int = SEED,
    weights_dir: Path | None = None,
    device: torch.device | str = "cpu",
    chunk: int = CHUNK,
    warn: Callable[[str], None] = lambda text: None,
    progress: Progress = silent,
) -> list[Evaluation]:
    """Evaluates runs, snapshots or released checkpoints, one after another.

    Args:
        data: training images to compare all with; None: each with those of its run.
        metrics: names, see ``metrics.METRICS``.
        weights_dir: searched for the weights of InceptionV3 and LPIPS before the torch cache and a download; None:
            the run's.
        chunk: images at once.

    Raises:
        UserError: something is missing, damaged, or too few; see ``load_run`` and ``Evaluator``.
        DataError: the training images cannot be read.
    """
    paths = [Path(source) for source in sources]
    for path in paths:
        if not path.exists():  # before any work
            raise UserError(f"{path} does not exist; give the folder of a run, a snapshot or a released .pth")
    check_samples(metrics, count)
    evaluators: dict[str, Evaluator] = {}  # one for all that are compared with the same images
    found = []
    for path in paths:
        run = load_run(path)
        folder = data or training_source(run)
        images = prepare_for(run, folder, warn=warn)
        if images.hash not in evaluators:
            evaluators[images.hash] = Evaluator(
                images,
                metrics,
                torch.device(device),
                weights_dir=weights_dir or (run.config.loss.weights_dir if run.config else None),
                warn=warn,
                progress=progress,
            )
        evaluator = evaluators[images.hash]
        values = evaluator(
            run.generator,
            count=count,
            seed=seed,
            chunk=chunk,
            warn=warn,
            progress=lambda what, done, total, path=path: progress(f"{path}: {what}", done, total),  # type: ignore[misc]
        )
        assert values is not None  # nobody asks to stop
        found.append(
            Evaluation(
                source=path,
                weights=run.source,
                step=run.step,
                folder=run.folder,
                count=count,
                seed=seed,
                data=folder,
                reals=images.count,
                data_hash=images.hash,
                values=values,
                real_diversity=evaluator.real_diversity,
            )
        )
    return found


def remember(evaluations: Sequence[Evaluation]) -> None:
    """Appends what was found of runs to the ``evaluations.jsonl`` in their folders, for their reports.

    Raises:
        OSError: a folder cannot be written to.
    """
    for evaluation in evaluations:
        if evaluation.folder is not None:
            with evaluation.folder.evaluations.open("a", encoding="utf-8") as file:
                file.write(json.dumps(evaluation.record()) + "\n")


def notes(evaluations: Sequence[Evaluation]) -> list[str]:
    """What a reader of these values should know, a sentence each."""
    told = []
    if len({evaluation.data_hash for evaluation in evaluations}) > 1:
        told.append("the runs are compared with different training images: their values do not compare with each other")
    few = min(min(evaluation.reals, evaluation.count) for evaluation in evaluations)
    if "fid" in evaluations[0].values and few <= FEATURES:
        told.append(
            f"FID estimates covariances of {FEATURES:,} features, here from as few as {few:,} images: it comes out too "
            f"high, by an amount that depends on how many. Compare it only at the same --count and against the same "
            f"training images; KID has no such bias"
        )
    return told
