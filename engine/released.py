"""Checkpoints of the released FastGAN code: read into our networks, and written so that the released code reads them.

Two kinds of file, both plain dictionaries of state dicts:
``N.pth`` = {g, d}, where g holds the averaged weights, and ``all_N.pth`` = {g, d, g_ema, opt_g, opt_d}, where g holds
the live weights and g_ema is the list of the averaged ones in parameter order. A bare state dict of G is read too. Keys
may carry the ``module.`` prefix of ``torch.nn.DataParallel``. State-dict keys are those of our networks.
"""

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from fastgan_engine.atomic import atomic_write
from fastgan_engine.errors import UserError
from fastgan_engine.networks import IM_SIZES, Discriminator, Generator
from fastgan_engine.recalibration import recalibrate
from fastgan_engine.safe_load import safe_load
from fastgan_engine.snapshot import build_generator, constructor_arguments

PREFIX = "module."
SHOWN_KEYS = 4
# How an optimizer is executed: PyTorch's defaults, as in released files.
IMPLEMENTATION = {"fused": None, "foreach": None, "capturable": False}

State = dict[str, Tensor]
Network = TypeVar("Network", Generator, Discriminator)


@dataclass
class Released:
    """What a released checkpoint holds. Networks are in training mode, in which the released code samples.

    Attributes:
        generator: G with the weights of ``g``.
        discriminator: None where the file has none.
        averaged: the weights of ``g_ema`` by name; None where the file has none, since ``g`` then is the average.
        opt_g, opt_d: Adam's state dicts, in the parameter order of ``generator`` and ``discriminator``.
        step: iterations that Adam has counted; None without its state. (The file's name is not trusted.)
    """

    generator: Generator
    discriminator: Discriminator | None = None
    averaged: State | None = None
    opt_g: dict[str, Any] | None = None
    opt_d: dict[str, Any] | None = None
    step: int | None = None

    @cached_property
    def ema(self) -> Generator:
        """The averaged generator in evaluation mode, made at the first use.

        Released files hold no batch-norm statistics of the averaged weights: they are measured here, which takes some
        seconds (see ``recalibrate``).
        """
        with torch.no_grad():
            ema = _clone(self.generator)
            for name, parameter in ema.named_parameters():
                parameter.requires_grad_(False)
                if self.averaged is not None:
                    parameter.copy_(self.averaged[name])
        recalibrate(ema)
        return ema.eval()


def load_released(path: Path | str, device: torch.device | str = "cpu") -> Released:
    """Reads a checkpoint of the released code; sizes are inferred from the shapes.

    Raises:
        UserError: no such file, damaged, or not a FastGAN checkpoint (keys and shapes that differ are named).
    """
    path = Path(path)
    content = _read(path)
    g = _state_dict(path, "g", content["g"])
    generator = _fill(path, "g", _build_generator(path, g), g)
    released = Released(generator.to(device))
    if "d" in content:
        d = _state_dict(path, "d", content["d"])
        discriminator = _fill(path, "d", _build_discriminator(path, d, generator), d)
        released.discriminator = discriminator.to(device)
        released.opt_d = _optimizer(path, "opt_d", content.get("opt_d"), d, discriminator)
    released.opt_g = _optimizer(path, "opt_g", content.get("opt_g"), g, generator)
    if content.get("g_ema") is not None:
        released.averaged = _averaged(path, content["g_ema"], g, generator)
    released.step = _step(released.opt_g)
    return released


def save_released(
    path: Path,
    generator: Generator,
    discriminator: Discriminator | None = None,
    *,
    ema: Generator | None = None,
    opt_g: Mapping[str, Any] | None = None,
    opt_d: Mapping[str, Any] | None = None,
) -> None:
    """Writes a file for the released code; whole or not at all.

    {g, d} of an averaged generator and its discriminator; with ``ema`` and the optimizers' state dicts, {g, d, g_ema,
    opt_g, opt_d} of a live generator. What is None is left out (the released code samples from g alone).
    """
    content: dict[str, Any] = {"g": _plain_state(generator)}
    if discriminator is not None:
        content["d"] = _plain_state(discriminator)
    if ema is not None:
        content["g_ema"] = [_plain(parameter) for parameter in ema.parameters()]
    for name, optimizer in (("opt_g", opt_g), ("opt_d", opt_d)):
        if optimizer is not None:
            content[name] = _plain_optimizer(optimizer)
    with atomic_write(path) as temporary:
        torch.save(content, temporary)


