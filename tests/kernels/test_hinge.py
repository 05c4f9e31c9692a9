"""The hinge loss against its closed form, and its kernels against fp64."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgan_engine.kernels.hinge import _self_test, draw_margins, hinge_fake, hinge_real
from tests.kernels.numerics import DEVICES, DTYPES, check_against_eager, poisoned, random_map

LOSSES = [pytest.param(hinge_real, id="real"), pytest.param(hinge_fake, id="fake")]


def arguments_for(shape, dtype=torch.float32, device="cpu"):
    logits = random_map(shape, dtype, device)
    return {"logits": logits, "margins": 0.8 + 0.2 * random_map(shape, torch.float32, device, seed=1).sigmoid()}


def check(loss, arguments):
    def function(impl, **arguments):
        return loss(**arguments, impl=impl).view(1)

    check_against_eager(
        partial(function, "triton"), partial(function, "reference"), arguments, differentiable=["logits"]
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(1,), (400,), (1025,), (3, 1, 5, 5)], ids=str)
@pytest.mark.parametrize("loss", LOSSES)
def test_error(loss, shape, dtype, device):
    check(loss, arguments_for(shape, dtype, device))


@given(st.integers(1, 3000))
@settings(max_examples=5, deadline=None)
def test_any_length(length):
    check(hinge_real, arguments_for((length,)))


@pytest.mark.parametrize("device", DEVICES)
def test_sliced_logits(device):
    arguments = arguments_for((40, 3), device=device)
    logits, margins = arguments["logits"][::2], arguments["margins"][::2]
    assert not logits.is_contiguous()
    for loss in (hinge_real, hinge_fake):
        torch.testing.assert_close(loss(logits, margins, impl="triton"), loss(logits, margins, impl="reference"))


@pytest.mark.parametrize("impl", ["reference", "triton"])
def test_closed_form(impl):
    logits = torch.tensor([-3.0, -0.5, 0.5, 3.0], requires_grad=True)
    margins = torch.full((4,), 0.9)
    loss = hinge_real(logits, margins, impl=impl)
    loss.backward()
    assert loss.item() == pytest.approx((3.9 + 1.4 + 0.4 + 0.0) / 4)
    assert logits.grad.tolist() == [-0.25, -0.25, -0.25, 0.0]
    logits.grad = None
    loss = hinge_fake(logits, margins, impl=impl)
    loss.backward()
    assert loss.item() == pytest.approx((0.0 + 0.4 + 1.4 + 3.9) / 4)
    assert logits.grad.tolist() == [0.0, 0.25, 0.25, 0.25]


@pytest.mark.parametrize("impl", ["reference", "triton"])
def test_a_nan_logit_is_not_lost(impl):
    assert hinge_real(torch.tensor([1.0, float("nan")]), torch.ones(2), impl=impl).isnan()


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
    with pytest.raises(ValueError, match=r"margins: got shape \(3,\), expected \[4\]"):
        hinge_real(torch.zeros(4), torch.ones(3))
    with pytest.raises(ValueError, match=r"logits: got the empty shape \(0,\)"):
        hinge_fake(torch.zeros(0), torch.ones(0))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_self_test_passes(dtype, device):
    with poisoned():
        _self_test(torch.device(device), dtype)
