"""Reading files of ``torch.save`` that may come from anywhere: tensors and plain containers, never other objects."""

import pickle
import warnings
from pathlib import Path
from typing import Any

import torch


def safe_load(path: Path) -> Any:
    """What ``torch.save`` wrote, on the CPU.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is damaged, of another kind, or holds Python objects; the message is a short reason.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on pickles of other origin, which are refused anyway
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except pickle.UnpicklingError:  # PyTorch's message advises to load the file unsafely
        raise ValueError("it is not a file of torch.save, or it holds Python objects") from None
    except Exception as error:  # on bytes that it did not write, PyTorch's reader fails in any way
        known = isinstance(error, RuntimeError | EOFError) and str(error)
        raise ValueError(str(error).split(". ")[0].splitlines()[0] if known else "it is cut short or garbled") from None
