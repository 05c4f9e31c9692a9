"""What this machine has: graphics cards by NVML and PyTorch, the profile and precision that suit them.

Devices are matched by UUID: NVML and CUDA may number them differently.
"""

import re
import warnings
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from fastgan_engine import profiles
from fastgan_engine.errors import UserError
from fastgan_engine.nvml import GIB, Gpu, nvml_devices, plain_uuid

if TYPE_CHECKING:
    import torch

    from fastgan_engine.config import Config


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """The machine's cards, PyTorch's first in its order; and what could not be read, one line each."""

    gpus: list[Gpu]
    driver: str | None
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The profile for this machine and one line that says why."""

    profile: str
    reason: str


def detect() -> Hardware:
    """Look at the machine. Raises nothing for what is missing: `problems` says it."""
    seen, driver, problems = nvml_devices()
    by_uuid = {gpu.uuid: gpu for gpu in seen}
    gpus = []
    for gpu in _cuda_devices(problems):
        more = by_uuid.pop(gpu.uuid, None)
        gpus.append(replace(more, cuda_index=gpu.cuda_index) if more else gpu)
    return Hardware(gpus=gpus + list(by_uuid.values()), driver=driver, problems=problems)


def _cuda_devices(problems: list[str]) -> list[Gpu]:
    """The cards PyTorch sees."""
    try:
        import torch

        with warnings.catch_warnings(record=True) as caught:  # PyTorch warns of a driver that is too old
            warnings.simplefilter("always")
            available = torch.cuda.is_available()
        problems += [f"PyTorch: {warning.message}" for warning in caught]
        if not available:
            return []
        found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    except (ImportError, OSError, RuntimeError) as error:
        problems.append(f"PyTorch: {error}")
        return []
    return [
        Gpu(
            name=properties.name,
            capability=(properties.major, properties.minor),
            total_bytes=properties.total_memory,
            uuid=plain_uuid(properties.uuid),
            cuda_index=index if built_for((properties.major, properties.minor), torch.cuda.get_arch_list()) else None,
        )
        for index, properties in enumerate(found)
    ]


def built_for(capability: tuple[int, int], arch_list: list[str]) -> bool:
    """Whether code for `arch_list` (`torch.cuda.get_arch_list()`) runs on a card of that compute capability.

    Machine code (``sm_80``) runs on the same major version from its minor up, PTX (``compute_120``) on anything newer.
    Source: CUDA C++ Programming Guide, "Binary Compatibility" and "PTX Compatibility".
    """
    for arch in arch_list:
        if parts := re.fullmatch(r"(sm|compute)_(\d+)[a-z]?", arch):
            major, minor = divmod(int(parts[2]), 10)
            if (major, minor) <= capability and (parts[1] == "compute" or major == capability[0]):
                return True
    return False


def choose_profile(device: str = "auto", machine: Hardware | None = None) -> Choice:
    """The shipped profile for `device` (auto, cpu, cuda, cuda:N) of `machine`; None: this one.

    By the card's name, else the nearest in precision, compute capability and memory, in this order.
    Raises UserError when cuda:N does not exist.
    """
    if device == "cpu":
        return Choice(profile="cpu", reason='profile cpu: engine.device is "cpu"')
    gpus = (machine or detect()).gpus
    usable = {gpu.cuda_index: gpu for gpu in gpus if gpu.cuda_index is not None}
    if not usable:
        idle = f" ({gpus[0]} is there, but PyTorch cannot use it: run `fastgan-engine doctor`)" if gpus else ""
        return Choice(profile="cpu", reason=f"profile cpu: no CUDA device{idle}")
    number = re.fullmatch(r"cuda:(\d+)", device)
    index = int(number[1]) if number else min(usable)
    if index not in usable:
        there = ", ".join(f"cuda:{index} {gpu}" for index, gpu in usable.items())
        raise UserError(f"engine.device = {device}: not among the CUDA devices PyTorch can use: {there}")
    return profile_for(usable[index])


def profile_for(gpu: Gpu) -> Choice:
    """The profile of a card: by name, else the nearest one."""
    cards = {name: card for name in profiles.names() if (card := profiles.card(name))}
    for name, card in cards.items():
        if re.search(rf"\b{re.escape(card.name)}\b", gpu.name, re.IGNORECASE):
            return Choice(profile=name, reason=f"profile {name}: found {gpu}")
    name = min(cards, key=lambda name: (*_distance(gpu, cards[name]), name))
    card = cards[name]
    reason = f"no profile for {gpu}: taking the nearest, {name} ({card.name}, {card.arch}, {card.memory_gib:g} GiB)"
    if gpu.total_bytes < 0.9 * card.memory_gib * GIB:
        reason += "; this card has less memory: should it run out, lower train.micro_batch"
    return Choice(profile=name, reason=reason)


def _distance(gpu: Gpu, card: profiles.Card) -> tuple[bool, int, float]:
    """Whether the fastest precision differs (8.0 is nearer to 7.5 than to 8.6, but has bf16), then capability, GiB."""
    mine, theirs = gpu.capability or (0, 0), card.capability
    gap = abs(10 * (mine[0] - theirs[0]) + mine[1] - theirs[1])
    return dtype_for(mine) != dtype_for(theirs), gap, abs(gpu.total_bytes / GIB - card.memory_gib)


def pick_device(setting: str) -> "torch.device":
    """`engine.device` -> the device. Raises UserError when it asks for CUDA that PyTorch cannot use."""
    import torch

    usable = sorted(gpu.cuda_index for gpu in _cuda_devices([]) if gpu.cuda_index is not None)
    if setting == "auto":
        return torch.device("cuda", usable[0]) if usable else torch.device("cpu")
    device = torch.device(setting)
    if device.type == "cuda" and (device.index or 0) not in usable:
        raise UserError(
            f"engine.device = {setting}: PyTorch {torch.__version__} can use {len(usable)} CUDA devices here; "
            "run `fastgan-engine doctor` for the reason, or train with --profile cpu"
        )
    return device


def pick_dtype(setting: str, device: "torch.device") -> "torch.dtype":
    """`precision.dtype` -> the compute dtype on `device`. Raises UserError for bf16 on a card that emulates it."""
    import torch

    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else None
    if setting == "bf16" and capability is not None and capability < (8, 0):
        raise UserError(
            f"precision.dtype = bf16 needs compute capability 8.0, but {torch.cuda.get_device_name(device)} "
            f"has {capability[0]}.{capability[1]}; take {dtype_for(capability)} or auto"
        )
    if setting == "auto":
        setting = dtype_for(capability) if capability is not None else cpu_dtype()
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[setting]


def dtype_for(capability: tuple[int, int]) -> str:
    """The fastest precision a card computes natively.

    `torch.cuda.is_bf16_supported` is no guide: it also counts emulation, on cards whose cuDNN has no bf16 convolutions.
    """
    if capability >= (8, 0):
        return "bf16"
    return "fp16" if capability >= (7, 0) else "fp32"


def cpu_dtype() -> str:
    """bf16 where the CPU multiplies matrices in it (AMX), else fp32.

    AVX512-BF16 alone is not enough: on such a CPU without AMX, channels-last convolutions of FastGAN's shapes ran at 80
    to 90 GFLOP/s a core in bf16 and at 130 to 165 in fp32 (torch 2.14).
    """
    import torch

    # Private, and not in every version of torch: without it fp32 is safe.
    return "bf16" if getattr(torch.cpu, "_is_amx_tile_supported", bool)() else "fp32"


def describe_device(config: "Config") -> str:
    """Such as "cpu (2 threads), bfloat16" or "NVIDIA H200, bfloat16": what a run computes on and in."""
    import torch

    device = pick_device(config.engine.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({torch.get_num_threads()} threads)"
    return f"{name}, {str(pick_dtype(config.precision.dtype, device)).removeprefix('torch.')}"
