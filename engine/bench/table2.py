"""The paper's ablation (table 2) on other images: each variant trained as long as the others, and evaluated.

A run lies in ``OUT/SET/VARIANT`` like any other; one that has its steps is not trained again, one that was interrupted
goes on.
"""

import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastgan_engine.bench.paper import VARIANTS
from fastgan_engine.config import Config, resolve
from fastgan_engine.errors import UserError
from fastgan_engine.evaluation.defaults import AUTO, parse_metrics
from fastgan_engine.evaluation.evaluator import Evaluator
from fastgan_engine.evaluation.metrics import check_samples
from fastgan_engine.evaluation.runs import Evaluation, evaluate
from fastgan_engine.evaluation.weights import INCEPTION, can_measure_fid
from fastgan_engine.hardware import pick_device
from fastgan_engine.memory.guard import check_fits
from fastgan_engine.pipelines import PreparedSet, prepare
from fastgan_engine.run_folder import RunFolder
from fastgan_engine.screen import Screen
from fastgan_engine.trainer import Trainer

# What may differ between a run and the same run when it goes on: how it is executed and shown.
FREE = {"engine", "log", "eval", "data", "train.steps", "loss.weights_dir"}

Say = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """A variant on one set."""

    data: str
    variant: str
    evaluation: Evaluation


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to compare, and by which samples.

    configure: from a folder of images and a variant to the configuration of its run.
    screen_of: shows a run, of its title.
    """

    sets: dict[str, Path]
    variants: Sequence[str]
    configure: Callable[[Path, str], Config]
    out: Path
    metrics: Sequence[str]
    count: int
    screen_of: Callable[[str], Screen]
    say: Say


def sets_by_name(folders: Sequence[Path]) -> dict[str, Path]:
    """Folders and zip files by what their runs are called.

    Raises:
        UserError: one is missing, or two are called the same.
    """
    found: dict[str, Path] = {}
    for folder in folders:
        if not folder.exists():
            raise UserError(f"--data: {folder} does not exist; give a folder or a .zip of images")
        name = folder.resolve().stem if folder.is_file() else folder.resolve().name
        if name in found:
            raise UserError(f"--data: {found[name]} and {folder} are both called {name}; rename one of them")
        found[name] = folder
    return found


def check_variants(names: Sequence[str]) -> list[str]:
    """In the order of the table.

    Raises:
        UserError: none, or an unknown one.
    """
    for name in names:
        if name not in VARIANTS:
            raise UserError(f"--variants: got {name!r}, expected a comma list of {', '.join(VARIANTS)}")
    if not names:
        raise UserError(f"--variants: none is named; expected a comma list of {', '.join(VARIANTS)}")
    return [name for name in VARIANTS if name in names]


def choose_metrics(text: str, count: int, weights_dir: Path | None, say: Say) -> tuple[str, ...]:
    """The named ones; "auto" is FID and KID where their weights are there, else SWD.

    Raises:
        UserError: an unknown one, or too few samples for it.
    """
    try:
        metrics = parse_metrics(text) if text != AUTO else ()
    except ValueError as error:
        raise UserError(f"--metrics: {error}") from None
    if text == AUTO:
        metrics = ("fid", "kid") if can_measure_fid(weights_dir) else ("swd",)
        if metrics == ("swd",):
            say(
                f"note: the variants are compared by swd: for fid, torch-fidelity and the file {INCEPTION.file} must "
                f"be there (--metrics fid,kid downloads it)"
            )
    check_samples(metrics, count)
    return metrics


def run(plan: Plan) -> Iterator[Row]:
    """Trains what is not trained yet and yields each row as it is found; ends early where it is interrupted.

    Raises:
        UserError: a folder holds a run with other settings; weights are missing; memory does not suffice.
        DataError: the images cannot be read.
    """
    for name, source in plan.sets.items():
        configs = {variant: plan.configure(source, variant) for variant in plan.variants}
        folders = {variant: plan.out / name / variant for variant in plan.variants}
        for variant, config in configs.items():  # before the first of them trains for hours
            check_same_run(RunFolder(folders[variant]), config)
        images = _prepare(source, configs[plan.variants[0]], plan.say)
        _check_metrics(plan, images, configs[plan.variants[0]])
        for variant, config in configs.items():
            if not _train(config, images, folders[variant], plan):
                return
            yield Row(name, variant, _evaluate(plan, config, folders[variant]))


def check_same_run(folder: RunFolder, config: Config) -> None:
    """Raises UserError where a folder holds a run that ``config`` cannot go on with."""
    latest = folder.latest_checkpoint()
    if latest is None or not folder.config.is_file():
        return
    saved, wanted = resolve(config_file=folder.config).values(), config.values()
    for key, value in wanted.items():
        if saved[key] != value and FREE.isdisjoint((key, key.partition(".")[0])):
            raise UserError(
                f"{folder.path} holds a run with {key} = {saved[key]}, this one has {value}; choose another --out"
            )
    if latest.name > folder.checkpoint(config.train.steps).name:
        raise UserError(
            f"{folder.path} is already past {config.train.steps:,} steps ({latest.name}); raise --steps, or choose "
            f"another --out"
        )


def _prepare(source: Path, config: Config, say: Say) -> PreparedSet:
    data, model = config.data, config.model
    return prepare(
        source, data.cache_dir, im_size=model.im_size, channels=model.nc, fit=data.fit, background=data.background,
        encoding=data.encoding, strict=data.strict, warn=say,
    )  # fmt: skip


def _check_metrics(plan: Plan, images: PreparedSet, config: Config) -> None:
    """Raises UserError where weights are missing, or images too few; keeps what is seen of the images."""
    device, weights_dir = pick_device(config.engine.device), config.loss.weights_dir
    Evaluator(
        images, plan.metrics, device, weights_dir=weights_dir, cache_dir=config.data.cache_dir, warn=plan.say
    )  # fmt: skip


def _train(config: Config, images: PreparedSet, path: Path, plan: Plan) -> bool:
    """Trains a run to its end, from its last checkpoint where there is one; False where it was interrupted."""
    folder = RunFolder(path)
    latest = folder.latest_checkpoint()
    if latest == folder.checkpoint(config.train.steps):
        plan.say(f"{path}: already trained")
        return True
    check_fits(config, images.count)
    screen = plan.screen_of(str(path))
    trainer = Trainer(config, images, path, screen=screen)
    if latest is not None:
        trainer.resume(latest)
    plan.say(f"{path}: training, from step {trainer.state.step:,} to {config.train.steps:,}")
    with screen:
        finished = trainer.train()
    del trainer
    gc.collect()  # its memory, before the next one is built
    return finished


def _evaluate(plan: Plan, config: Config, path: Path) -> Evaluation:
    plan.say(f"{path}: evaluating {plan.count:,} samples")
    weights_dir, device = config.loss.weights_dir, pick_device(config.engine.device)
    (found,) = evaluate(
        [path], metrics=plan.metrics, count=plan.count, weights_dir=weights_dir, device=device, warn=plan.say
    )
    return found
