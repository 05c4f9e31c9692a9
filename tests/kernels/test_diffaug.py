"""DiffAugment against a pixel-by-pixel computation in float64, and its kernels against the reference."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgan_engine.kernels.diffaug import DiffAugParams, _self_test, diffaug, draw_diffaug, parse_policy
from tests.kernels.numerics import DEVICES, DTYPES, check_against_eager, poisoned, random_map

POLICIES = ["color", "translation", "cutout", "color,translation", "cutout,translation,color"]
SHAPES = [(1, 1, 1, 1), (2, 3, 7, 5), (3, 4, 8, 16), (1, 2, 31, 1), (2, 3, 33, 40)]
IMPLS = ["reference", "triton"]


def pixel_by_pixel(x, params):
    """The released sequence of steps, one pixel at a time."""
    p = {name: None if value is None else value.tolist() for name, value in params._asdict().items()}
    out = np.empty_like(x)
    batch, channels, height, width = x.shape
    for n in range(batch):
        image = x[n].copy()
        if p["contrast"] is not None:
            image = image + p["brightness"][n]
            for i, j in itertools.product(range(height), range(width)):
                mean = sum(image[c, i, j] for c in range(channels)) / channels
                for c in range(channels):
                    image[c, i, j] = (image[c, i, j] - mean) * p["saturation"][n] + mean
            mean = image.mean()
            image = (image - mean) * p["contrast"][n] + mean
        if p["shift_y"] is not None:
            moved = np.zeros_like(image)
            for i, j in itertools.product(range(height), range(width)):
                row, column = i + p["shift_y"][n], j + p["shift_x"][n]
                if 0 <= row < height and 0 <= column < width:
                    moved[:, i, j] = image[:, row, column]
            image = moved
        if p["cutout_y"] is not None:
            rows, columns = int(height * 0.5 + 0.5), int(width * 0.5 + 0.5)
            for i, j in itertools.product(range(rows), range(columns)):
                row = min(max(i + p["cutout_y"][n] - rows // 2, 0), height - 1)
                column = min(max(j + p["cutout_x"][n] - columns // 2, 0), width - 1)
                image[:, row, column] = 0
        out[n] = image
    return out


def draw(shape, policy, device="cpu", seed=0):
    generator = torch.Generator(device).manual_seed(seed)
    return draw_diffaug(shape[0], shape[2], shape[3], policy, generator=generator, device=device)


def as_function(impl):
    """With the drawn numbers among the arguments; the integers stay as they are in float64."""

    def function(x, **params):
        return diffaug(x, DiffAugParams(**params), impl=impl)

    return function


def check(x, params):
    arguments = {"x": x, **{name: value for name, value in params._asdict().items() if value is not None}}
    check_against_eager(as_function("triton"), as_function("reference"), arguments, differentiable=["x"])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_reference_equals_pixel_by_pixel(shape, policy, seed):
    x, params = random_map(shape, torch.float64, seed=seed), draw(shape, policy, seed=seed)
    expected = pixel_by_pixel(x.numpy(), params)
    np.testing.assert_allclose(diffaug(x, params, impl="reference").numpy(), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes_and_policies(shape, policy, device):
    check(random_map(shape, torch.float32, device), draw(shape, policy, device))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", ["channels_last", "contiguous", "sliced"])
def test_layouts_and_dtypes(layout, dtype, device):
    x = random_map((3, 3, 9, 11), dtype, device)
    if layout == "contiguous":
        x = x.contiguous()
    if layout == "sliced":
        x = random_map((3, 5, 9, 15), dtype, device)[:, 1:4, :, 2:13]
    check(x, draw(x.shape, "color,translation,cutout", device))


@given(
    st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 40), st.integers(1, 40)),
    st.sampled_from(POLICIES),
    st.integers(0, 99),
)
@settings(max_examples=8, deadline=None)
def test_any_shape(shape, policy, seed):
    check(random_map(shape, torch.float32, seed=seed), draw(shape, policy, seed=seed))


@pytest.mark.parametrize("impl", IMPLS)
def test_many_pixels_an_image(impl):
    """Several blocks a chunk and a chunk that is not full."""
    shape = (1, 1, 120, 121)
    x, params = random_map(shape, torch.float32), draw(shape, "color")
    expected = diffaug(x.double(), params, impl="reference")
    with poisoned():
        torch.testing.assert_close(diffaug(x, params, impl=impl).double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("policy", POLICIES)
def test_backward_is_the_adjoint(policy, impl):
    """<A x, y> = <x, A^T y> for the linear part A."""
    dtype, tolerance = (torch.float64, 1e-12) if impl == "reference" else (torch.float32, 1e-4)
    shape = (2, 3, 17, 12)
    x, y, params = random_map(shape, dtype), random_map(shape, dtype, seed=1), draw(shape, policy)
    leaf = torch.zeros_like(x, requires_grad=True)
    constant = diffaug(leaf, params, impl=impl)
    constant.backward(y)
    linear = diffaug(x, params, impl=impl) - constant.detach()
    assert (linear * y).sum().item() == pytest.approx((x * leaf.grad).sum().item(), abs=tolerance)


def test_gradcheck():
    x = random_map((2, 3, 5, 4), torch.float64).requires_grad_()
    params = draw(x.shape, "color,translation,cutout")
    assert torch.autograd.gradcheck(lambda x: diffaug(x, params, impl="reference"), (x,))


@pytest.mark.parametrize("impl", IMPLS)
def test_layout_is_kept(impl):
    """Of the images by the output and by the gradient, whatever the layout of the incoming gradient."""
    for x in (random_map((2, 3, 8, 8), torch.float32), random_map((2, 3, 8, 8), torch.float32).contiguous()):
        for policy in POLICIES:
            leaf = x.clone().requires_grad_()
            y = diffaug(leaf, draw(x.shape, policy), impl=impl)
            y.sum().backward()
            assert y.stride() == leaf.grad.stride() == x.stride()


def test_draws_have_the_released_ranges():
    params = draw_diffaug(4000, 20, 33, "color,translation,cutout", generator=torch.Generator().manual_seed(0))
    for value, low, high in ((params.brightness, -0.5, 0.5), (params.saturation, 0, 2), (params.contrast, 0.5, 1.5)):
        assert low <= value.min() < low + 0.01
        assert high - 0.01 < value.max() <= high
        assert value.mean().item() == pytest.approx((low + high) / 2, abs=0.05)
    # An eighth of 20 and 33, rounded half up: 3 and 4. Windows of 10 and 17: an even one may also lie one past the end.
    assert set(params.shift_y.tolist()) == set(range(-3, 4))
    assert set(params.shift_x.tolist()) == set(range(-4, 5))
    assert set(params.cutout_y.tolist()) == set(range(21))
    assert set(params.cutout_x.tolist()) == set(range(33))


def test_policies():
    assert parse_policy("") == frozenset()
    assert parse_policy("cutout, color") == {"color", "cutout"}
    x = random_map((1, 3, 8, 8), torch.float32)
    assert diffaug(x, draw(x.shape, "")) is x
    with pytest.raises(ValueError, match=r"policy: got 'colour' .* expected names from color, .*did you mean 'color'"):
        draw(x.shape, "colour,translation")
    with pytest.raises(ValueError, match=r"policy: got 'xyz' .* expected names from color, translation, cutout$"):
        parse_policy("xyz")


def test_bad_arguments_are_named():
    params = draw((2, 3, 8, 8), "color")
    with pytest.raises(ValueError, match=r"x: got 5 channels, expected 1 to 4"):
        diffaug(torch.zeros(2, 5, 8, 8), params)
    with pytest.raises(ValueError, match=r"x: got torch.int32"):
        diffaug(torch.zeros(2, 3, 8, 8, dtype=torch.int32), params)
    with pytest.raises(ValueError, match=r"params.brightness: got shape \(2,\), expected \[3\]"):
        diffaug(torch.zeros(3, 3, 8, 8), params)
    with pytest.raises(ValueError, match=r"x: got shape \(3, 8, 8\), expected \[any, any, any, any\]"):
        diffaug(torch.zeros(3, 8, 8), params)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_self_test_passes(dtype, device):
    with poisoned():
        _self_test(torch.device(device), dtype)
