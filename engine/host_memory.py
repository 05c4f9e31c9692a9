"""How the C library keeps the memory of CPU tensors."""

import ctypes

# glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Lets the process keep freed memory instead of giving large pieces back to the system at once; whether it could.

    A training step frees and allocates the same large tensors again and again. Mapped anew, each page costs a fault and
    is zeroed: a sixth of a step's time on a CPU (benchmarks/README.md). glibc alone knows the settings.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library; Windows knows no "this process"
        return False
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, _NEVER))
