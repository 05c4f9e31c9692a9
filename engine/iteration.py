"""One iteration as the loop sees it: fetch a batch; then, on the device alone, draw and step."""

from collections.abc import Callable

import torch
from torch import Tensor

from fastgan_engine.clock import Clock
from fastgan_engine.config import Config
from fastgan_engine.draws import Draws, draw
from fastgan_engine.reference_step import StepLosses
from fastgan_engine.sources import Source
from fastgan_engine.state import TrainingState

Step = Callable[[Tensor, Draws], StepLosses]


def draw_for(config: Config, generator: torch.Generator) -> Draws:
    """All draws of one iteration under a configuration."""
    return draw(
        config.train.batch,
        im_size=config.model.im_size,
        nz=config.model.nz,
        policy=config.loss.augment,
        generator=generator,
        second_view=config.loss.self_supervision == "contrastive",
    )


class Iteration:
    """``iteration()`` advances the state by one step.

    ``on_device`` is the part that a CUDA graph can hold: it reads no value on the host, draws all random numbers from
    the state's generator on the device, and reads the batch from the source's fixed buffers.
    """

    def __init__(self, config: Config, state: TrainingState, source: Source, step: Step, clock: Clock) -> None:
        self.config, self.state, self.source, self.step, self.clock = config, state, source, step, clock

    def __call__(self) -> StepLosses:
        self.fetch()
        losses = self.on_device()
        self.state.step += 1
        return losses

    def fetch(self) -> None:
        """Takes the next batch; how long the device has to wait for it is timed as "data".

        Not how long the host does: on CUDA it runs ahead, and may wait here until a buffer is free again.
        """
        self.clock.start()
        self.source.fetch()
        self.clock.lap("data")

    def on_device(self) -> StepLosses:
        draws = draw_for(self.config, self.state.generator)
        return self.step(self.source.reals(), draws)

    @property
    def device(self) -> torch.device:
        return self.state.networks.device
