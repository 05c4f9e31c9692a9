"""The phases of an iteration, told as it enters them: the engine's, and the reference's on the plain networks."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_pre_hook

from fastgan_engine import step as engine_step
from fastgan_engine.fast.weights import SpectralWeights
from fastgan_engine.networks import Discriminator, Generator

START, DATA, SAMPLING, CHECKPOINTING = "start", "data", "sampling", "checkpointing"
G_FORWARD, D_FORWARD, D_BACKWARD, D_OPTIMIZER = (
    f"D step: {name}" for name in ("G forward", "D forward", "D backward", "optimizer D")
)
FORWARD, BACKWARD, G_OPTIMIZER = (f"G step: {name}" for name in ("forward", "backward", "optimizer G"))
ITERATION = (DATA, G_FORWARD, D_FORWARD, D_BACKWARD, D_OPTIMIZER, FORWARD, BACKWARD, G_OPTIMIZER)
PHASES = (START, *ITERATION, SAMPLING, CHECKPOINTING)


@contextmanager
def telling_phases(enter: Callable[[str], None]) -> Iterator[None]:
    """Calls ``enter(phase)`` whenever one iteration, run inside, enters a phase; with micro-batches several times.

    A phase lasts until the next begins: augmentation belongs to the forward before it, the way of the gradients through
    the spectral norms to the backward.
    """
    d_is_done, phase = False, DATA

    def tell(in_d_step: str, in_g_step: str) -> None:
        nonlocal phase
        phase = in_g_step if d_is_done else in_d_step
        enter(phase)

    def telling(function: Callable[..., Any], *phases: str) -> Callable[..., Any]:
        def told(*args: Any, **kwargs: Any) -> Any:
            tell(*phases)
            return function(*args, **kwargs)

        return told

    def before_weights(*args: Any, **kwargs: Any) -> Any:
        tell(G_FORWARD if phase == DATA else D_FORWARD, FORWARD)
        return ready(*args, **kwargs)

    def before_module(module: nn.Module, _: Any) -> None:
        if isinstance(module, Generator | Discriminator):
            tell(G_FORWARD if isinstance(module, Generator) else D_FORWARD, FORWARD)

    def before_optimizer(*_: Any) -> None:
        nonlocal d_is_done
        tell(D_OPTIMIZER, G_OPTIMIZER)
        d_is_done = True

    ready = SpectralWeights.ready
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(SpectralWeights, "ready", before_weights))
        for owner, name, phases in (
            (engine_step, "generate", (G_FORWARD, FORWARD)),
            (engine_step, "discriminate", (D_FORWARD, FORWARD)),
            (engine_step, "features", (D_FORWARD, FORWARD)),
            (Tensor, "backward", (D_BACKWARD, BACKWARD)),
        ):
            stack.enter_context(mock.patch.object(owner, name, telling(getattr(owner, name), *phases)))
        for handle in (
            register_module_forward_pre_hook(before_module),
            register_optimizer_step_pre_hook(before_optimizer),
        ):
            stack.callback(handle.remove)
        enter(DATA)
        yield
