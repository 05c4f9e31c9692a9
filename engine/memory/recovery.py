"""After running out of memory in flight: which smaller run to go on with, and what to say."""

import torch

from fastgan_engine.config import Config
from fastgan_engine.errors import UserError
from fastgan_engine.memory.fit import with_settings


def smaller(config: Config, device: torch.device) -> Config:
    """The configuration with the next smaller micro-batch.

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
    return with_settings(config, {"train.micro_batch": size})


def going_on(before: Config, after: Config, *, failed: int, restored: int, device: torch.device) -> str:
    """What the user is told: ``failed`` is the step that ran out of memory, ``restored`` the one gone back to."""
    was, now = (config.train.batch // config.train.accumulation for config in (before, after))
    return (
        f"out of memory on {device} in step {failed:,}: going on from step {restored:,} with micro-batch {now} in "
        f"place of {was}; batch norm now sees {now} image(s) at a time. `fastgan-engine plan --fit` finds gentler means"
    )
