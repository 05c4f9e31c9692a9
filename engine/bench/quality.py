"""A short training with the reference and one with the engine, from the same seed: do their samples get near alike?

The distance is the sliced Wasserstein distance between small versions (32 x 32) of the reals and of samples from the
averaged generator, always from the same latents. It says nothing about sharpness; it shows a training that goes wrong.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fastgan_engine.bench.contenders import CONTENDERS, Compiled, Engine, Reference
from fastgan_engine.build import set_backends
from fastgan_engine.config import Config
from fastgan_engine.evaluation.spread import thumbnails
from fastgan_engine.evaluation.wasserstein import sliced_wasserstein
from fastgan_engine.hardware import pick_device, pick_dtype
from fastgan_engine.images import to_uint8
from fastgan_engine.networks import Generator
from fastgan_engine.pipelines import PreparedSet, Sampler
from fastgan_engine.sources import DATA_SEED_OFFSET, ResidentSource, decode_all

SAMPLES = 64
SAMPLE_BATCH = 16
# Forward passes that bring the singular vectors of an average up to date, which the released code does not average.
WARM_UP = 4


@dataclass(frozen=True)
class Point:
    """Distance of the averaged generator's samples to the reals, after ``step`` iterations."""

    step: int
    distance: float


def compare_quality(
    config: Config, images: PreparedSet, names: Sequence[str], *, every: int
) -> Iterator[tuple[str, Point]]:
    """Trains each contender for ``train.steps`` on the same batches; yields its distance every ``every`` steps.

    LPIPS has random weights. The reference and ``compile`` draw their random numbers as the engine does, from the same
    seed.
    """
    device = pick_device(config.engine.device)
    dtype = pick_dtype(config.precision.dtype, device)
    set_backends(config)
    reals = thumbnails(decode_all(images).permute(0, 3, 1, 2)).to("cpu")
    for name in names:
        contender = CONTENDERS[name](config, device, dtype)
        sampler = Sampler(images.count, config.train.batch, seed=config.train.seed + DATA_SEED_OFFSET, flip=True)
        with ResidentSource(images, sampler, device, start_step=0) as source:
            yield name, Point(0, _distance(config, _average(contender), reals))
            for step in range(1, config.train.steps + 1):
                source.fetch()
                contender.run(source.reals())
                if step % every == 0 or step == config.train.steps:
                    yield name, Point(step, _distance(config, _average(contender), reals))


def _average(contender: Reference | Engine | Compiled) -> Generator:
    return contender.step.networks.ema if isinstance(contender, Reference) else contender.state.networks.ema


@torch.no_grad()
def _distance(config: Config, generator: Generator, reals: Tensor) -> float:
    """Sampled in batch statistics, as the released code does: the reference's average has no running ones."""
    generator = copy.deepcopy(generator).train()
    device = next(generator.parameters()).device
    random = torch.Generator(device).manual_seed(config.train.seed + 1)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(config.train.seed)
        batches = torch.randn(SAMPLES, config.model.nz, generator=random, device=device).split(SAMPLE_BATCH)
        for _ in range(WARM_UP):
            generator(batches[0])
        made = torch.cat([to_uint8(generator(z)[0]) for z in batches])
    pixels = made.permute(0, 3, 1, 2).cpu()
    return sliced_wasserstein(thumbnails(pixels), reals)
