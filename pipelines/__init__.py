"""Image folder -> verified, prepared set -> shuffled, flipped batches.

In the order in which data flows: ``sources`` (what files there are), ``decode`` (bytes -> 8-bit image), ``fit`` (image
-> square pixels), ``report`` (``check``), ``preparing`` and ``prepared`` (the packed set), ``sampler`` (which image
comes when), ``streams`` with ``dali_stream`` and ``pillow_stream`` (batches on a device), ``demo`` (a set to try things
on).

Importing this package loads none of them: each name below is loaded on its first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .demo import draw_demo
    from .errors import DataError
    from .prepared import PreparedSet, open_prepared
    from .preparing import default_cache_dir, prepare
    from .report import DataReport, check
    from .sampler import Sampler
    from .streams import ImageStream, open_stream

__all__ = [
    "DataError",
    "DataReport",
    "ImageStream",
    "PreparedSet",
    "Sampler",
    "check",
    "default_cache_dir",
    "draw_demo",
    "open_prepared",
    "open_stream",
    "prepare",
]

_HOME = {
    "DataError": "errors",
    "DataReport": "report",
    "ImageStream": "streams",
    "PreparedSet": "prepared",
    "Sampler": "sampler",
    "check": "report",
    "default_cache_dir": "preparing",
    "draw_demo": "demo",
    "open_prepared": "prepared",
    "open_stream": "streams",
    "prepare": "preparing",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
