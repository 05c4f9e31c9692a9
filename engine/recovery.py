"""After a step that failed: how the run goes on from its last checkpoint, and what the user is told."""

from dataclasses import dataclass

import torch

from fastgan_engine.config import Config
from fastgan_engine.errors import UserError
from fastgan_engine.memory.fit import with_settings
from fastgan_engine.ticker import NotFiniteLossError


@dataclass(frozen=True)
class Remedy:
    """What went wrong, the configuration to go on with, and what is different under it."""

    problem: str
    config: Config
    how: str

    def told(self, restored: int) -> str:
        """What the user reads; ``restored`` is the step gone back to."""
        return f"{self.problem}: going on from step {restored:,} {self.how}"


def smaller(config: Config, step: int, device: torch.device) -> Remedy:
    """The next smaller micro-batch, after running out of memory in ``step``.

    Raises:
        UserError: there is none; the message says what is left to do.
    """
    now = config.train.batch // config.train.accumulation
    if now == 1 or config.engine.step == "compile":
        raise UserError(
            f"out of memory on {device} with {now} image(s) of {config.model.im_size} x {config.model.im_size} at "
            f"once, and smaller is not possible. Free some (`fastgan-engine doctor` names who uses it), take a smaller "
            f"--im-size, or see what fits: `fastgan-engine plan --fit`. The last checkpoint is kept"
        )
    size = next(size for size in range(now - 1, 0, -1) if config.train.batch % size == 0)
    return Remedy(
        f"out of memory on {device} in step {step:,}",
        with_settings(config, {"train.micro_batch": size}),
        f"with micro-batch {size} in place of {now}; batch norm now sees {size} image(s) at a time. "
        f"`fastgan-engine plan --fit` finds gentler means",
    )


def steadier(config: Config, error: NotFiniteLossError, dtype: torch.dtype) -> Remedy:
    """fp32, after a loss that was not finite in half precision. In fp32 there is nothing left to try: once only.

    Raises:
        NotFiniteLossError: it happened in fp32.
    """
    if dtype == torch.float32:
        raise error
    return Remedy(
        f"the loss {error.loss} became {error.value} before step {error.step:,} in {_short(dtype)}",
        with_settings(config, {"precision.dtype": "fp32"}),
        "in fp32, which is slower",
    )


def _short(dtype: torch.dtype) -> str:
    return {torch.float16: "fp16", torch.bfloat16: "bf16"}[dtype]
