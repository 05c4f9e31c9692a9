"""The latents of given images: what the generator can make of them (the paper's back-tracking)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from fastgan_engine.chunks import in_chunks
from fastgan_engine.errors import UserError
from fastgan_engine.images import to_uint8
from fastgan_engine.latent.defaults import LR, RESTARTS, STEPS
from fastgan_engine.latent.images import Images, as_input, pixels_of
from fastgan_engine.latent.latents import Latents, draw, join
from fastgan_engine.latent.metrics import Metric
from fastgan_engine.networks import Generator
from fastgan_engine.sampling import CHUNK, device_of, evaluating, image_in_words


@dataclass(frozen=True)
class Attempts:
    """Inversions, B of them: where each began and where it ended.

    Attributes:
        latents: found. start, result: uint8 [B, H, W, C], the images of the first and of the found latents.
        before, after: float32 [B], their distances to the target.
    """

    latents: Latents
    start: Tensor
    result: Tensor
    before: Tensor
    after: Tensor

    def pick(self, indices: list[int]) -> "Attempts":
        """Those at these positions."""
        rows = (self.start[indices], self.result[indices], self.before[indices], self.after[indices])
        return Attempts(self.latents.pick(indices), *rows)


def invert(
    generator: Generator,
    images: Images,
    metric: Metric,
    *,
    steps: int = STEPS,
    lr: float = LR,
    restarts: int = RESTARTS,
    seed: int = 0,
    chunk: int = CHUNK,
    warn: Callable[[str], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Attempts:
    """Of each image the latent, found by Adam on z, whose image is nearest to it.

    Each image is tried from the latents of the first ``restarts`` images of the seed, whose noise stays fixed, and the
    attempt that ends nearest is kept. The learning rate falls to 0 along a cosine. What one image gives does not depend
    on the others.

    Args:
        metric: on the generator's device.
        chunk: attempts at once.
        progress: called with (steps done, steps in all).

    Raises:
        UserError: an argument out of range, or not even one attempt fits into the memory.
    """
    for name, value in (("steps", steps), ("restarts", restarts), ("chunk", chunk)):
        if value < 1:
            raise UserError(f"{name}: got {value}, expected 1 or more")
    if not 0 < lr < float("inf"):
        raise UserError(f"lr: got {lr}, expected more than 0")
    count = len(images.names)
    starts = draw(generator, seed, range(restarts))

    def batch(indices: range) -> Attempts:
        targets = as_input(pixels_of(images, [i // restarts for i in indices]), device_of(generator))

        def step_done(step: int) -> None:
            if progress:
                progress(indices.start * steps + len(indices) * step, count * restarts * steps)

        return _descend(generator, targets, starts.pick([i % restarts for i in indices]), metric, steps, lr, step_done)

    what = f"inversion to an {image_in_words(generator)}"
    chunks = in_chunks(batch, count * restarts, chunk=chunk, device=device_of(generator), what=what, warn=warn)
    attempts = _join(list(chunks))
    best = attempts.after.view(count, restarts).argmin(1)
    return attempts.pick([index * restarts + int(which) for index, which in enumerate(best)])


def _descend(
    generator: Generator,
    targets: Tensor,
    starts: Latents,
    metric: Metric,
    steps: int,
    lr: float,
    step_done: Callable[[int], None],
) -> Attempts:
    """Each z down its own distance: the sum of all has, for each, the gradient of its own; so has Adam."""
    z = starts.z.clone().requires_grad_()
    optimizer = torch.optim.Adam([z], lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    with evaluating(generator), _frozen(generator):
        with torch.no_grad():
            goals = metric.points(targets)
            start, before = _judge(generator, starts, metric, goals)
        for step in range(steps):
            optimizer.zero_grad()
            points = metric.points(_shown(generator, Latents(z, starts.noise)))
            (points - goals).square().sum().backward()
            optimizer.step()
            schedule.step()
            step_done(step + 1)
        found = Latents(z.detach(), starts.noise)
        with torch.no_grad():
            result, after = _judge(generator, found, metric, goals)
    return Attempts(found, start, result, before, after)


def _judge(generator: Generator, latents: Latents, metric: Metric, goals: Tensor) -> tuple[Tensor, Tensor]:
    """The images as uint8 [B, H, W, C], and their distances."""
    images = _shown(generator, latents)
    squared = (metric.points(images) - goals).square().sum(1)
    return to_uint8(images).cpu(), metric.distance(squared).cpu()


def _shown(generator: Generator, latents: Latents) -> Tensor:
    """The images as they are shown, within [-1, 1], to which G does not bound them at most sizes.

    The gradient goes through as if nothing was cut, so that a pixel beyond the range on the wrong side comes back.
    """
    images = generator(latents.z, latents.noise)[0]
    return images + (images.clamp(-1, 1) - images).detach()


@contextmanager
def _frozen(generator: Generator) -> Iterator[None]:
    """Without gradients of the weights, which nobody asks for and which cost memory."""
    learning = [parameter for parameter in generator.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


def _join(parts: list[Attempts]) -> Attempts:
    return Attempts(
        join([part.latents for part in parts]),
        torch.cat([part.start for part in parts]),
        torch.cat([part.result for part in parts]),
        torch.cat([part.before for part in parts]),
        torch.cat([part.after for part in parts]),
    )
