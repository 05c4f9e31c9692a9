"""One iteration of a stage as the loop sees it: put the inputs in place; then, on the device alone, draw and step."""

import torch

from fastgan_engine.clock import Clock
from fastgan_engine.single.inputs import Inputs
from fastgan_engine.single.state import SingleState
from fastgan_engine.single.step import SingleLosses, StageStep


class SingleIteration:
    """``iteration()`` advances the state by one step; ``on_device`` is the part that a CUDA graph can hold."""

    def __init__(self, state: SingleState, inputs: Inputs, step: StageStep, clock: Clock) -> None:
        self.state, self.inputs, self.step, self.clock = state, inputs, step, clock

    def __call__(self) -> SingleLosses:
        self.fetch()
        losses = self.on_device()
        self.state.step += 1
        return losses

    def fetch(self) -> None:
        self.inputs.fetch(self.state.step)
        self.clock.start()

    def on_device(self) -> SingleLosses:
        return self.step(self.inputs.draw(self.step.sizes))

    @property
    def device(self) -> torch.device:
        return self.state.device
