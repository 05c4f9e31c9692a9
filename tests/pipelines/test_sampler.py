"""The sampler's promises, for any size of set and batch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgan_engine.pipelines import DataError, Sampler

counts = st.integers(1, 40)
batches = st.integers(1, 60)
seeds = st.integers(0, 2**64 - 1)


def take(sampler: Sampler, first: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    indices, flips = zip(*(sampler.batch(step) for step in range(first, first + steps)), strict=True)
    return np.concatenate(indices), np.concatenate(flips)


@given(counts, batches, seeds)
def test_each_epoch_is_a_permutation(count, batch, seed):
    steps = -(-3 * count // batch)
    indices, _ = take(Sampler(count, batch, seed=seed, flip=True), 0, steps)
    for epoch in range(3):
        assert sorted(indices[epoch * count : (epoch + 1) * count]) == list(range(count))


@given(counts, batches, seeds, st.integers(0, 10**9))
def test_a_batch_depends_on_nothing_but_seed_and_step(count, batch, seed, step):
    walked = Sampler(count, batch, seed=seed, flip=True)
    for other in (0, step + 5, 3):
        walked.batch(other)
    got, fresh = walked.batch(step), Sampler(count, batch, seed=seed, flip=True).batch(step)
    assert np.array_equal(got[0], fresh[0])
    assert np.array_equal(got[1], fresh[1])
    assert got[0].shape == got[1].shape == (batch,)
    assert got[0].dtype == np.int64
    assert got[1].dtype == np.bool_


@given(counts, batches, batches, seeds)
def test_the_stream_of_images_does_not_depend_on_the_batch(count, one, other, seed):
    total = min(one, other) * 5
    left = take(Sampler(count, one, seed=seed, flip=True), 0, -(-total // one))
    right = take(Sampler(count, other, seed=seed, flip=True), 0, -(-total // other))
    for a, b in zip(left, right, strict=True):
        assert np.array_equal(a[:total], b[:total])


def test_the_order_is_the_same_on_every_machine():
    """Written down once: a run saved by an older version must go on in the same order."""
    indices, flips = Sampler(7, 10, seed=3, flip=True).batch(2)
    assert indices.tolist() == [5, 2, 6, 3, 0, 4, 1, 5, 0, 5]
    assert flips.astype(int).tolist() == [0, 1, 0, 1, 0, 1, 0, 0, 1, 1]


def test_epochs_seeds_and_flips_differ():
    first, flips = take(Sampler(100, 100, seed=0, flip=True), 0, 2)
    assert not np.array_equal(first[:100], first[100:])
    assert not np.array_equal(flips[:100], flips[100:])
    assert not np.array_equal(first, take(Sampler(100, 100, seed=1, flip=True), 0, 2)[0])


def test_flips_are_fair_and_can_be_off():
    indices, flips = take(Sampler(10, 100, seed=0, flip=True), 0, 200)
    assert abs(flips.mean() - 0.5) < 4 * 0.5 / np.sqrt(flips.size)
    for image in range(10):  # for each image too
        assert abs(flips[indices == image].mean() - 0.5) < 5 * 0.5 / np.sqrt(flips.size / 10)
    unflipped, none = take(Sampler(10, 100, seed=0, flip=False), 0, 200)
    assert not none.any()
    assert np.array_equal(unflipped, indices)


def test_first_places_are_uniform():
    """Each image leads an epoch equally often (chi-square, 9 degrees of freedom, p < 1e-4 beyond 33.7)."""
    leaders = [Sampler(10, 10, seed=5, flip=False).batch(epoch)[0][0] for epoch in range(2000)]
    seen = np.bincount(leaders, minlength=10)
    assert ((seen - 200) ** 2 / 200).sum() < 33.7


@pytest.mark.parametrize(("count", "batch", "seed"), [(0, 1, 0), (1, 0, 0), (1, 1, -1), (1, 1, 2**64)])
def test_bad_arguments(count, batch, seed):
    with pytest.raises(DataError, match="expected"):
        Sampler(count, batch, seed=seed, flip=True)


def test_a_negative_step_is_refused():
    with pytest.raises(DataError, match="step -1"):
        Sampler(1, 1, seed=0, flip=True).batch(-1)
