"""Batch-norm statistics of a generator whose weights came without them."""

import torch
from torch import nn

from fastgan_engine.networks import Generator
from fastgan_engine.sampling import draw_inputs

BATCH = 8  # of the released training: the generator learnt to work with statistics of this many images
BATCHES = 32


@torch.no_grad()
def recalibrate(generator: Generator, *, batches: int = BATCHES, seed: int = 0) -> None:
    """Sets every running mean and variance to the average over ``batches`` batches of 8 random images.

    Each layer is measured with the layers below it normalised by their batch, as in training, so that evaluation mode
    then stands for what training mode does on average. Only batch norm runs in training mode: spectral norm's vectors
    stay as they are. The generator's mode is restored.
    """
    was_training = generator.training
    norms = [module for module in generator.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    generator.eval()
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None  # PyTorch's sign for the cumulative average
    try:
        for index in range(batches):
            generator(*draw_inputs(generator, seed, range(index * BATCH, (index + 1) * BATCH)))
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        generator.train(was_training)
