"""The metrics' formulas, against closed forms, brute force and other libraries."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from fastgan_engine.evaluation.frechet import frechet_distance
from fastgan_engine.evaluation.kernel import kernel_distance
from fastgan_engine.evaluation.manifold import density_coverage, precision_recall
from fastgan_engine.evaluation.spread import mean_pairwise_distance, rgb_pixels, thumbnails
from fastgan_engine.evaluation.wasserstein import sliced_wasserstein, wasserstein_1d


def points(count: int, size: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> Tensor:
    values = torch.randn(count, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values * scale + shift


def with_moments(count: int, mean: Tensor, deviation: Tensor, seed: int) -> Tensor:
    """Points whose mean and covariance are exactly ``mean`` and diag(deviation^2)."""
    x = points(count, len(mean), seed)
    x -= x.mean(0)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(x.T @ x / (count - 1)), x.T, upper=False).T
    return mean + white * deviation


class TestFrechet:
    @pytest.mark.parametrize(("n", "m"), [(50, 80), (6, 6), (80, 7)], ids=["many", "few", "mixed"])
    def test_diagonal_gaussians_have_a_closed_form(self, n: int, m: int) -> None:
        """|mu - nu|^2 + sum (sigma - tau)^2."""
        mu, nu = points(5, 1, 0).flatten(), points(5, 1, 1).flatten()
        sigma, tau = torch.tensor([[1, 2, 3, 0.1, 0], [2, 2, 0.5, 4, 1]], dtype=torch.float64)
        expected = (mu - nu).square().sum() + (sigma - tau).square().sum()
        x, y = with_moments(n, mu, sigma, 2), with_moments(m, nu, tau, 3)
        assert frechet_distance(x, y) == pytest.approx(expected.item(), rel=1e-9)

    @pytest.mark.parametrize(("n", "m", "size"), [(40, 60, 8), (7, 9, 30), (50, 9, 20)])
    def test_agrees_with_torch_fidelity(self, n: int, m: int, size: int) -> None:
        x, y = points(n, size, 0) @ points(size, size, 1), points(m, size, 2, shift=0.5)
        statistics = [fid_features_to_statistics(features) for features in (x, y)]
        expected = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
        assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-6)

    def test_of_a_set_to_itself_is_zero(self) -> None:
        x = points(30, 50, 0)
        assert 0 <= frechet_distance(x, x.flip(0)) < 1e-9

    def test_half_precision_is_computed_in_double(self) -> None:
        x, y = points(20, 6, 0, shift=100).float(), points(20, 6, 1, shift=100).float()
        assert frechet_distance(x, y) == pytest.approx(frechet_distance(x.double(), y.double()), rel=1e-12)


def unbiased_mmd(x: np.ndarray, y: np.ndarray) -> float:
    """The three means of the cubic kernel, those within a set over different points, pair by pair."""

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return (float(a @ b) / len(a) + 1) ** 3

    within = [np.mean([kernel(s[i], s[j]) for i in range(len(s)) for j in range(len(s)) if i != j]) for s in (x, y)]
    return float(sum(within) - 2 * np.mean([kernel(a, b) for a in x for b in y]))


def test_kid_is_the_unbiased_mmd() -> None:
    x, y = points(9, 6, 0), points(9, 6, 1, shift=0.7)
    assert kernel_distance(x, y) == pytest.approx(unbiased_mmd(x.numpy(), y.numpy()), rel=1e-10)


def test_kid_of_sets_of_different_sizes_is_near_that_of_all_points() -> None:
    x, y = points(12, 6, 0), points(40, 6, 1, shift=0.7)
    assert kernel_distance(x, y) == pytest.approx(unbiased_mmd(x.numpy(), y.numpy()), rel=0.1)


def distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.sqrt(((x[:, None] - y[None]) ** 2).sum(2))


@pytest.mark.parametrize(("n", "m"), [(20, 25), (40, 9)])
@pytest.mark.parametrize("shift", [1.5, 2.5])
def test_density_and_coverage_against_brute_force(n: int, m: int, shift: float) -> None:
    samples, reals = points(n, 4, 0, shift), points(m, 4, 1)
    radii = [sorted(distances(reals.numpy()[[i]], np.delete(reals.numpy(), i, 0))[0])[4] for i in range(m)]
    inside = [
        [distances(reals.numpy()[[i]], samples.numpy()[[j]])[0, 0] < radii[i] for j in range(n)] for i in range(m)
    ]
    density = sum(bool(held) for row in inside for held in row) / (5 * n)
    coverage = sum(map(any, inside)) / m
    assert density_coverage(samples, reals) == pytest.approx((density, coverage), rel=1e-12)
    assert 0 < coverage < 1, "the sets must neither be apart nor equal for this to test anything"


def test_density_and_coverage_do_not_hang_on_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    samples, reals = points(30, 4, 0, 0.3), points(25, 4, 1)
    whole = density_coverage(samples, reals), precision_recall(samples, reals)
    monkeypatch.setattr("fastgan_engine.evaluation.manifold.BLOCK", 7)
    assert (density_coverage(samples, reals), precision_recall(samples, reals)) == whole


def test_precision_and_recall_against_brute_force() -> None:
    samples, reals = points(20, 4, 0, 0.8), points(30, 4, 1)

    def share(a: np.ndarray, region: np.ndarray) -> float:
        radii = np.sort(distances(region, region), axis=1)[:, 3]
        return float((distances(a, region) <= radii).any(1).mean())

    expected = share(samples.numpy(), reals.numpy()), share(reals.numpy(), samples.numpy())
    assert precision_recall(samples, reals) == pytest.approx(expected)
    assert expected[0] != expected[1]


class TestWasserstein:
    @pytest.mark.parametrize(("n", "m"), [(1, 1), (5, 5), (7, 12), (30, 1), (64, 48)])
    def test_columns_against_scipy(self, n: int, m: int) -> None:
        x, y = points(n, 3, 0), points(m, 3, 1, shift=1.0, scale=2.0)
        expected = [scipy.stats.wasserstein_distance(x[:, i], y[:, i]) for i in range(3)]
        np.testing.assert_allclose(wasserstein_1d(x, y).numpy(), expected, rtol=1e-12)

    def test_one_dimension_has_one_direction(self) -> None:
        x, y = points(9, 1, 0), points(14, 1, 1, shift=3)
        expected = scipy.stats.wasserstein_distance(x[:, 0], y[:, 0])
        assert sliced_wasserstein(x, y, directions=5) == pytest.approx(expected, rel=1e-12)

    @pytest.mark.parametrize("size", [2, 3, 10])
    def test_shift_has_a_closed_form(self, size: int) -> None:
        """|v| E|cos| over the sphere."""
        x = points(20, size, 0)
        shift = points(1, size, 1)
        mean_cosine = math.gamma(size / 2) / (math.sqrt(math.pi) * math.gamma((size + 1) / 2))
        found = sliced_wasserstein(x, x.flip(0) + shift, directions=20_000)
        assert found == pytest.approx(shift.norm().item() * mean_cosine, rel=0.02)

    def test_leaves_the_global_random_state(self) -> None:
        before = torch.get_rng_state()
        first = sliced_wasserstein(points(4, 3, 0), points(5, 3, 1), seed=1)
        assert first == sliced_wasserstein(points(4, 3, 0), points(5, 3, 1), seed=1)
        assert first != sliced_wasserstein(points(4, 3, 0), points(5, 3, 1), seed=2)
        assert torch.equal(torch.get_rng_state(), before)


class TestSpread:
    def test_mean_pairwise_distance_against_brute_force(self) -> None:
        x = points(7, 3, 0)
        pairs = [distances(x.numpy(), x.numpy())[i, j] for i in range(7) for j in range(i)]
        assert mean_pairwise_distance(x) == pytest.approx(np.mean(pairs), rel=1e-12)

    def test_thumbnails_are_means_of_areas(self) -> None:
        pixels = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
        small = thumbnails(pixels).reshape(2, 3, 32, 32)
        assert small[1, 2, 5, 31].item() == pytest.approx(
            pixels[1, 2, 10:12, 62:64].double().mean().item() / 127.5 - 1, abs=1e-6
        )

    def test_grey_is_repeated_and_transparent_is_mid_grey(self) -> None:
        grey = torch.randint(0, 256, (2, 8, 8, 1), dtype=torch.uint8)
        assert torch.equal(rgb_pixels(grey), grey.permute(0, 3, 1, 2).repeat(1, 3, 1, 1))
        colour = torch.randint(0, 256, (2, 8, 8, 3), dtype=torch.uint8)
        assert torch.equal(rgb_pixels(colour), colour.permute(0, 3, 1, 2))
        opaque = torch.cat([colour, torch.full((2, 8, 8, 1), 255, dtype=torch.uint8)], dim=3)
        assert torch.equal(rgb_pixels(opaque), colour.permute(0, 3, 1, 2))
        clear = torch.cat([colour, torch.zeros(2, 8, 8, 1, dtype=torch.uint8)], dim=3)
        assert (rgb_pixels(clear).int() - 128).abs().max() <= 1
