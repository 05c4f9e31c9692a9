"""What watches over a training run: evaluations, the best generator, the early stop and the collapse alarm."""

from collections.abc import Callable
from dataclasses import asdict

import torch

from fastgan_engine.config import Config
from fastgan_engine.evaluation.collapse import CollapseAlarm
from fastgan_engine.evaluation.defaults import AUTO, parse_metrics
from fastgan_engine.evaluation.evaluator import Evaluator
from fastgan_engine.evaluation.metrics import METRICS, check_samples
from fastgan_engine.evaluation.standing import log_record, read_history, standing
from fastgan_engine.evaluation.weights import INCEPTION, can_measure_fid
from fastgan_engine.pipelines import PreparedSet
from fastgan_engine.run_folder import RunFolder
from fastgan_engine.run_log import RunLog
from fastgan_engine.screen import Screen
from fastgan_engine.snapshot import save_snapshot
from fastgan_engine.state import TrainingState


class Watch:
    """Called after every step; looks at the averaged generator at its intervals, and evaluates it after the last step.

    It moves no random state and no weights: a run with it is, to the bit, the run without it.

    Attributes:
        stopped_early: whether ``eval.patience`` evaluations have brought no improvement.

    Raises:
        UserError: weights of a metric are missing, or there are too few images for it.
    """

    def __init__(
        self, config: Config, images: PreparedSet, folder: RunFolder, device: torch.device, screen: Screen
    ) -> None:
        self.config, self.folder, self.screen = config, folder, screen
        self.stopped_early = False
        self.alarm = CollapseAlarm(images, threshold=config.eval.alarm, ema_decay=config.train.ema_decay)
        self.evaluator = self._build_evaluator(images, device) if config.eval.every else None
        self.history: list[tuple[int, float]] = []

    def begin(self, step: int) -> None:
        """Recalls what the log tells of the evaluations up to a step, from which training goes on."""
        self.stopped_early = False
        if self.evaluator is not None:
            self.history = read_history(self.folder.log, self.decides, count=self.config.eval.count, until=step)

    def __call__(self, state: TrainingState, log: RunLog, *, stop: Callable[[], bool] = lambda: False) -> None:
        """stop: asked now and then during an evaluation; where it says so the evaluation is given up."""
        every = self.config.eval.every
        evaluates = self._due(state.step, every) or (every > 0 and state.step == self.config.train.steps)
        if self.config.eval.alarm and (evaluates or self._due(state.step, self.config.log.sample_every)):
            self._check_diversity(state, log)
        if evaluates:
            self._evaluate(state, log, stop)

    @property
    def decides(self) -> str:
        """The metric by which the best is chosen: the first."""
        assert self.evaluator is not None
        return self.evaluator.metrics[0]

    @staticmethod
    def _due(step: int, interval: int) -> bool:
        return interval > 0 and step % interval == 0

    def _build_evaluator(self, images: PreparedSet, device: torch.device) -> Evaluator:
        settings, weights_dir = self.config.eval, self.config.loss.weights_dir
        if settings.metrics != AUTO:
            metrics = parse_metrics(settings.metrics)
        elif can_measure_fid(weights_dir):
            metrics = ("fid",)
        else:
            metrics = ("swd",)
            self.screen.event(
                f"note: evaluations take swd: for fid, torch-fidelity and the file {INCEPTION.file} must be there "
                f"(eval.metrics = fid downloads it)"
            )
        check_samples(metrics, settings.count)
        self.screen.event(
            f"evaluation: {', '.join(metrics)} of {settings.count:,} samples against {images.count:,} training images, "
            f"every {settings.every:,} steps"
        )
        return Evaluator(
            images,
            metrics,
            device,
            weights_dir=weights_dir,
            cache_dir=self.config.data.cache_dir,
            warn=self.screen.event,
        )

    def _check_diversity(self, state: TrainingState, log: RunLog) -> None:
        if not self.alarm.applies:
            return
        diversity = self.alarm.measure(state.networks.ema, seed=self.config.train.seed)
        rings = self.alarm.rings(diversity, step=state.step)
        log.record(state.step, {f"diversity_{k}": v for k, v in asdict(diversity).items()} | {"collapse": rings})
        self.screen.status(
            "diversity",
            f"{diversity.ratio:.2f} of the training images'; SWD to them {diversity.swd:.4f}",
            warning=rings,
        )
        if rings:
            self.screen.event(
                f"WARNING: at step {state.step:,} the samples look alike: their mean distance is {diversity.ratio:.2f} "
                f"of that of the training images, below eval.alarm = {self.config.eval.alarm:g}. Look at "
                f"{self.folder.samples}; if it stays so, go on from an older checkpoint (--resume FILE) or start anew"
            )

    def _evaluate(self, state: TrainingState, log: RunLog, stop: Callable[[], bool]) -> None:
        assert self.evaluator is not None
        values = self.evaluator(
            state.networks.ema,
            count=self.config.eval.count,
            seed=self.config.train.seed,
            warn=self.screen.event,
            progress=self._show_progress,
            stop=stop,
        )
        self.screen.status("evaluating", "")
        if values is None:
            return
        log.record(state.step, log_record(values, self.config.eval.count))
        self.history.append((state.step, values[self.decides]))
        self._judge(state)
        for name, value in values.items():
            if name != self.decides:
                self.screen.status(METRICS[name].title, f"{METRICS[name].text(value)} at step {state.step:,}")

    def _judge(self, state: TrainingState) -> None:
        """Keeps the best, and stops a run that no longer improves."""
        now = standing(self.decides, self.history)
        self.screen.status(METRICS[self.decides].title, now.text())
        if not now.since_best and self.config.eval.keep_best:
            save_snapshot(self.folder.best, state.networks.ema, step=state.step)
        patience = self.config.eval.patience
        if patience and now.since_best >= patience:
            self.stopped_early = True
            self.screen.event(
                f"stopped early at step {state.step:,}: {self.decides} has not improved in {now.since_best} "
                f"evaluations (eval.patience = {patience}); the best was at step {now.best_step:,}"
            )

    def _show_progress(self, what: str, done: int, total: int) -> None:
        self.screen.progress("evaluating", f"{what} {done:,} of {total:,}")
