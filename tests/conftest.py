"""Triton kernels run in its interpreter, on the CPU, unless the tests that need a GPU are asked for (-m gpu)."""

import itertools
import os
import sys

# Triton reads this once, at its first import: here, before another conftest imports the package.
if ("-m", "gpu") not in itertools.pairwise(sys.argv):
    os.environ.setdefault("TRITON_INTERPRET", "1")
