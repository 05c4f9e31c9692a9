"""What a training run consists of: two networks, the average of one, two optimizers and the random numbers."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fastgan_engine.networks import Discriminator, Generator


@dataclass
class Networks:
    """G, D and the exponential moving average of G, on one device."""

    generator: Generator
    discriminator: Discriminator
    ema: Generator

    @property
    def device(self) -> torch.device:
        return next(self.generator.parameters()).device


@torch.no_grad()
def update_ema(ema: nn.Module, live: nn.Module, decay: float, *, weights: bool = True) -> None:
    """ema <- decay * ema + (1 - decay) * live for weights and batch-norm statistics; other buffers are copied.

    Averaging the running statistics with the weights keeps the average usable in evaluation mode; the singular vectors
    of spectral norm (``weight_u``, ``weight_v``) are of unit length, so that only a copy makes sense.
    """
    torch._foreach_lerp_(_averaged(ema, weights), _averaged(live, weights), 1 - decay)
    # Apart by dtype: of mixed ones PyTorch makes a copy a tensor.
    pairs = list(zip(_copied(ema), _copied(live), strict=True))
    for dtype in dict.fromkeys(target.dtype for target, _ in pairs):
        alike = [pair for pair in pairs if pair[0].dtype == dtype]
        torch._foreach_copy_([target for target, _ in alike], [source for _, source in alike])


def _averaged(network: nn.Module, weights: bool) -> list[Tensor]:
    statistics = [b for name, b in network.named_buffers() if name.endswith(("running_mean", "running_var"))]
    return [*network.parameters(), *statistics] if weights else statistics


def _copied(network: nn.Module) -> list[Tensor]:
    return [b for name, b in network.named_buffers() if not name.endswith(("running_mean", "running_var"))]


class Trained(Protocol):
    """What every kind of training state has: enough to count its steps, and to capture one."""

    opt_g: torch.optim.Optimizer
    opt_d: torch.optim.Optimizer
    scalers: dict[str, torch.amp.GradScaler]
    generator: torch.Generator
    step: int

    @property
    def device(self) -> torch.device: ...

    def modules(self) -> Iterable[nn.Module]:
        """Every network whose parameters or buffers a step changes."""


@dataclass
class TrainingState:
    """Everything that changes while training; ``state_dict`` and back is exact.

    What the configuration decides (learning rate, betas) is not restored: a resumed run may change it.

    Attributes:
        generator: source of every random number of the iterations, on the device.
        scalers: loss scalers of D and G (fp16), disabled otherwise.
        step: finished iterations, which is also the position in the data.
    """

    networks: Networks
    opt_g: torch.optim.Optimizer
    opt_d: torch.optim.Optimizer
    scalers: dict[str, torch.amp.GradScaler]
    generator: torch.Generator
    step: int = 0

    @property
    def device(self) -> torch.device:
        return self.networks.device

    def modules(self) -> Iterable[nn.Module]:
        return self.networks.generator, self.networks.discriminator, self.networks.ema

    def state_dict(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "generator": self.networks.generator.state_dict(),
            "discriminator": self.networks.discriminator.state_dict(),
            "ema": self.networks.ema.state_dict(),
            "opt_g": self.opt_g.state_dict(),
            "opt_d": self.opt_d.state_dict(),
            "scalers": {name: scaler.state_dict() for name, scaler in self.scalers.items()},
            "random": self._random_states(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.networks.generator.load_state_dict(state["generator"])
        self.networks.discriminator.load_state_dict(state["discriminator"])
        self.networks.ema.load_state_dict(state["ema"])
        load_optimizer(self.opt_g, state["opt_g"])
        load_optimizer(self.opt_d, state["opt_d"])
        for name, scaler in self.scalers.items():
            if scaler.is_enabled() and state["scalers"][name]:
                scaler.load_state_dict(state["scalers"][name])
        self._set_random_states(state["random"])
        self.step = state["step"]

    def _random_states(self) -> dict[str, Any]:
        states = {
            "device": self.generator.device.type,
            "draws": self.generator.get_state(),
            "cpu": torch.get_rng_state(),
        }
        if self.generator.device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self.generator.device)
        return states

    def _set_random_states(self, states: dict[str, Any]) -> None:
        torch.set_rng_state(states["cpu"])
        if states["device"] != self.generator.device.type:
            return  # another kind of device has another generator: its sequence starts from the seed
        self.generator.set_state(states["draws"])
        if "cuda" in states:
            torch.cuda.set_rng_state(states["cuda"], self.generator.device)


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """The moments of ``state``, under the optimizer's own learning rate, betas and implementation."""
    own = optimizer.state_dict()["param_groups"]
    groups = [{**now, "params": saved["params"]} for now, saved in zip(own, state["param_groups"], strict=True)]
    optimizer.load_state_dict({**state, "param_groups": groups})
