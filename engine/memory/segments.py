"""Expandable segments of PyTorch's allocator, asked for before torch is imported. Imports no torch."""

import os
import sys

# The second is what versions before 2.9 read.
VARIABLES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")


def use_expandable_segments() -> None:
    """Sets PyTorch's variable, unless the user has set one, or on Windows, where it has none of them."""
    if sys.platform != "win32" and not any(variable in os.environ for variable in VARIABLES):
        for variable in VARIABLES:
            os.environ[variable] = "expandable_segments:True"
