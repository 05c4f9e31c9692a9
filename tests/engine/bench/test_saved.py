"""Memory kept for backward against closed forms and the targets."""

import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

from fastgan_engine.bench.saved import Saved, keeping, kept_bytes, saved
from fastgan_engine.config import resolve

FP32 = 4


def test_each_backward_is_charged_with_what_its_graph_kept() -> None:
    with FakeTensorMode(), keeping() as backwards:
        x, w = torch.empty(2, 3, 8, 8), torch.empty(5, 3, 3, 3, requires_grad=True)
        y = F.conv2d(x, w, padding=1)  # keeps x and w
        z = torch.relu(y)  # keeps its output
        (z * z.view_as(z)).sum().backward()  # keeps z again, under two names
        torch.tanh(w).sum().backward()  # keeps its output
    x_size, y_size, w_size = 2 * 3 * 64, 2 * 5 * 64, 5 * 3 * 9
    assert [kept_bytes(kept, []) for kept in backwards] == [FP32 * (x_size + w_size + y_size), FP32 * w_size]
    assert [kept_bytes(kept, [x, w]) for kept in backwards] == [FP32 * y_size, FP32 * w_size]


def test_a_graph_that_nobody_goes_through_is_not_charged() -> None:
    with keeping() as backwards:
        w = torch.ones(100, requires_grad=True)
        torch.tanh(w)
        (w[:2] * 3.0).sum().backward()
    assert [kept_bytes(kept, []) for kept in backwards] == [0]


def ratios(im_size: int, dtype: torch.dtype) -> tuple[float, float, float]:
    """Engine to reference: G pass, D pass, both."""
    config = resolve(flags={"model.im_size": im_size})
    reference, engine = (saved(config, who, dtype) for who in ("reference", "engine"))
    assert isinstance(reference, Saved)
    assert reference.d_at_once < reference.d
    assert engine.d_at_once == engine.d
    return engine.g / reference.g, engine.d / reference.d, (engine.g + engine.d) / (reference.g + reference.d)


def test_the_engine_keeps_less_than_the_reference_at_256() -> None:
    """The target is half."""
    g, d, both = ratios(256, torch.bfloat16)
    assert g < 0.5
    assert d < 0.42
    assert both < 0.42


def test_the_engine_keeps_less_than_half_of_the_reference_at_1024() -> None:
    g, d, both = ratios(1024, torch.bfloat16)
    assert g < 0.5
    assert d < 0.5
    assert both < 0.5
