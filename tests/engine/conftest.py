"""Small tensors: one thread is the fastest, and the only one whose time does not hang on what else the machine does."""

import pytest
import torch

from fastgan_engine.reconstruction import ReconstructionLoss


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def vgg_loss() -> ReconstructionLoss:
    """LPIPS on a random VGG16, which takes seconds to build. Shared: copy it to change it.

    Always the same one: where a feature is nearly zero, or two in a window are nearly equal, roundings decide on single
    gradients.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ReconstructionLoss("lpips-vgg", random_weights=True)
