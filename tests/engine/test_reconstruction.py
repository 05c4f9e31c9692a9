"""The decoders' loss: closed forms, three targets, and sums over the batch."""

import pytest
import torch
from torch import Tensor

from fastgan_engine.networks import Reconstructions
from fastgan_engine.reconstruction import ReconstructionLoss, reconstruction_targets, resize


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.fixture(scope="module")
def squeeze() -> ReconstructionLoss:
    return ReconstructionLoss("lpips-squeeze", random_weights=True)


@pytest.mark.parametrize("nc", [1, 3, 4])
def test_l1_is_the_mean_difference_of_each_image_summed_over_the_batch(nc: int) -> None:
    images, targets = numbers(5, nc, 4, 6), numbers(5, nc, 4, 6, seed=1)
    wanted = sum((a - b).abs().sum() / (nc * 24) for a, b in zip(images.double(), targets.double(), strict=True))
    assert ReconstructionLoss("l1")(images, targets).item() == pytest.approx(wanted.item(), rel=1e-6)  # type: ignore[union-attr]


def test_l1_of_a_constant_offset() -> None:
    images = numbers(7, 3, 8, 8)
    assert ReconstructionLoss("l1")(images, images + 0.25).item() == pytest.approx(7 * 0.25, rel=1e-5)


def test_none_is_zero() -> None:
    assert ReconstructionLoss("none")(numbers(2, 3, 4, 4), numbers(2, 3, 4, 4, seed=1)) == 0


def test_lpips_is_the_packages_distance_summed_over_the_batch(squeeze: ReconstructionLoss) -> None:
    images, targets = numbers(3, 3, 32, 32), numbers(3, 3, 32, 32, seed=1)
    wanted = sum(squeeze.lpips(a[None], b[None]).item() for a, b in zip(images, targets, strict=True))
    assert squeeze(images, targets).item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("nc", [1, 4])
def test_lpips_of_other_channels_is_that_of_what_one_sees(nc: int, squeeze: ReconstructionLoss) -> None:
    images, targets = numbers(2, nc, 32, 32), numbers(2, nc, 32, 32, seed=1)

    def seen(x: Tensor) -> Tensor:
        return torch.cat([x, x, x], 1) if nc == 1 else x[:, :3] * (0.5 + 0.5 * x[:, 3:])

    wanted = squeeze.lpips(seen(images), seen(targets)).sum()
    torch.testing.assert_close(squeeze(images, targets), wanted)


@pytest.mark.parametrize("kind", ["l1", "lpips-squeeze"])
def test_gradient_reaches_the_images(kind: str) -> None:
    images = numbers(2, 3, 32, 32).requires_grad_()
    ReconstructionLoss(kind, random_weights=True)(images, numbers(2, 3, 32, 32, seed=1)).backward()  # type: ignore[arg-type]
    assert images.grad.abs().amin(dim=(2, 3)).shape == (2, 3)  # type: ignore[union-attr]
    assert images.grad.abs().amax(dim=(2, 3)).min() > 0  # type: ignore[union-attr]


def test_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="must be one of lpips-vgg, lpips-squeeze, l1, none; got 'l2'"):
        ReconstructionLoss("l2")  # type: ignore[arg-type]


def test_resize_is_nearest_and_leaves_the_right_size_alone() -> None:
    x = numbers(1, 1, 8, 8)
    assert torch.equal(resize(x, 4), x[:, :, ::2, ::2])
    assert torch.equal(resize(x, 16), x.repeat_interleave(2, 2).repeat_interleave(2, 3))
    assert resize(x, 8) is x


# Quadrants of the reals, by the released numbers: 0 top left, 1 top right, 2 bottom left, 3 bottom right.
CORNERS = torch.tensor([[0.1, 0.2], [0.3, 0.4]])


def corners(batch: int, side: int) -> Tensor:
    half = side // 2
    return CORNERS.repeat_interleave(half, 0).repeat_interleave(half, 1).expand(batch, 3, side, side)


@pytest.mark.parametrize("part", range(4))
@pytest.mark.parametrize("side", [64, 32, 16], ids=lambda side: f"reals of {side}")
def test_targets(part: int, side: int) -> None:
    whole, quarter = reconstruction_targets(corners(2, side), 32, part)
    assert torch.equal(whole, corners(2, 32))
    assert torch.equal(quarter, torch.full((2, 3, 32, 32), CORNERS.flatten()[part].item()))


@pytest.mark.parametrize("part", range(4))
def test_released_is_the_sum_of_three_distances_to_their_targets(part: int) -> None:
    """Constant images, so that each distance is a mean of differences: whole, whole, quadrant."""
    batch = 3
    made = Reconstructions(*(torch.full((batch, 3, 32, 32), value) for value in (0.5, 0.75, 1.0)))
    mean, corner = CORNERS.mean().item(), CORNERS.flatten()[part].item()
    wanted = batch * ((0.5 - mean) + (0.75 - mean) + (1.0 - corner))
    assert ReconstructionLoss("l1").released(made, corners(batch, 64), part).item() == pytest.approx(wanted, rel=1e-5)


def test_released_lpips_against_the_package(squeeze: ReconstructionLoss) -> None:
    made = Reconstructions(*(numbers(2, 3, 32, 32, seed=seed) for seed in (1, 2, 3)))
    reals = numbers(2, 3, 64, 64)
    whole, quarter = reals[:, :, ::2, ::2], reals[:, :, 32:, :32]
    wanted = sum(
        squeeze.lpips(images, target).sum()
        for images, target in ((made.big, whole), (made.small, whole), (made.part, quarter))
    )
    torch.testing.assert_close(squeeze.released(made, reals, 2), wanted)
