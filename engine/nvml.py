"""The graphics cards as NVML sees them.

NVML (``pynvml``) is optional; it adds the memory in use, the processes and the driver to what PyTorch knows, and sees
cards that this PyTorch build cannot use.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class GpuProcess:
    """A process that holds GPU memory. `name` and `used_bytes` are None where the driver does not tell (WDDM)."""

    pid: int
    name: str | None
    used_bytes: int | None


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One graphics card. Memory in bytes; None: unknown."""

    name: str
    capability: tuple[int, int] | None
    total_bytes: int
    used_bytes: int | None = None
    free_bytes: int | None = None
    uuid: str = ""
    cuda_index: int | None = None
    """N of ``cuda:N``; None: this PyTorch cannot use the card (no CUDA, or not built for its architecture)."""
    processes: tuple[GpuProcess, ...] = ()

    @property
    def arch(self) -> str:
        """Such as ``sm_75``."""
        return "sm_" + "".join(map(str, self.capability)) if self.capability else "unknown architecture"

    def __str__(self) -> str:
        return f"{self.name} ({self.arch}, {self.total_bytes / GIB:.1f} GiB)"


@contextmanager
def _opened() -> Iterator[Any]:
    import pynvml

    pynvml.nvmlInit()
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def nvml_devices() -> tuple[list[Gpu], str | None, list[str]]:
    """Cards, driver version and problems according to NVML."""
    gpus, driver, problems = [], None, []
    try:
        with _opened() as nvml:
            driver = _text(nvml.nvmlSystemGetDriverVersion())
            for index in range(nvml.nvmlDeviceGetCount()):
                try:
                    gpus.append(_device(nvml, nvml.nvmlDeviceGetHandleByIndex(index)))
                except nvml.NVMLError as error:
                    problems.append(f"NVML, card {index}: {error}")
    except ImportError:
        problems.append("NVML: the package nvidia-ml-py is not installed")
    except Exception as error:  # NVMLError, and whatever a damaged driver library raises while loading
        problems.append(f"NVML: {error}")
    return gpus, driver, problems


def _device(nvml: Any, handle: Any) -> Gpu:
    memory = _memory(nvml, handle)
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    return Gpu(
        name=_text(nvml.nvmlDeviceGetName(handle)),
        capability=(major, minor),
        total_bytes=memory.total,
        used_bytes=memory.used,
        free_bytes=memory.free,
        uuid=plain_uuid(_text(nvml.nvmlDeviceGetUUID(handle))),
        processes=_processes(nvml, handle),
    )


def _memory(nvml: Any, handle: Any) -> Any:
    try:  # version 2 keeps the driver's reserve out of `used`
        return nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
    except (nvml.NVMLError, AttributeError, TypeError):
        return nvml.nvmlDeviceGetMemoryInfo(handle)


def _processes(nvml: Any, handle: Any) -> tuple[GpuProcess, ...]:
    processes = {}
    for query in (nvml.nvmlDeviceGetComputeRunningProcesses, nvml.nvmlDeviceGetGraphicsRunningProcesses):
        try:
            running = query(handle)
        except nvml.NVMLError:
            continue
        for process in running:
            processes[process.pid] = GpuProcess(
                pid=process.pid, name=_process_name(nvml, process.pid), used_bytes=process.usedGpuMemory
            )
    return tuple(sorted(processes.values(), key=lambda process: -(process.used_bytes or 0)))


def _process_name(nvml: Any, pid: int) -> str | None:
    try:
        return _text(nvml.nvmlSystemGetProcessName(pid))
    except nvml.NVMLError:
        return None


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def plain_uuid(uuid: object) -> str:
    return str(uuid).removeprefix("GPU-").lower()
