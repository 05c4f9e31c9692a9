"""The training of one run: stage after stage, and at their intervals a tick, a picture and a checkpoint."""

import hashlib
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image

from fastgan_engine.atomic import atomic_write
from fastgan_engine.build import set_backends
from fastgan_engine.capture import launched_as
from fastgan_engine.clock import Clock
from fastgan_engine.config.single import SingleConfig
from fastgan_engine.environment import record_start
from fastgan_engine.errors import UserError
from fastgan_engine.hardware import pick_device, pick_dtype
from fastgan_engine.html import write_report_or_say
from fastgan_engine.images import save_grid
from fastgan_engine.report import TickReport
from fastgan_engine.run_folder import RunFolder
from fastgan_engine.run_log import RunLog
from fastgan_engine.screen import QuietScreen, Screen
from fastgan_engine.single.applications import SingleModel, sample
from fastgan_engine.single.files import load_single_checkpoint, save_single_checkpoint
from fastgan_engine.single.inputs import Inputs
from fastgan_engine.single.iteration import SingleIteration
from fastgan_engine.single.pyramid import at_size, build_pyramid, stage_sizes, to_pixels
from fastgan_engine.single.quality import COUNT, Quality, assess
from fastgan_engine.single.state import begin_stage, build_state, drop_at, first_trained
from fastgan_engine.single.step import SingleLosses, StageStep
from fastgan_engine.stopping import Interruption
from fastgan_engine.ticker import Ticker

# What the stages of a run rest on: settings of the section ``single``, and what they come to.
FIXED = {
    "mode": "mode",
    "stages": "stage_count",
    "train_depth": "train_depth",
    "min_size": "coarsest",
    "iterations": "iterations",
    "filters": "filters",
    "batch_norm": "normalises",
}


