"""The rival: the released recipe as one speeds it up without writing any code, with AMP and ``torch.compile``.

It trains like the engine (``engine.step = "compile"``), on the same state and checkpoints, and ``bench throughput``
times it. Networks and LPIPS are compiled, forward and backward; what lies between them (DiffAugment, losses, fused
Adam, the average) runs operation by operation. The quadrant is chosen on the device: read on the host, as the released
code does, it would make torch.compile build four variants and wait in every step.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException

from fastgan_engine.clock import Clock
from fastgan_engine.draws import Draws
from fastgan_engine.errors import UserError
from fastgan_engine.reconstruction import ReconstructionLoss
from fastgan_engine.reference_step import ReferenceStep, StepLosses
from fastgan_engine.state import TrainingState

Backend = str | Callable[..., Any]
BACKEND: Backend = "inductor"


class CompiledStep(ReferenceStep):
    """``step(reals, draws)`` as ``ReferenceStep``, under autocast to ``dtype`` unless fp32.

    The first steps compile, which takes minutes. ``backend``: of torch.compile.

    Raises:
        UserError: by a step, where the backend cannot run here (on the CPU it needs a C++ compiler).
    """

    def __init__(
        self,
        state: TrainingState,
        reconstruction: ReconstructionLoss,
        *,
        dtype: torch.dtype,
        ema_decay: float,
        clock: Clock | None = None,
        backend: Backend | None = None,
    ) -> None:
        networks = state.networks
        autocast = None if dtype == torch.float32 else torch.autocast(networks.device.type, dtype=dtype)
        super().__init__(networks, reconstruction, state.opt_g, state.opt_d, ema_decay=ema_decay, autocast=autocast)
        self.scalers, self.clock = state.scalers, clock
        # The networks themselves stay as they are: sample grids and checkpoints need no compiling.
        self.run_g = torch.compile(networks.generator, backend=backend or BACKEND)
        self.run_d = torch.compile(networks.discriminator, backend=backend or BACKEND)
        reconstruction.compile(backend=backend or BACKEND)

    def __call__(self, reals: Tensor, draws: Draws) -> StepLosses:
        try:
            return super().__call__(reals, draws)
        except TorchDynamoException as error:
            raise UserError(
                f'engine.step = "compile" cannot run here: {_summary(error)}. torch.compile needs a C++ compiler on a '
                f'CPU, and Triton and compute capability 7.0 on CUDA; take engine.step = "auto"'
            ) from error

    def _part(self, draws: Draws) -> Tensor:
        return draws.part

    def _backward(self, network: Literal["d", "g"], loss: Tensor) -> None:
        self.scalers[network].scale(loss).backward()

    def _update(self, network: Literal["d", "g"], optimizer: torch.optim.Optimizer) -> None:
        self.scalers[network].step(optimizer)
        self.scalers[network].update()
        if self.clock is not None:
            self.clock.lap(network)


def _summary(error: Exception) -> str:
    """The first line of the error that Dynamo wraps, where it wraps one."""
    cause = getattr(error, "inner_exception", error)
    return str(cause).strip().partition("\n")[0].rstrip(".:") or type(cause).__name__
