"""The training loop: batches in, networks updated, and at their intervals a tick, a sample grid and a checkpoint."""

import gc
from collections.abc import Callable
from pathlib import Path

import torch

from fastgan_engine.atomic import atomic_write
from fastgan_engine.build import build_loss, build_state, build_step, set_backends
from fastgan_engine.capture import launched_as
from fastgan_engine.checkpoint import NO_IMAGES, load_checkpoint, save_checkpoint
from fastgan_engine.clock import Clock
from fastgan_engine.config import Config
from fastgan_engine.environment import record_start
from fastgan_engine.errors import UserError
from fastgan_engine.evaluation.watch import Watch
from fastgan_engine.hardware import pick_device, pick_dtype
from fastgan_engine.html import write_report_or_say
from fastgan_engine.iteration import Iteration
from fastgan_engine.kernels import dispatch
from fastgan_engine.pictures import save_pictures
from fastgan_engine.pipelines import PreparedSet
from fastgan_engine.recovery import Remedy, smaller, steadier
from fastgan_engine.reference_step import StepLosses
from fastgan_engine.run_folder import RunFolder
from fastgan_engine.run_log import RunLog
from fastgan_engine.screen import QuietScreen, Screen
from fastgan_engine.sources import Source, open_source
from fastgan_engine.stopping import Interruption
from fastgan_engine.ticker import NotFiniteLossError, Ticker


