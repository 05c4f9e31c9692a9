"""The training loop: batches in, networks updated, and at their intervals a tick, a sample grid and a checkpoint."""

import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastgan_engine.build import build_state, build_step
from fastgan_engine.checkpoint import load_checkpoint, save_checkpoint
from fastgan_engine.clock import Clock
from fastgan_engine.config import Config
from fastgan_engine.draws import draw
from fastgan_engine.errors import UserError
from fastgan_engine.hardware import pick_device, pick_dtype
from fastgan_engine.pictures import save_pictures
from fastgan_engine.pipelines import ImageStream, PreparedSet, open_stream
from fastgan_engine.reconstruction import ReconstructionLoss
from fastgan_engine.reference_step import StepLosses
from fastgan_engine.report import TickReport, read_memory
from fastgan_engine.run_folder import RunFolder
from fastgan_engine.run_log import RunLog
from fastgan_engine.screen import QuietScreen, Screen
from fastgan_engine.stopping import Interruption

# The order of the data and the random numbers of the step must not be the same sequence.
DATA_SEED_OFFSET = 1


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
        _set_backends(config)
        torch.manual_seed(config.train.seed)
        self.clock = Clock(self.device)
        self.state = build_state(config, self.device, self.dtype)
        loss = ReconstructionLoss(
            config.loss.reconstruction if config.model.decode else "none", weights_dir=config.loss.weights_dir
        )
        self.step = build_step(config, self.state, loss, self.dtype, self.clock)
        self._saved_at: int | None = None

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
                f"{checkpoint} does not fit the configuration: {str(error).splitlines()[0]} The model's settings "
                f"cannot change within a run; start a new one with another --out"
            ) from error
        self._saved_at = self.state.step
        if content["data_hash"] != self.images.hash:
            self.screen.event("note: the training images have changed since the checkpoint was written")

    def train(self) -> bool:
        """Runs until ``train.steps``. Returns False where Ctrl-C or SIGTERM ended it; the state is saved either way."""
        config, state = self.config, self.state
        self._prepare_folder()
        with Interruption() as interruption, self._stream() as stream, self._log() as log:
            ticker = _Ticker(self)
            while state.step < config.train.steps and not interruption.requested:
                reals = self._next(stream)
                losses = self.step(reals, self._draw())
                state.step += 1
                ticker.add(losses)
                if self._due(config.log.tick):
                    report = ticker.read()
                    self.screen.tick(report)
                    log.tick(report)
                if self._due(config.log.sample_every):
                    self._save_pictures()
                if self._due(config.log.checkpoint_every):
                    self._save()
        self._finish()
        return state.step >= config.train.steps

    def _prepare_folder(self) -> None:
        self.folder.path.mkdir(parents=True, exist_ok=True)
        self.folder.config.write_text(self.config.to_toml(), encoding="utf-8")
        if self.state.step == 0 and self.config.log.sample_every:
            self._save_pictures()

    def _stream(self) -> ImageStream:
        data, train = self.config.data, self.config.train
        return open_stream(
            self.images,
            batch=train.batch,
            seed=train.seed + DATA_SEED_OFFSET,
            flip=data.flip,
            device=str(self.device),
            loader=data.loader,
            workers=data.workers,
            prefetch=data.prefetch,
            start_step=self.state.step,
        )

    def _log(self) -> RunLog:
        return RunLog(self.folder, tensorboard=self.config.log.tensorboard, start_step=self.state.step)

    def _next(self, stream: ImageStream) -> Tensor:
        """The next batch, [B, C, H, W] channels-last in [-1, 1]; the wait for it is timed."""
        begin = time.perf_counter()
        images = stream.next()
        self.clock.add("data", time.perf_counter() - begin)
        reals = images.permute(0, 3, 1, 2).to(self.device, torch.float32).div_(127.5).sub_(1)
        self.clock.start()
        return reals

    def _draw(self) -> Any:
        config = self.config
        return draw(
            config.train.batch,
            im_size=config.model.im_size,
            nz=config.model.nz,
            policy=config.loss.augment,
            generator=self.state.generator,
        )

    def _due(self, interval: int) -> bool:
        return interval > 0 and self.state.step % interval == 0

    def _save_pictures(self) -> None:
        path = save_pictures(
            self.folder, self.state, self.images, count=self.config.log.sample_count, seed=self.config.train.seed
        )
        self.screen.event(f"samples: {path}")

    def _save(self) -> None:
        path = save_checkpoint(
            self.folder,
            self.state,
            keep=self.config.log.keep,
            config=self.config.to_toml(),
            data_hash=self.images.hash,
        )
        self._saved_at = self.state.step
        self.screen.event(f"checkpoint: {path}")

    def _finish(self) -> None:
        if self._saved_at != self.state.step:
            self._save()
            self._save_pictures()


class _Ticker:
    """Sums losses on the device and reads them, with the times, once a tick."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self._sums: Tensor | None = None
        self._first_step = trainer.state.step
        self._begin = time.perf_counter()

    def add(self, losses: StepLosses) -> None:
        values = torch.stack(list(losses))
        self._sums = values if self._sums is None else self._sums + values

    def read(self) -> TickReport:
        """The report since the last one. The one place where the host waits for the device.

        Raises:
            RuntimeError: a loss is not finite.
        """
        trainer, config, state = self.trainer, self.trainer.config, self.trainer.state
        count = state.step - self._first_step
        assert self._sums is not None
        losses = dict(zip(StepLosses._fields, (self._sums / count).tolist(), strict=True))
        now = time.perf_counter()
        seconds = (now - self._begin) / count
        laps = {name: total / count * 1e3 for name, total in trainer.clock.read().items()}
        self._sums, self._first_step, self._begin = None, state.step, now
        _check_finite(losses, state.step)
        scalers = [scaler for scaler in state.scalers.values() if scaler.is_enabled()]
        return TickReport(
            step=state.step,
            steps=config.train.steps,
            images_per_second=config.train.batch / seconds,
            ms_step=seconds * 1e3,
            ms_data=laps.get("data", 0.0),
            ms_d=laps.get("d", 0.0),
            ms_g=laps.get("g", 0.0),
            memory=read_memory(trainer.device),
            losses=losses,
            seconds_left=seconds * (config.train.steps - state.step),
            scale=min((scaler.get_scale() for scaler in scalers), default=None),
            skipped=_skipped_steps(state.step, state.opt_d, state.opt_g) if scalers else 0,
        )


def _check_finite(losses: dict[str, float], step: int) -> None:
    for name, value in losses.items():
        if not math.isfinite(value):
            raise RuntimeError(
                f"the loss {name} became {value} before step {step}; the last checkpoint is untouched: go on from it "
                f"with --resume auto, and with --set precision.dtype=fp32 if it happens again"
            )


def _skipped_steps(steps: int, *optimizers: torch.optim.Optimizer) -> int:
    """How many updates overflow has skipped: each optimizer counts those it made."""
    return sum(steps - max((int(s["step"]) for s in optimizer.state.values()), default=0) for optimizer in optimizers)


def _set_backends(config: Config) -> None:
    if config.engine.threads is not None:
        torch.set_num_threads(config.engine.threads)
    torch.backends.cuda.matmul.allow_tf32 = config.precision.tf32
    torch.backends.cudnn.allow_tf32 = config.precision.tf32
    torch.backends.cudnn.benchmark = True