def _read(path: Path) -> dict[str, Any]:
    """The entries of a file; those of a bare generator under "g"."""
    try:
        content = safe_load(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise UserError(f"cannot read {path}: {error}; expected a .pth of the released FastGAN code") from None
    if isinstance(content, dict) and content and all(isinstance(value, Tensor) for value in content.values()):
        return {"g": content}
    if not isinstance(content, dict) or not isinstance(content.get("g"), dict):
        raise UserError(
            f"{path} is not a checkpoint of the released FastGAN code: it holds {_describe(content)}, expected a "
            f"dictionary with g and d (and g_ema, opt_g, opt_d). For a checkpoint of fastgan-engine, give its run's "
            f"folder"
        )
    return content


def _describe(content: object) -> str:
    if isinstance(content, dict):
        return f"a dictionary with {_some(sorted(map(str, content)))}" if content else "an empty dictionary"
    return f"a {type(content).__name__}"


def _state_dict(path: Path, entry: str, value: object) -> State:
    """Tensors by name without the prefix of DataParallel, in the file's order."""
    if not isinstance(value, dict) or not all(isinstance(tensor, Tensor) for tensor in value.values()):
        raise UserError(f"{path}: {entry} is not a state dict (a dictionary of tensors) but {_describe(value)}")
    while value and all(key.startswith(PREFIX) for key in value):
        value = {key.removeprefix(PREFIX): tensor for key, tensor in value.items()}
    return dict(value)


def _build_generator(path: Path, state: State) -> Generator:
    sizes = [int(match[1]) for key in state if (match := re.match(r"feat_(\d+)\.", key))]
    im_size = max(sizes, default=0)
    if im_size not in IM_SIZES:
        raise UserError(
            f"{path}: g is not a FastGAN generator: its last block is {f'feat_{im_size}' if im_size else 'missing'}, "
            f"expected one of feat_{', feat_'.join(map(str, IM_SIZES))}"
        )
    nz, double_width = _shape(path, "g", state, "init.init.0.weight_orig")[:2]
    nc = _shape(path, "g", state, "to_big.weight_orig")[0]
    skip = any(key.startswith("se_") for key in state)
    with torch.random.fork_rng(devices=[]):
        return Generator(im_size, nz=nz, ngf=max(1, double_width // 32), nc=nc, skip=skip)


def _build_discriminator(path: Path, state: State, generator: Generator) -> Discriminator:
    width = _shape(path, "d", state, "rf_small.weight_orig")[1]
    skip = any(key.startswith("se_") for key in state)
    decode = any(key.startswith("decoder_") for key in state)
    with torch.random.fork_rng(devices=[]):
        return Discriminator(generator.im_size, ndf=max(1, width // 4), nc=generator.nc, skip=skip, decode=decode)


def _shape(path: Path, entry: str, state: State, key: str) -> torch.Size:
    if key not in state or state[key].ndim != 4:
        raise UserError(f"{path}: {entry} is not a FastGAN network: it has no convolution {key}")
    return state[key].shape


def _fill(path: Path, entry: str, network: Network, state: State) -> Network:
    expected = network.state_dict()
    missing = [key for key in expected if key not in state]
    unexpected = [key for key in state if key not in expected]
    shapes = [
        f"{key} {list(state[key].shape)} (expected {list(tensor.shape)})"
        for key, tensor in expected.items()
        if key in state and state[key].shape != tensor.shape
    ]
    found = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    problems = [f"{kind}: {_some(keys)}" for kind, keys in found.items() if keys]
    if problems:
        raise UserError(f"{path}: {entry} does not fit the released {type(network).__name__}; {'; '.join(problems)}")
    network.load_state_dict(state)
    return network


def _some(keys: list[str]) -> str:
    more = f" and {len(keys) - SHOWN_KEYS} more" if len(keys) > SHOWN_KEYS else ""
    return ", ".join(keys[:SHOWN_KEYS]) + more


def _parameter_names(network: nn.Module, state: State) -> list[str]:
    """The network's parameters in the file's order: that of the module that wrote it."""
    known = {name for name, _ in network.named_parameters()}
    return [name for name in state if name in known]


def _averaged(path: Path, tensors: object, state: State, generator: Generator) -> State:
    names = _parameter_names(generator, state)
    if not isinstance(tensors, list) or len(tensors) != len(names):
        got = f"{len(tensors)} entries" if isinstance(tensors, list) else _describe(tensors)
        raise UserError(f"{path}: g_ema has {got}, expected a list of {len(names)} tensors")
    averaged = dict(zip(names, tensors, strict=True))
    for name, tensor in averaged.items():
        shape = list(tensor.shape) if isinstance(tensor, Tensor) else None
        if shape != list(state[name].shape):
            raise UserError(
                f"{path}: g_ema is not in the order of g: {name} is {list(state[name].shape)} there, and here {shape}"
            )
    return averaged


def _optimizer(path: Path, entry: str, value: Any, state: State, network: nn.Module) -> dict[str, Any] | None:
    """Adam's state dict, renumbered from the file's parameter order to the network's."""
    if value is None:
        return None
    names = _parameter_names(network, state)
    try:
        (group,) = value["param_groups"]
        name_of = dict(zip(group["params"], names, strict=True))
        by_name = {name_of[index]: moments for index, moments in value["state"].items()}
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path}: {entry} is not the state of one Adam over the {len(names)} parameters") from None
    ours = [name for name, _ in network.named_parameters()]
    return {
        "state": {index: by_name[name] for index, name in enumerate(ours) if name in by_name},
        "param_groups": [{**group, "params": list(range(len(ours)))}],
    }


def _step(optimizer: dict[str, Any] | None) -> int | None:
    steps = [int(moments["step"]) for moments in optimizer["state"].values() if "step" in moments] if optimizer else []
    return max(steps, default=None)


def _clone(generator: Generator) -> Generator:
    """A copy. (After a forward, spectral norm's weights are part of a graph, which ``deepcopy`` refuses.)"""
    clone = build_generator(constructor_arguments(generator))
    clone.load_state_dict(generator.state_dict())
    return clone.to(next(generator.parameters()).device)


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous()


def _plain_state(network: nn.Module) -> dict[str, Tensor]:
    state = network.state_dict()
    for key, tensor in state.items():  # in place: keeps the versions that PyTorch notes beside the tensors
        state[key] = _plain(tensor)
    return state


def _plain_optimizer(optimizer: Mapping[str, Any]) -> dict[str, Any]:
    """On the CPU, and without the choice of an implementation, which belongs to the machine."""
    state = {
        index: {name: _plain(value) if isinstance(value, Tensor) else value for name, value in moments.items()}
        for index, moments in optimizer["state"].items()
    }
    groups = copy.deepcopy(optimizer["param_groups"])
    for group in groups:
        group.update({name: default for name, default in IMPLEMENTATION.items() if name in group})
    return {"state": state, "param_groups": groups}
