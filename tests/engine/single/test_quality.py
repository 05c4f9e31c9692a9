"""The figures of samples against closed forms and sums written out."""

import numpy as np
import pytest
import torch

from fastgan_engine.single.masks import blur, dilate
from fastgan_engine.single.quality import PATCH, PROJECTIONS, diversity, patch_distance


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def test_the_distance_of_an_image_to_itself_is_none_and_of_noise_more_than_of_a_shift() -> None:
    ramp = torch.arange(40).repeat(30, 1)[:, :, None].expand(30, 40, 3).mul(6).to(torch.uint8)
    assert patch_distance(ramp, [ramp]) == 0
    shifted = (ramp.int() + 5).to(torch.uint8)
    assert 0 < patch_distance(ramp, [shifted]) < patch_distance(ramp, [noise(30, 40, 3)])


def test_the_distance_between_flat_images_is_the_projections_of_their_difference() -> None:
    """All patches of a flat image are one point: the distance is |d . (a - b)|, averaged over the directions d."""
    a, b = torch.full((28, 28, 3), 51, dtype=torch.uint8), torch.full((28, 28, 3), 102, dtype=torch.uint8)
    directions = torch.randn(PROJECTIONS, 3 * PATCH**2, generator=torch.Generator().manual_seed(0)).double()
    unit = directions / directions.norm(dim=1, keepdim=True)
    expected = (unit.sum(dim=1) * (102 - 51) / 255).abs().mean().item()
    assert patch_distance(a, [b]) == pytest.approx(expected, rel=1e-4)


def test_diversity() -> None:
    image = noise(20, 30, 3)
    samples = [noise(20, 30, 3, seed=seed) for seed in (1, 2, 3)]
    grey = np.stack([sample.numpy().astype(float).mean(axis=2) for sample in samples])
    expected = grey.std(axis=0).mean() / image.numpy().astype(float).mean(axis=2).std()
    assert diversity(image, samples) == pytest.approx(expected, rel=1e-5)
    assert diversity(image, [samples[0]] * 3) == pytest.approx(0, abs=1e-6)


def test_dilation_reaches_a_disk() -> None:
    inside = torch.zeros(41, 41, dtype=torch.bool)
    inside[20, 20] = True
    rows, columns = torch.meshgrid(torch.arange(41), torch.arange(41), indexing="ij")
    assert torch.equal(dilate(inside, 7), (rows - 20) ** 2 + (columns - 20) ** 2 <= 49)


def test_the_blur_of_an_edge_is_the_gaussian_integral() -> None:
    inside = torch.zeros(60, 80, dtype=torch.bool)
    inside[:, 40:] = True
    distance = torch.arange(80, dtype=torch.float64) - 39.5
    expected = 0.5 * (1 + torch.erf(distance / (5 * 2**0.5)))
    torch.testing.assert_close(blur(inside, 5.0)[30].double(), expected, rtol=0, atol=2e-3)
