"""A trained run's top stage trained on, with one composite in place of changed copies of the image."""

from collections.abc import Callable

from PIL import Image

from fastgan_engine.clock import Clock
from fastgan_engine.single.files import SingleRun
from fastgan_engine.single.inputs import Inputs
from fastgan_engine.single.iteration import SingleIteration
from fastgan_engine.single.pyramid import at_size, to_tensor
from fastgan_engine.single.state import build_optimizers, drop_at
from fastgan_engine.single.step import StageStep
from fastgan_engine.single.trainer import forward_dtype


def fine_tune(run: SingleRun, naive: Image.Image, iterations: int, progress: Callable[[int, int], None]) -> None:
    """Trains the generator of ``run`` in place; nothing is written. naive: the composite, of any size."""
    state, sizes = run.state, run.model.sizes
    single = run.config.single.model_copy(update={"iterations": iterations})
    state.stage, state.begun_at = single.stage_count - 1, state.step
    state.opt_g, state.opt_d = build_optimizers(single, state.networks, state.stage)
    inputs = Inputs(single, to_tensor(at_size(naive, sizes[0]), state.device), state.generator, composite=True)
    real = to_tensor(run.model.image, state.device)
    step = StageStep(state, single, real, sizes, forward_dtype(run.config, state.device))
    iterate = SingleIteration(state, inputs, step, Clock(state.device))
    for done in range(iterations):
        if done == drop_at(single):
            state.drop_learning_rates()
        iterate()
        progress(done + 1, iterations)
