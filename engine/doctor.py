"""What training needs on this machine: what is there, what is not, what is used instead, what to install.

Nothing here may crash: each check runs alone, and one that fails is itself a finding.
"""

import importlib
import os
import platform
import shutil
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Literal

from fastgan_engine import hardware
from fastgan_engine.hardware import GIB, Gpu, Hardware

Status = Literal["ok", "fallback", "missing"]

DISK_NEEDED = 2 * GIB
"""A run with the default settings: two checkpoints of about 0.6 GiB each, snapshots and sample grids."""

TRITON_CAPABILITY = (7, 5)
"""The oldest compute capability that the kernels are compiled for."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One finding. ok: used as it is; fallback: training works without it; missing: training cannot work."""

    name: str
    status: Status
    found: str
    effect: str = ""
    """What happens because of it, such as what is used instead."""
    remedy: str = ""
    """What to install or do."""


def diagnose(weights_dir: Path | None = None, out: Path = Path()) -> list[Check]:
    """Every check, in the order in which they matter.

    weights_dir: a folder that may hold LPIPS's backbone weights; out: where runs are written.
    """
    machine = hardware.detect()
    checks: dict[str, Callable[[], Check]] = {
        "python": _python,
        "cpu": _cpu,
        "torch": _torch,
        "driver": partial(_driver, machine),
        **{f"gpu {index}": partial(_gpu, gpu, f"gpu {index}") for index, gpu in enumerate(machine.gpus)},
        "profile": partial(_profile, machine),
        "triton": partial(_triton, machine),
        "compiler": _compiler,
        "dali": _dali,
        "lpips": _lpips,
        "lpips weights": partial(_lpips_weights, weights_dir),
        "apex": _apex,
        "disk": partial(_disk, out),
    }
    return [_guarded(name, check) for name, check in checks.items()]


def can_train(checks: list[Check]) -> bool:
    """Whether nothing indispensable is missing."""
    return all(check.status != "missing" for check in checks)


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return check()
    except Exception as error:  # whatever a damaged installation raises is what this command is for
        status: Status = "missing" if name == "torch" else "fallback"
        remedy = f"install {error.name}" if isinstance(error, ModuleNotFoundError) else "reinstall it"
        return Check(name=name, status=status, found=f"failed: {type(error).__name__}: {error}", remedy=remedy)


def _python() -> Check:
    return Check(name="python", status="ok", found=f"{platform.python_version()} ({sys.executable})")


def _cpu() -> Check:
    import torch

    found = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return Check(
        name="cpu", status="ok", found=f"{found}, {torch.backends.cpu.get_cpu_capability()}, {hardware.cpu_dtype()}"
    )


def _torch() -> Check:
    try:
        import torch
    except ImportError as error:
        return Check(
            name="torch",
            status="missing",
            found=str(error),
            effect="nothing can run",
            remedy="pip install torch (pytorch.org names the command for your system)",
        )
    build = f"CUDA {torch.version.cuda} build" if torch.version.cuda else "CPU build"
    return Check(name="torch", status="ok", found=f"{torch.__version__}, {build}")


def _driver(machine: Hardware) -> Check:
    if machine.driver:
        return Check(name="driver", status="ok", found=machine.driver, effect="; ".join(machine.problems))
    return Check(
        name="driver",
        status="fallback",
        found="; ".join(machine.problems) or "none",
        effect="cards are found through PyTorch alone" if machine.gpus else "training runs on the CPU",
        remedy="with an NVIDIA card in this machine: install its driver (nvidia.com/drivers)",
    )


def _gpu(gpu: Gpu, name: str) -> Check:
    found = f"{gpu}{_memory_use(gpu)}"
    if gpu.cuda_index is not None and gpu.capability:
        dtype = hardware.dtype_for(gpu.capability)
        return Check(name=name, status="ok", found=f"cuda:{gpu.cuda_index} {found}", effect=f"trains in {dtype}")
    import torch

    if torch.version.cuda is None:
        reason, remedy = "PyTorch is a CPU build", "install a CUDA build of PyTorch (pytorch.org names the command)"
    elif not torch.cuda.is_available():
        reason = f"PyTorch's CUDA {torch.version.cuda} does not start"
        remedy = "update the NVIDIA driver, and look at CUDA_VISIBLE_DEVICES"
    else:
        reason = f"this PyTorch is built for {', '.join(torch.cuda.get_arch_list())}, not {gpu.arch}"
        remedy = "for cards older than sm_75 install a PyTorch build for CUDA 12.6, with a driver r580 or older"
    return Check(name=name, status="fallback", found=found, effect=f"not used: {reason}", remedy=remedy)


def _memory_use(gpu: Gpu) -> str:
    if gpu.free_bytes is None:
        return ""
    users = [f"{process.name or 'unknown'} (pid {process.pid}) {_gib(process.used_bytes)}" for process in gpu.processes]
    return f", {_gib(gpu.free_bytes)} free" + (f"; used by {', '.join(users)}" if users else "")


