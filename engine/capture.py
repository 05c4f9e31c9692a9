"""An iteration as one CUDA graph: captured once, then replayed with a single launch.

Warm-up runs on a side stream, as capture needs (kernels compiled, workspaces made, algorithms chosen), on whatever the
source's buffers hold, so that no batch is used up. It moves the state, so every tensor of the state is put back in
place afterwards: a captured run and an eager one agree.
Sources: PyTorch's notes on CUDA graphs; ``torch.cuda.graph``.
"""

from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from fastgan_engine.clock import Clock
from fastgan_engine.errors import UserError
from fastgan_engine.state import Trained

WARM_UP = 3

L = TypeVar("L", bound=tuple[Tensor, ...], covariant=True)


class Capturable(Protocol[L]):
    """An iteration with a part, ``on_device``, that a CUDA graph can hold; see ``Iteration``."""

    @property
    def state(self) -> Trained: ...

    @property
    def clock(self) -> Clock: ...

    @property
    def device(self) -> torch.device: ...

    def fetch(self) -> None: ...

    def on_device(self) -> L: ...

    def __call__(self) -> L: ...


def launched_as(step: str, iteration: Capturable[L], say: Callable[[str], None]) -> Callable[[], L]:
    """The iteration for ``engine.step``; "auto" captures it where there is CUDA, and says so where it cannot.

    Raises:
        UserError: "graph" without CUDA.
        RuntimeError: "graph", and it cannot be captured.
    """
    if iteration.device.type != "cuda":
        if step == "graph":
            raise UserError(
                f'engine.step = "graph" needs CUDA; the device is {iteration.device}; take "eager" or "auto"'
            )
        return iteration
    if step in ("eager", "compile"):
        return iteration
    try:
        return CapturedIteration(iteration)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        if step == "graph":
            raise
        say(f"note: the step could not be captured as a CUDA graph, it runs eagerly ({error})")
        return iteration


class CapturedIteration(Generic[L]):
    """``iteration()`` as ``Iteration`` does it, by replaying its graph.

    The losses it returns are fixed buffers, which the next replay overwrites.

    Raises:
        RuntimeError: the iteration cannot be captured.
    """

    def __init__(self, iteration: Capturable[L]) -> None:
        self.iteration = iteration
        with torch.cuda.device(iteration.device), iteration.clock.stopped():
            self._warm_up()
            self.graph = torch.cuda.CUDAGraph()
            self.graph.register_generator_state(iteration.state.generator)
            with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
                losses = iteration.on_device()
                self.losses: L = type(losses)(*(loss.clone() for loss in losses))

    def __call__(self) -> L:
        self.iteration.fetch()
        self.graph.replay()
        self.iteration.clock.lap("step")
        self.iteration.state.step += 1
        return self.losses

    def _warm_up(self) -> None:
        state = self.iteration.state
        for scaler in state.scalers.values():
            scaler.scale(torch.zeros((), device=self.iteration.device))  # makes its tensors
        # In host memory: the warm-up needs as much of the device as the graph will, and a second state does not fit.
        saved = [(tensor, tensor.detach().to("cpu", copy=True)) for tensor in mutable_tensors(state)]
        torch.cuda.empty_cache()  # of what samples have left; this stream's blocks are of no use to the other
        random = state.generator.get_state()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(stream):
                for _ in range(WARM_UP):
                    self.iteration.on_device()
        finally:  # also where it fails: the caller may go on without a graph
            torch.cuda.current_stream().wait_stream(stream)
            with torch.no_grad():
                for tensor, value in saved:
                    tensor.copy_(value)
            state.generator.set_state(random)
            state.opt_g.zero_grad()
            state.opt_d.zero_grad()


def mutable_tensors(state: Trained) -> Iterator[Tensor]:
    """Every tensor that an iteration changes: weights, buffers, averages, moments, step counts, loss scales."""
    for network in state.modules():
        yield from network.parameters()
        yield from network.buffers()
    for optimizer in (state.opt_g, state.opt_d):
        for values in optimizer.state.values():
            yield from (value for value in values.values() if isinstance(value, Tensor))
    for scaler in state.scalers.values():
        if scaler.is_enabled() and scaler._scale is not None and scaler._growth_tracker is not None:
            yield from (scaler._scale, scaler._growth_tracker)
