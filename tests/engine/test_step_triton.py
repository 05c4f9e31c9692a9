"""One whole iteration, of G and D, on the Triton kernels, in Triton's interpreter, against the released one."""

from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from fastgan_engine.config import Config
from fastgan_engine.draws import Draws, draw
from fastgan_engine.kernels import adam_ema_kernels, spectral_plan, tiling
from fastgan_engine.kernels.launch import record_launches
from fastgan_engine.reference_step import StepLosses
from tests.engine.test_step import (
    FROZEN,
    SIZE,
    config_of,
    engine_step,
    gradient,
    in_double,
    reference_step,
    relative,
    state_of,
)

BATCH = 2
# Every kernel of a training iteration; that of the batch runs before it.
KERNELS = {
    "excite_kernel", "excite_gradient_kernel", "adam_advance_kernel", "adam_ema_kernel", "diffaug_apply_kernel",
    "diffaug_reduce_kernel", "hinge_bwd_kernel",
    "hinge_fwd_kernel", "lpips_distance_bwd_kernel", "lpips_distance_fwd_kernel", "lrelu_pool_gradient_kernel",
    "lrelu_pool_kernel", "norm_glu_apply_kernel", "norm_glu_gradient_kernel", "norm_glu_reduce_kernel",
    "norm_lrelu_apply_kernel", "norm_lrelu_gradient_kernel", "norm_lrelu_reduce_kernel", "norm_statistics_kernel",
    "pool4_gradient_kernel", "pool4_kernel", "spectral_dot_kernel", "spectral_finish_kernel",
    "spectral_gather_kernel", "spectral_grad_kernel", "spectral_normalise_kernel", "spectral_product_kernel",
    "up_conv_assemble_kernel", "up_conv_dot_kernel", "up_conv_grad_kernel",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _large_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer programs: the interpreter's time goes by them, not by elements."""
    monkeypatch.setattr(tiling, "TILE", 1 << 15)
    monkeypatch.setattr(adam_ema_kernels, "CHUNK", 1 << 15)
    monkeypatch.setattr(spectral_plan, "CHUNK", 1 << 15)
    monkeypatch.setattr(spectral_plan, "TILE", 256)
    monkeypatch.setattr(spectral_plan, "STEP", 256)


@dataclass
class Outcome:
    """Of one iteration."""

    losses: StepLosses
    gradients: dict[str, Tensor]
    buffers: dict[str, Tensor]
    kernels: set[str]


def small(kernels: str) -> Config:
    return config_of(
        **FROZEN | {"train": {**FROZEN["train"], "batch": BATCH}},
        loss={"reconstruction": "lpips-squeeze"},
        engine={"kernels": kernels},
    )


def batch(config: Config) -> tuple[Tensor, Draws]:
    generator = torch.Generator().manual_seed(1)
    reals = torch.rand(BATCH, 3, SIZE, SIZE, generator=generator) * 2 - 1
    draws = draw(BATCH, im_size=SIZE, nz=config.model.nz, policy=config.loss.augment, generator=generator)
    return reals.contiguous(memory_format=torch.channels_last), draws


def _keep_gradient(kept: dict[str, Tensor], name: str, network: nn.Module, *_: object) -> None:
    kept[name] = gradient(network)


def iterate(config: Config, which: str) -> Outcome:
    """``which``: the reference in fp64 ("exact") or fp32 ("reference"), or the engine."""
    state = state_of(config)
    reals, draws = batch(config)
    torch.manual_seed(0)  # of the random LPIPS weights
    step = engine_step(config, state) if which == "engine" else reference_step(config, state)
    if which == "exact":
        for network in (state.networks.generator, state.networks.discriminator, state.networks.ema):
            network.double()
        step.reconstruction.double()
        reals, draws = reals.double(), in_double(draws)
    opt_d, opt_g = (state.opt_d, state.opt_g) if which == "engine" else (step.opt_d, step.opt_g)
    gradients: dict[str, Tensor] = {}
    for name, optimizer in (("discriminator", opt_d), ("generator", opt_g)):
        keep = partial(_keep_gradient, gradients, name, getattr(state.networks, name))
        optimizer.register_step_pre_hook(keep)
    with record_launches() as launches:
        losses = step(reals, draws)
    buffers = {
        f"{network}.{name}": value.double()
        for network in ("generator", "discriminator")
        for name, value in getattr(state.networks, network).named_buffers()
        if "running" in name
    }
    return Outcome(losses, gradients, buffers, {launch.name for launch in launches})


def test_an_iteration_on_the_kernels_is_the_released_one() -> None:
    exact, reference = (iterate(small("reference"), which) for which in ("exact", "reference"))
    engine = iterate(small("triton"), "engine")
    assert engine.kernels >= KERNELS, KERNELS - engine.kernels
    torch.testing.assert_close(
        torch.stack(list(engine.losses)).double(), torch.stack(list(exact.losses)).double(), rtol=1e-4, atol=0.0
    )
    for name, expected in exact.buffers.items():
        torch.testing.assert_close(engine.buffers[name], expected, rtol=1e-4, atol=1e-5, msg=name)
    for network, expected in exact.gradients.items():
        error, yardstick = (relative(run.gradients[network], expected) for run in (engine, reference))
        assert error <= 2 * yardstick, f"{network}: {error:.3g} from fp64, the fp32 reference {yardstick:.3g}"