def _gib(count: int | None) -> str:
    return "of unknown size" if count is None else f"{count / GIB:.1f} GiB"


def _profile(machine: Hardware) -> Check:
    choice = hardware.choose_profile(machine=machine)
    return Check(name="profile", status="ok", found=choice.reason)


def _triton(machine: Hardware) -> Check:
    lost = "plain PyTorch operations are used instead of the fused kernels"
    version = _version_of("triton")
    usable = [gpu for gpu in machine.gpus if gpu.cuda_index is not None]
    if version is None:
        remedy = "pip install triton" if sys.platform == "linux" else "Triton is made for Linux (on Windows: WSL2)"
        return Check(name="triton", status="fallback", found="not installed", effect=lost, remedy=remedy)
    if not usable:
        return Check(name="triton", status="ok", found=version, effect="unused without a CUDA device")
    if all((gpu.capability or (0, 0)) < TRITON_CAPABILITY for gpu in usable):
        return Check(name="triton", status="fallback", found=version, effect=f"too new for {usable[0]}: {lost}")
    return Check(name="triton", status="ok", found=version)


def _compiler() -> Check:
    candidates = [os.environ.get("CC", ""), "gcc", "clang", "cc", "cl"]
    path = next((found for name in candidates if name and (found := shutil.which(name))), None)
    if path:
        return Check(name="compiler", status="ok", found=path)
    return Check(
        name="compiler",
        status="fallback",
        found="no C compiler (gcc, clang, or the one that CC names)",
        effect="Triton and torch.compile cannot build their launchers: plain PyTorch operations are used",
        remedy="install gcc (Debian, Ubuntu: apt install gcc)",
    )


def _dali() -> Check:
    version = _version_of("nvidia.dali")
    if version is not None:
        return Check(name="dali", status="ok", found=version)
    return Check(
        name="dali",
        status="fallback",
        found="not installed",
        effect="images are decoded with Pillow",
        remedy="pip install nvidia-dali-cuda130" if sys.platform == "linux" else "DALI runs on Linux and WSL2 only",
    )


def _lpips() -> Check:
    if _version_of("lpips") is not None:  # imported for a damaged install to show; it does not carry its version
        return Check(name="lpips", status="ok", found=_distribution_version("lpips") or "installed")
    return Check(
        name="lpips",
        status="fallback",
        found="not installed",
        effect="loss.reconstruction lpips-vgg and lpips-squeeze cannot be used; l1 can",
        remedy="pip install lpips",
    )


def _lpips_weights(weights_dir: Path | None) -> Check:
    from fastgan_engine.perceptual import TRUNKS, cache_dir, find_trunk

    path = find_trunk("vgg", weights_dir)
    if path:
        return Check(name="lpips weights", status="ok", found=str(path))
    folders = [folder for folder in (weights_dir, cache_dir()) if folder]
    source = TRUNKS["vgg"]
    return Check(
        name="lpips weights",
        status="fallback",
        found=f"no {source.file} in {' or '.join(map(str, folders))}",
        effect="downloaded at the first training with lpips-vgg (528 MiB)",
        remedy=f"without a connection: put {source.url} into one of these folders, or train with l1",
    )


def _apex() -> Check:
    try:
        importlib.import_module("amp_C")
    except ImportError:
        pass
    else:
        return Check(name="apex", status="ok", found="NVIDIA's apex", effect='engine.optimizer "apex" can be used')
    found, effect = "not installed (optional)", "torch.optim.Adam is used"
    if version := _distribution_version("apex"):
        found = f"apex {version}, but not NVIDIA's: it has no amp_C"
        effect = f"{effect}; the package registry's apex is an unrelated project of the same name"
    return Check(
        name="apex",
        status="fallback",
        found=found,
        effect=effect,
        remedy="nothing to do; NVIDIA's is built from source: github.com/NVIDIA/apex",
    )


def _disk(out: Path) -> Check:
    out = out.absolute()
    folder = next(parent for parent in (out, *out.parents) if parent.exists())
    free = shutil.disk_usage(folder).free
    if free >= DISK_NEEDED:
        return Check(name="disk", status="ok", found=f"{_gib(free)} free at {folder}")
    return Check(
        name="disk",
        status="fallback",
        found=f"{_gib(free)} free at {folder}",
        effect=f"a run may need {_gib(DISK_NEEDED)}",
        remedy="free some space, write elsewhere with --out, or keep fewer checkpoints with --set log.keep=1",
    )


def _version_of(module: str) -> str | None:
    """The version of a module that imports, None where it is not installed. Raises what a damaged one raises."""
    try:
        return str(getattr(importlib.import_module(module), "__version__", "installed"))
    except ModuleNotFoundError as error:
        # Its own absence is one thing, that of something it needs another: the caller reports the latter.
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        return None


def _distribution_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
