"""What one tick of training tells: the record that the screen, the JSONL file and TensorBoard share."""

import sys
from dataclasses import asdict, dataclass

import torch

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Memory of the process on the training device, GiB.

    used: the peak so far, of live tensors (CUDA) or of the resident set (CPU, where nothing else is known).
    reserved: what PyTorch's allocator holds now. budget: the card's memory.
    """

    used: float
    reserved: float | None = None
    budget: float | None = None


@dataclass(frozen=True, kw_only=True)
class TickReport:
    """Averages over the steps since the last tick."""

    step: int
    steps: int
    images_per_second: float
    ms_step: float
    ms_data: float
    ms_d: float | None
    ms_g: float | None
    """Of the D and the G step; None where one CUDA graph holds both."""
    memory: Memory
    losses: dict[str, float]
    seconds_left: float
    scale: float | None = None
    """Loss scale of fp16, where one is used."""
    skipped: int = 0
    """Optimizer steps skipped since the start because a gradient overflowed (fp16)."""

    def record(self) -> dict[str, object]:
        """Flat and ready for JSON."""
        values = asdict(self)
        memory, losses = values.pop("memory"), values.pop("losses")
        values |= {f"memory_{name}_gib": value for name, value in memory.items() if value is not None}
        return values | {f"loss_{name}": value for name, value in losses.items()}


def read_memory(device: torch.device) -> Memory:
    """What ``Memory`` tells, now."""
    if device.type == "cuda":
        _, total = torch.cuda.mem_get_info(device)
        return Memory(
            used=torch.cuda.max_memory_allocated(device) / GIB,
            reserved=torch.cuda.memory_reserved(device) / GIB,
            budget=total / GIB,
        )
    return Memory(used=_peak_resident() / GIB)


def _peak_resident() -> float:
    """The process's largest resident set so far, bytes; 0 where the platform does not tell."""
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)
