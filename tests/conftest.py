"""Triton kernels run in its interpreter, on the CPU, unless the tests that need a GPU are asked for."""

import os

import pytest


def pytest_configure(config: pytest.Config) -> None:
    # Triton reads this once, at its first import: before any test module is collected.
    if config.getoption("-m") != "gpu":
        os.environ.setdefault("TRITON_INTERPRET", "1")