class Trainer:
    """Trains one run in its folder.

    Args:
        config: the resolved configuration.
        images: the prepared training set.
        folder: where everything is written.
        screen: what the user sees; nothing by default.

    Raises:
        UserError: the device or precision does not exist here, or LPIPS weights are missing.
    """

    def __init__(self, config: Config, images: PreparedSet, folder: Path, *, screen: Screen | None = None) -> None:
        self.config, self.images, self.folder = config, images, RunFolder(folder)
        self.screen = screen or QuietScreen()
        self.device = pick_device(config.engine.device)
        self.dtype = pick_dtype(config.precision.dtype, self.device)
        set_backends(config)
        torch.manual_seed(config.train.seed)
        self.clock = Clock(self.device)
        self._last_checkpoint: Path | None = None
        self._build()
        self.watch = Watch(config, images, self.folder, self.device, self.screen)
        if self.dtype == torch.float16 and self.device.type == "cpu":
            self.screen.event("note: fp16 is very slow on a CPU; --dtype auto takes what is fast")

    def _build(self) -> None:
        """State and step of a run at step 0."""
        self.state = build_state(self.config, self.device, self.dtype)
        self.loss = build_loss(self.config)
        self.step = build_step(self.config, self.state, self.loss, self.dtype, self.clock)
        self._saved_at: int | None = None
        self._pictured_at: int | None = None

    def resume(self, checkpoint: Path) -> None:
        """Goes back to the state that a checkpoint holds.

        Raises:
            UserError: the file is damaged, or its networks are not those of the configuration.
        """
        content = load_checkpoint(checkpoint)
        try:
            self.state.load_state_dict(content["state"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise UserError(
                f"{checkpoint} does not fit the configuration ({_last_line(error)}). The model's settings cannot "
                f"change within a run; start a new one with another --out"
            ) from error
        self._saved_at, self._last_checkpoint = self.state.step, checkpoint
        if content["data_hash"] not in (NO_IMAGES, self.images.hash):
            self.screen.event("note: the training images have changed since the checkpoint was written")

    def train(self) -> bool:
        """Runs until ``train.steps`` or an early stop.

        Returns False where Ctrl-C or SIGTERM ended it; the state is saved either way.
        Where memory runs out, it goes back to the last checkpoint (or the start) and on with a smaller micro-batch;
        where a loss is not finite in half precision, in fp32.

        Raises:
            UserError: memory runs out with single images, too.
            NotFiniteLossError: a loss is not finite in fp32.
        """
        while True:
            not_finite = None
            try:
                return self._train()
            except torch.OutOfMemoryError:
                pass  # left before anything else: the exception holds the tensors of the step that failed
            except NotFiniteLossError as error:
                not_finite = error.with_traceback(None)  # whose frames hold tensors too
            if not_finite is None:
                self._go_on(smaller(self.config, self.state.step + 1, self.device))
            else:
                self._go_on(steadier(self.config, not_finite, self.dtype))

    def _train(self) -> bool:
        config, state = self.config, self.state
        self._say_what_computes()
        self._prepare_folder()
        self.watch.begin(state.step)
        with Interruption() as interruption, self._source() as source, self._log() as log:
            iterate = self._iteration(source)
            ticker = Ticker(state, self.clock, steps=config.train.steps, batch=config.train.batch)
            while not self._finished and not interruption.requested:
                ticker.add(iterate())
                save = self._due(config.log.checkpoint_every)
                if save or self._due(config.log.tick) or state.step == config.train.steps:
                    report = ticker.read()  # raises where a loss is not finite: before the state is saved
                    self.screen.tick(report)
                    log.tick(report)
                with ticker.paused():
                    self.watch(state, log, stop=lambda: interruption.requested)
                    if self._due(config.log.sample_every):
                        self._save_pictures()
                        self._write_report()
                    if save:
                        self._save()
            self._finish()
        return self._finished

    def _go_on(self, remedy: Remedy) -> None:
        self.config = remedy.config
        self.dtype = pick_dtype(self.config.precision.dtype, self.device)
        del self.state, self.loss, self.step
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self._build()
        if self._last_checkpoint is not None:
            self.resume(self._last_checkpoint)
        self.screen.event(remedy.told(self.state.step))

    def _say_what_computes(self) -> None:
        if self.config.engine.step == "compile":
            self.screen.event("step: plain PyTorch through torch.compile; the first steps compile, which takes minutes")
        elif self.config.engine.kernels == "auto":
            self.screen.event(dispatch.summary(self.device, self.dtype))

    @property
    def _finished(self) -> bool:
        return self.state.step >= self.config.train.steps or self.watch.stopped_early

    def _prepare_folder(self) -> None:
        self.folder.path.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.folder.config) as temporary:
            temporary.write_text(self.config.to_toml(), encoding="utf-8")
        record_start(self.folder, self.images, step=self.state.step, device=self.device, dtype=self.dtype)
        if self.state.step == 0 and self.config.log.sample_every:
            self._save_pictures()

    def _source(self) -> Source:
        source = open_source(self.config, self.images, self.device, start_step=self.state.step)
        self.screen.event(f"data: {source.reason}")
        return source

    def _iteration(self, source: Source) -> Callable[[], StepLosses]:
        iteration = Iteration(self.config, self.state, source, self.step, self.clock)
        return launched_as(self.config.engine.step, iteration, self.screen.event)

    def _log(self) -> RunLog:
        return RunLog(self.folder, tensorboard=self.config.log.tensorboard, start_step=self.state.step)

    def _due(self, interval: int) -> bool:
        return interval > 0 and self.state.step % interval == 0

    def _save_pictures(self) -> None:
        path = save_pictures(
            self.folder, self.state, self.images, count=self.config.log.sample_count, seed=self.config.train.seed
        )
        self._pictured_at = self.state.step
        self.screen.event(f"samples: {path}")

    def _save(self) -> None:
        path = save_checkpoint(
            self.folder,
            self.state,
            keep=self.config.log.keep,
            config=self.config.to_toml(),
            data_hash=self.images.hash,
        )
        self._saved_at, self._last_checkpoint = self.state.step, path
        self.screen.event(f"checkpoint: {path}")

    def _finish(self) -> None:
        if self._pictured_at != self.state.step:
            self._save_pictures()
        if self._saved_at != self.state.step:
            self._save()
        self._write_report()

    def _write_report(self) -> None:
        if self.config.log.report:
            write_report_or_say(self.folder, self.screen)


def _last_line(error: Exception) -> str:
    """What PyTorch says last is the most concrete: the parameter that differs."""
    return str(error).strip().splitlines()[-1].strip().rstrip(".")
