"""A source of batches without images: what the one that ``open_source`` would take holds on the device."""

from collections.abc import Iterator

import torch
from torch import Tensor

from fastgan_engine.config import Config
from fastgan_engine.kernels.batch import gather_batch, to_float
from fastgan_engine.sources import Source, is_resident


class PlannedSource(Source):
    """Of a set of ``images`` images: all of them on the device, or the batch of bytes in use and the one ahead."""

    reason = "planned"

    def __init__(self, config: Config, images: int) -> None:
        size, batch = config.model.im_size, config.train.batch
        self.impl, self.resident = config.engine.kernels, is_resident(config, images)
        held = images if self.resident else 2 * batch
        self.held = torch.empty(held, size, size, config.model.nc, dtype=torch.uint8)
        self.indices = torch.empty(batch, dtype=torch.int64)
        self.flips = torch.empty(batch, dtype=torch.bool)

    def fetch(self) -> None:
        return

    def reals(self) -> Tensor:
        if self.resident:
            return gather_batch(self.held, self.indices, self.flips, torch.float32, impl=self.impl)
        return to_float(self.held[: len(self.indices)], torch.float32)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        yield "resident images" if self.resident else "batches of bytes", self.held
        if self.resident:
            yield from (("indices", self.indices), ("flips", self.flips))
