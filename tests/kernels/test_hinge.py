"""The hinge losses against their closed form, and the kernels against fp64."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgan_engine.kernels.hinge import _self_test, draw_margins, hinge, hinge_fake, hinge_real
from tests.kernels.numerics import DEVICES, DTYPES, check_against_eager, poisoned, random_map


def arguments_for(images, logits, dtype=torch.float32, device="cpu"):
    margins = (
        0.8 + 0.2 * random_map((images * logits,), torch.float32, device, seed=seed).sigmoid() for seed in (1, 2)
    )
    arguments = {"logits": random_map((2 * images, logits), dtype, device)}
    return arguments | dict(zip(("margins_real", "margins_fake"), margins, strict=True))


def check(arguments, scales):
    check_against_eager(
        partial(hinge, scales=scales, impl="triton"),
        partial(hinge, scales=scales, impl="reference"),
        arguments,
        differentiable=["logits"],
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("images", "logits", "scales"), [(1, 1, 1), (8, 50, 2), (3, 1025, 1), (5, 21, 3)])
def test_error(images, logits, scales, dtype, device):
    check(arguments_for(images, logits, dtype, device), scales)


@given(st.integers(1, 9), st.integers(1, 70), st.integers(1, 3))
@settings(max_examples=5, deadline=None)
def test_any_size(images, logits, scales):
    check(arguments_for(images, logits * scales), scales)


@pytest.mark.parametrize("impl", ["reference", "triton"])
@pytest.mark.parametrize("scales", [1, 2])
def test_both_halves_are_the_losses_of_the_released_order(impl, scales):
    """There the logits of a batch are those of the first scale for all images, then those of the next."""
    arguments = {name: value.double().float() for name, value in arguments_for(3, 10).items()}
    logits = arguments["logits"]
    real, fake = (torch.cat([part.flatten() for part in half.chunk(scales, 1)]) for half in logits.chunk(2))
    wanted = torch.stack([hinge_real(real, arguments["margins_real"]), hinge_fake(fake, arguments["margins_fake"])])
    torch.testing.assert_close(hinge(**arguments, scales=scales, impl=impl), wanted)


@pytest.mark.parametrize("device", DEVICES)
def test_sliced_logits(device):
    arguments = arguments_for(4, 9, device=device)
    wide = torch.cat([arguments["logits"]] * 2, dim=1)
    for impl in ("reference", "triton"):
        sliced = hinge(**arguments | {"logits": wide[:, :9]}, scales=3, impl=impl)
        torch.testing.assert_close(sliced, hinge(**arguments, scales=3, impl=impl), rtol=0, atol=0)


@pytest.mark.parametrize("impl", ["reference", "triton"])
def test_closed_form(impl):
    logits = torch.tensor([[-3.0, -0.5, 0.5, 3.0]]).repeat(2, 1).requires_grad_()
    margins = torch.full((4,), 0.9)
    losses = hinge(logits, margins, margins, impl=impl)
    losses.backward(torch.tensor([1.0, 2.0]))
    assert losses.tolist() == pytest.approx([(3.9 + 1.4 + 0.4 + 0.0) / 4, (0.0 + 0.4 + 1.4 + 3.9) / 4])
    assert logits.grad.tolist() == [[-0.25, -0.25, -0.25, 0.0], [0.0, 0.5, 0.5, 0.5]]


@pytest.mark.parametrize("impl", ["reference", "triton"])
def test_a_nan_logit_is_not_lost(impl):
    logits = torch.tensor([[1.0, float("nan")], [1.0, 1.0]])
    assert hinge(logits, torch.ones(2), torch.ones(2), impl=impl).isnan().tolist() == [True, False]


def test_margins_are_uniform_between_four_fifths_and_one():
    generator = torch.Generator().manual_seed(0)
    margins = draw_margins(torch.empty(20000, dtype=torch.bfloat16), generator)
    assert margins.dtype == torch.float32
    assert 0.8 <= margins.min() < 0.801
    assert 0.999 < margins.max() < 1.0
    assert margins.mean().item() == pytest.approx(0.9, abs=0.002)
    again = draw_margins(torch.empty(20000), torch.Generator().manual_seed(0))
    torch.testing.assert_close(margins, again, rtol=0, atol=0)


def test_bad_arguments_are_named():
    four = torch.ones(4)
    with pytest.raises(ValueError, match=r"margins: got shape \(3,\), expected \[4\]"):
        hinge_real(torch.zeros(4), torch.ones(3))
    with pytest.raises(ValueError, match=r"logits: got the empty shape \(0,\)"):
        hinge_fake(torch.zeros(0), torch.ones(0))
    with pytest.raises(ValueError, match=r"logits: got a batch of 3, expected an even one"):
        hinge(torch.zeros(3, 2), four, four)
    with pytest.raises(ValueError, match=r"margins_fake: got shape \(3,\), expected \[4\]"):
        hinge(torch.zeros(2, 4), four, torch.ones(3))
    with pytest.raises(ValueError, match=r"scales: got 3, expected a divisor of the 4 logits of an image"):
        hinge(torch.zeros(2, 4), four, four, scales=3)
    with pytest.raises(ValueError, match=r"margins_real: got torch.float64, expected float32"):
        hinge(torch.zeros(2, 4), four.double(), four, impl="triton")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_self_test_passes(dtype, device):
    with poisoned():
        _self_test(torch.device(device), dtype)
