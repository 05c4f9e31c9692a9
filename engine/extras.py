"""Libraries that only some commands need: imported where they are used, and named with their extra where missing."""

import importlib
from types import ModuleType

from fastgan_engine.errors import UserError


def require(module: str, *, extra: str) -> ModuleType:
    """Imports a module of one of the package's extras (setup.py, ``extras_require``).

    Raises:
        UserError: it is not installed; the message says how to.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise  # it is there, and lacks something itself
        raise UserError(
            f"this needs the package {error.name}, which is not installed: pip install 'fastgan-engine[{extra}]'"
        ) from None
