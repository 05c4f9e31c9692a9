"""Small tensors: one thread is the fastest, and the only one whose time does not hang on what else the machine does."""

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
