"""The batch from a uint8 cache against indexing element by element, and its kernel against the reference."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgan_engine.kernels.batch import _self_test, gather_batch, to_float
from tests.kernels.numerics import DEVICES, DTYPES, assert_as_good_as_eager, poisoned

SHAPES = [(1, 1, 1, 1), (3, 5, 7, 3), (4, 16, 16, 3), (2, 33, 31, 4), (5, 1, 13, 1)]


def arguments_for(shape, device="cpu", seed=0):
    generator = torch.Generator().manual_seed(seed)
    cache = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    indices = torch.randint(0, shape[0], (4,), generator=generator)
    flips = torch.tensor([True, False, True, False])
    return [tensor.to(device) for tensor in (cache, indices, flips)]


def element_by_element(cache, indices, flips):
    cache, batch = cache.numpy().astype(np.float64), []
    for index, flip in zip(indices.tolist(), flips.tolist(), strict=True):
        image = cache[index, :, ::-1] if flip else cache[index]
        batch.append(image.transpose(2, 0, 1) / 127.5 - 1)
    return torch.from_numpy(np.stack(batch))


def check(arguments, dtype):
    exact = element_by_element(*(tensor.cpu() for tensor in arguments))
    with poisoned():
        got = gather_batch(*arguments, dtype, impl="triton")
    eager = gather_batch(*arguments, dtype, impl="reference")
    assert_as_good_as_eager({"y": got.cpu()}, {"y": eager.cpu()}, {"y": exact})
    for y in (got, eager):
        assert y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_reference_equals_element_by_element(shape):
    arguments = arguments_for(shape)
    got = gather_batch(*arguments, torch.float64, impl="reference")
    torch.testing.assert_close(got, element_by_element(*arguments), rtol=0, atol=1e-15)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes_and_dtypes(shape, dtype, device):
    check(arguments_for(shape, device), dtype)


@given(st.tuples(st.integers(1, 5), st.integers(1, 30), st.integers(1, 30), st.integers(1, 4)))
@settings(max_examples=6, deadline=None)
def test_any_shape(shape):
    check(arguments_for(shape, seed=sum(shape)), torch.float32)


@pytest.mark.parametrize("impl", ["reference", "triton"])
def test_all_values_and_int32_indices(impl):
    cache = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1)
    flips = torch.tensor([False, True])
    y = gather_batch(cache, torch.zeros(2, dtype=torch.int32), flips, torch.float32, impl=impl)
    assert y.min() == -1.0
    assert y.max() == 1.0
    torch.testing.assert_close(y[0].flatten(), torch.arange(256) / 127.5 - 1)
    torch.testing.assert_close(y[1], y[0].flip(2), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_streamed_images_look_like_gathered_ones(dtype):
    cache, indices, _ = arguments_for((4, 8, 6, 3))
    flips = torch.zeros(4, dtype=torch.bool)
    gathered = gather_batch(cache, indices, flips, dtype, impl="reference")
    streamed = to_float(cache[indices], dtype)
    assert streamed.stride() == gathered.stride()
    torch.testing.assert_close(streamed, gathered, rtol=0, atol=0)


def test_bad_arguments_are_named():
    cache, indices, flips = arguments_for((3, 4, 4, 3))
    gather = partial(gather_batch, dtype=torch.float32)
    with pytest.raises(ValueError, match=r"cache: got torch.float32, expected uint8"):
        gather(cache.float(), indices, flips)
    with pytest.raises(ValueError, match=r"cache: got strides .*, expected a contiguous tensor"):
        gather(cache.permute(0, 3, 1, 2), indices, flips)
    with pytest.raises(ValueError, match=r"indices: got torch.float32, expected int32 or int64"):
        gather(cache, indices.float(), flips)
    with pytest.raises(ValueError, match=r"flips: got shape \(3,\), expected \[4\]"):
        gather(cache, indices, flips[:3])
    with pytest.raises(ValueError, match=r"dtype: got torch.int32, expected float32, float16, bfloat16 or float64"):
        to_float(cache, torch.int32)
    with pytest.raises(ValueError, match=r"images: got torch.float32, expected uint8"):
        to_float(cache.float(), torch.float32)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_self_test_passes(dtype, device):
    with poisoned():
        _self_test(torch.device(device), dtype)
