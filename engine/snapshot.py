"""A snapshot: the averaged generator alone, in one safetensors file that describes itself."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from fastgan_engine.atomic import atomic_write
from fastgan_engine.errors import UserError, first_line
from fastgan_engine.networks import Generator

FORMAT = "fastgan-engine snapshot"
VERSION = 1


@dataclass(frozen=True)
class Snapshot:
    """A generator in evaluation mode, and the training step it is of."""

    generator: Generator
    step: int


def save_snapshot(path: Path, generator: Generator, *, step: int, card: Mapping[str, str] | None = None) -> None:
    """Writes weights, batch-norm statistics and what ``Generator`` was constructed with; whole or not at all.

    card: more metadata, for people and other programs.
    """
    metadata = {
        **(card or {}),
        "format": FORMAT,
        "version": str(VERSION),
        "step": str(step),
        "generator": json.dumps(constructor_arguments(generator)),
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in generator.state_dict().items()}
    with atomic_write(path) as temporary:
        temporary.write_bytes(save(tensors, metadata))


def load_snapshot(path: Path, device: torch.device | str = "cpu") -> Snapshot:
    """Reads what ``save_snapshot`` wrote.

    Raises:
        UserError: no such file, not a snapshot, damaged, or of another version.
    """
    try:
        with safe_open(path, "pt", device="cpu") as file:
            metadata = file.metadata() or {}
            _check_metadata(path, metadata)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is not a mapping)
    except OSError as error:
        raise UserError(f"cannot read the snapshot {path}: {error.strerror or error}") from None
    except SafetensorError as error:
        raise UserError(
            f"{path} is no whole safetensors file ({error}); a copy may have been cut short: copy it again, "
            f"or take an older snapshot of the run"
        ) from None
    try:
        arguments, step = json.loads(metadata["generator"]), int(metadata["step"])
        _check_tensors(arguments, tensors)
        generator = build_generator(arguments)
        generator.load_state_dict(tensors)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"the snapshot {path} is damaged: {first_line(error)}") from None
    return Snapshot(generator.eval().to(device), step)


def _check_metadata(path: Path, metadata: dict[str, str]) -> None:
    if metadata.get("format") != FORMAT:
        raise UserError(f"{path} is a safetensors file, but not a snapshot of fastgan-engine")
    if metadata.get("version") != str(VERSION):
        raise UserError(
            f"the snapshot {path} has format version {metadata.get('version')}, this engine reads {VERSION}; "
            f"install the version of fastgan-engine that wrote it, or a newer one"
        )


def _check_tensors(arguments: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    """Raises ValueError, before any memory is taken, where the weights are not those of such a generator."""
    with torch.device("meta"):
        expected = build_generator(arguments).state_dict()
    if {name: x.shape for name, x in tensors.items()} != {name: x.shape for name, x in expected.items()}:
        raise ValueError(f"its weights are not those of the generator that it names, {arguments}")
    if not all(tensor.isfinite().all() for tensor in tensors.values()):
        raise ValueError("some of its weights are not finite")


def constructor_arguments(generator: Generator) -> dict[str, Any]:
    """What ``Generator(**arguments)`` needs to be built like this one."""
    return {name: getattr(generator, name) for name in ("im_size", "nz", "ngf", "nc", "skip", "tanh")}


def build_generator(arguments: dict[str, Any]) -> Generator:
    """A generator whose weights are about to be loaded: its initialisation leaves the global random state alone."""
    with torch.random.fork_rng(devices=[]):
        return Generator(**arguments)
