"""Everything that changes while a run on one image trains."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fastgan_engine.config.single import Single
from fastgan_engine.single.inputs import draw_noise, fixed_input
from fastgan_engine.single.networks import Discriminator, Generator
from fastgan_engine.single.resize import Size
from fastgan_engine.state import load_optimizer

DROP_AT = 0.8  # of a stage's iterations
DROP = 0.1


@dataclass
class SingleNetworks:
    generator: Generator
    discriminator: Discriminator


@dataclass
class SingleState:
    """A run at one iteration of one stage; ``state_dict`` and back is exact.

    Attributes:
        fixed: what each stage so far is given to reconstruct the image from.
        amplitudes: of the noise of each stage so far.
        generator: source of every random number of the iterations, on the device.
        stage: the stage that trains, 0 the coarsest.
        step: finished iterations of all stages. begun_at: those before the stage that trains.
    """

    networks: SingleNetworks
    opt_g: torch.optim.Optimizer
    opt_d: torch.optim.Optimizer
    generator: torch.Generator
    fixed: list[Tensor] = field(default_factory=list)
    amplitudes: list[float] = field(default_factory=list)
    stage: int = 0
    step: int = 0
    begun_at: int = 0
    scalers: dict[str, torch.amp.GradScaler] = field(default_factory=dict)

    @property
    def iteration(self) -> int:
        """Finished iterations of the stage that trains."""
        return self.step - self.begun_at

    @property
    def device(self) -> torch.device:
        return self.generator.device

    def modules(self) -> Iterable[nn.Module]:
        return self.networks.generator, self.networks.discriminator

    def state_dict(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "stage": self.stage,
            "begun_at": self.begun_at,
            "generator": self.networks.generator.state_dict(),
            "discriminator": self.networks.discriminator.state_dict(),
            "opt_g": self.opt_g.state_dict(),
            "opt_d": self.opt_d.state_dict(),
            "fixed": self.fixed,
            "amplitudes": self.amplitudes,
            "random": {"device": self.device.type, "draws": self.generator.get_state()},
        }

    def load_state_dict(self, single: Single, state: dict[str, Any]) -> None:
        """Grows to the stage of ``state`` and takes everything over."""
        while len(self.networks.generator.stages) <= state["stage"]:
            self.networks.generator.grow()
        self.networks.generator.load_state_dict(state["generator"])
        self.networks.discriminator.load_state_dict(state["discriminator"])
        self.step, self.stage, self.begun_at = state["step"], state["stage"], state["begun_at"]
        self.fixed = [tensor.to(self.device) for tensor in state["fixed"]]
        self.amplitudes = list(state["amplitudes"])
        self.opt_g, self.opt_d = build_optimizers(single, self.networks, self.stage)
        load_optimizer(self.opt_g, state["opt_g"])
        load_optimizer(self.opt_d, state["opt_d"])
        if self.iteration > drop_at(single):
            self.drop_learning_rates()
        if state["random"]["device"] == self.device.type:
            self.generator.set_state(state["random"]["draws"])

    def drop_learning_rates(self) -> None:
        """In place: on CUDA they are tensors, which a captured graph reads."""
        for optimizer in (self.opt_g, self.opt_d):
            for group in optimizer.param_groups:
                group["lr"] *= DROP


def build_state(single: Single, device: torch.device) -> SingleState:
    """The state of a run before its first stage, reproducible from ``single.seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(single.seed)
        networks = SingleNetworks(
            Generator(filters=single.filters, batch_norm=single.normalises, varies_borders=single.varies_borders),
            Discriminator(filters=single.filters),
        )
    for network in (networks.generator, networks.discriminator):
        network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    opt_g, opt_d = build_optimizers(single, networks, 0)
    return SingleState(networks, opt_g, opt_d, torch.Generator(device).manual_seed(single.seed))


def begin_stage(state: SingleState, single: Single, reals: list[Tensor], sizes: list[Size]) -> None:
    """Readies stage ``state.stage`` to be trained from its first iteration.

    The generator grows by a copy of its last stage, the discriminator goes on, the optimizers are new. The amplitude
    of the stage's noise follows from the error of the reconstruction as it is now: 1 at stage 0.
    """
    stage, generator = state.stage, state.networks.generator
    state.begun_at = state.step
    if stage > 0:
        generator.grow()
    state.opt_g, state.opt_d = build_optimizers(single, state.networks, stage)
    until = sizes[: stage + 1]
    if stage == 0:
        state.fixed.append(fixed_input(single, reals[0], state.generator))
        state.amplitudes.append(1.0)
        return
    state.fixed += draw_noise(single, until, state.generator, first=stage)
    with torch.no_grad():
        before = generator(state.fixed, until, [*state.amplitudes, 0.0])
    error = (before - reals[stage]).square().mean().sqrt()
    state.amplitudes.append(single.noise * float(error))


def first_trained(single: Single, stage: int) -> int:
    """The lowest stage that trains while ``stage`` is the top one; those below are frozen."""
    return max(0, stage + 1 - single.train_depth)


def drop_at(single: Single) -> int:
    """Finished iterations of a stage after which its learning rates drop."""
    return int(DROP_AT * single.iterations)


def build_optimizers(
    single: Single, networks: SingleNetworks, stage: int
) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    """Adam of G and of D for a stage. ``lr_scale``^k is the factor k stages below the top, and of the head."""
    generator, first = networks.generator, first_trained(single, stage)
    scaled = [(block, single.lr_scale ** (stage - first - k)) for k, block in enumerate(generator.stages[first:])]
    if first == 0:
        scaled.append((generator.head, single.lr_scale**stage))
    scaled.append((generator.tail, 1.0))
    return _adam(single, scaled), _adam(single, [(networks.discriminator, 1.0)])


def _adam(single: Single, scaled: list[tuple[nn.Module, float]]) -> torch.optim.Adam:
    """Fused. As a capture needs it: its state exists before the first step, and on CUDA learning rates are tensors."""
    device = next(scaled[0][0].parameters()).device
    cuda = device.type == "cuda"
    groups = [
        {
            "params": list(module.parameters()),
            "lr": torch.tensor(single.lr * factor, device=device) if cuda else single.lr * factor,
        }
        for module, factor in scaled
    ]
    adam = torch.optim.Adam(groups, lr=single.lr, betas=(single.beta1, single.beta2), fused=True, capturable=cuda)
    for group in adam.param_groups:
        for weight in group["params"]:
            adam.state[weight] = {
                "step": torch.zeros((), device=device),
                "exp_avg": torch.zeros_like(weight, requires_grad=False),
                "exp_avg_sq": torch.zeros_like(weight, requires_grad=False),
            }
    return adam