class SingleTrainer:
    """Trains one run on one image in its folder.

    Args:
        config: the resolved configuration.
        image: the training image, RGB, at most ``max_size`` (see ``pyramid.load_image``).
        folder: where everything is written.
        screen: what the user sees; nothing by default.

    Raises:
        UserError: the image is too small, or the device or precision does not exist here.
    """

    def __init__(self, config: SingleConfig, image: Image.Image, folder: Path, *, screen: Screen | None = None) -> None:
        self.config, self.single, self.image, self.folder = config, config.single, image, RunFolder(folder)
        self.screen = screen or QuietScreen()
        self.device = pick_device(config.engine.device)
        self.dtype = forward_dtype(config, self.device)
        set_backends(config)
        self.clock = Clock(self.device)
        self.sizes = stage_sizes((image.height, image.width), self.single)
        self.reals = build_pyramid(image, self.sizes, self.device)
        self.state = build_state(self.single, self.device)
        self.inputs = Inputs(self.single, self.reals[0], self.state.generator)
        self.image_hash = hash_image(image)
        self._saved_at: int | None = None
        self._pictured_at: int | None = None

    def resume(self, checkpoint: Path) -> None:
        """Goes back to the state that a checkpoint holds.

        Raises:
            UserError: the file is damaged, of another image, or what cannot change within a run is changed.
        """
        content = load_single_checkpoint(checkpoint)
        if content["image_hash"] != self.image_hash:
            raise UserError(f"{checkpoint} was trained on another image or --max-size; start a new run with --out")
        before = SingleConfig.model_validate(tomllib.loads(content["config"])).single
        for setting, meaning in FIXED.items():
            if getattr(before, meaning) != getattr(self.single, meaning):
                raise UserError(
                    f"single.{setting} = {getattr(self.single, setting)}, but {checkpoint} was trained with "
                    f"{getattr(before, setting)}, which cannot change within a run; start a new one with another --out"
                )
        self.state.load_state_dict(self.single, content["state"])
        self._saved_at = self.state.step

    def train(self) -> bool:
        """Trains all stages. Returns False where Ctrl-C or SIGTERM ended it; the state is saved either way."""
        self._prepare_folder()
        state, single = self.state, self.single
        with Interruption() as interruption, self._log() as log:
            ticker = Ticker(state, self.clock, steps=single.total, batch=1)
            for stage in () if self._finished else range(state.stage, single.stage_count):
                with ticker.paused():
                    iterate = self._begin(stage)
                while state.iteration < single.iterations and not interruption.requested:
                    self._advance(iterate, ticker, log)
                if interruption.requested:
                    break
            self._finish()
        return self._finished

    @property
    def _finished(self) -> bool:
        return self.state.step >= self.single.total

    def model(self) -> SingleModel:
        """The generator as it is, for sampling."""
        state = self.state
        sizes = self.sizes[: len(state.amplitudes)]
        return SingleModel(self.single, state.networks.generator, self.image, sizes, state.fixed, state.amplitudes)

    def _begin(self, stage: int) -> Callable[[], SingleLosses]:
        """Readies a stage, unless the state is in the middle of it, and returns its iteration."""
        state = self.state
        state.stage = stage
        if len(state.amplitudes) == stage:
            begin_stage(state, self.single, self.reals, self.sizes)
        first, count, (height, width) = first_trained(self.single, stage), self.single.stage_count, self.sizes[stage]
        trained = f"stage {first + 1}" if first == stage else f"stages {first + 1} to {stage + 1}"
        self.screen.event(f"stage {stage + 1} of {count}: {width} x {height}, training {trained}")
        step = StageStep(state, self.single, self.reals[stage], self.sizes[: stage + 1], self.dtype, self.clock)
        iteration = SingleIteration(state, self.inputs, step, self.clock)
        return launched_as(self.config.engine.step, iteration, self.screen.event)

    def _advance(self, iterate: Callable[[], SingleLosses], ticker: Ticker, log: RunLog) -> None:
        state, settings = self.state, self.config.log
        if state.iteration == drop_at(self.single):
            state.drop_learning_rates()
        ticker.add(iterate())
        ends = state.iteration == self.single.iterations
        save = ends or self._due(settings.checkpoint_every)
        if save or self._due(settings.tick):
            report = self._estimated(ticker.read())  # raises where a loss is not finite: before the state is saved
            self.screen.tick(report)
            log.tick(report)
        with ticker.paused():
            if ends or self._due(settings.sample_every):
                self._save_pictures()
                self._write_report()
            if save:
                self._save()

    def _estimated(self, report: TickReport) -> TickReport:
        """The report with a time left that knows of the later stages: an iteration's cost goes with their pixels."""
        pixels = [height * width for height, width in self.sizes]
        state, iterations = self.state, self.single.iterations
        left = (iterations - state.iteration) * pixels[state.stage] + iterations * sum(pixels[state.stage + 1 :])
        return replace(report, seconds_left=report.ms_step / 1e3 * left / pixels[state.stage])

    def _due(self, interval: int) -> bool:
        return interval > 0 and self.state.step % interval == 0

    def _prepare_folder(self) -> None:
        self.folder.path.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.folder.config) as temporary:
            temporary.write_text(self.config.to_toml(), encoding="utf-8")
        with atomic_write(self.folder.single_image) as temporary:
            self.image.save(temporary, format="PNG")
        only = OneImage(self.image_hash)
        record_start(self.folder, only, step=self.state.step, device=self.device, dtype=self.dtype)

    def _log(self) -> RunLog:
        return RunLog(self.folder, tensorboard=self.config.log.tensorboard, start_step=self.state.step)

    def _save_pictures(self) -> None:
        """The image at this stage, and samples of it."""
        model = self.model()
        real = at_size(model.image, model.sizes[-1])
        shown = [to_pixels(real), *sample(model, self.config.log.sample_count, seed=self.single.seed)]
        path = self.folder.sample(self.state.step)
        save_grid(path, torch.stack(shown))
        self._pictured_at = self.state.step
        self.screen.event(f"samples: {path}")

    def _save(self) -> None:
        path = save_single_checkpoint(
            self.folder,
            self.state,
            keep=self.config.log.keep,
            config=self.config.to_toml(),
            image_hash=self.image_hash,
        )
        self._saved_at = self.state.step
        self.screen.event(f"checkpoint: {path}")

    def _finish(self) -> None:
        if self._saved_at != self.state.step:
            self._save()
        if self._finished:
            self.screen.event(f"quality: {self.quality()}")
        self._write_report()

    def _write_report(self) -> None:
        if self.config.log.report:
            write_report_or_say(self.folder, self.screen)

    def quality(self) -> Quality:
        """Figures of the samples of the generator as it is, at the size it has reached."""
        model = self.model()
        real = to_pixels(at_size(model.image, model.sizes[-1]))
        return assess(real, list(sample(model, COUNT, seed=self.single.seed)))


@dataclass(frozen=True)
class OneImage:
    """What a run on one image trains on, as ``environment.record_start`` wants it."""

    hash: str
    count: int = 1


def forward_dtype(config: SingleConfig, device: torch.device) -> torch.dtype:
    """Of the forward passes. "auto" takes fp32 where it would take fp16, since no loss scaler is used here.

    Raises:
        UserError: the card cannot compute it.
    """
    dtype = pick_dtype(config.precision.dtype, device)
    return torch.float32 if dtype == torch.float16 else dtype


def hash_image(image: Image.Image) -> str:
    return hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()
