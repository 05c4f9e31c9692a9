"""The way between latents against its closed form: ends, constant angular speed, and directions that are no plane."""

import math

import pytest
import torch
from torch import Tensor

from fastgan_engine.latent.slerp import EASINGS, path, slerp

T = torch.linspace(0, 1, 11, dtype=torch.float64)


def vectors(count: int, nz: int = 16) -> Tensor:
    return torch.randn(count, nz, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def angles(points: Tensor) -> Tensor:
    """Between each row and the next, by the half-angle formula, which is exact for small and for large ones."""
    unit = points / points.norm(dim=1, keepdim=True)
    apart, together = (unit[1:] - unit[:-1]).norm(dim=1), (unit[1:] + unit[:-1]).norm(dim=1)
    return 2 * torch.atan2(apart, together)


def test_closed_form() -> None:
    a, b = (x / x.norm() for x in vectors(2))
    angle = math.acos(float(a @ b))
    for t, point in zip(T.tolist(), slerp(a, b, T), strict=True):
        expected = (math.sin((1 - t) * angle) * a + math.sin(t * angle) * b) / math.sin(angle)
        torch.testing.assert_close(point, expected, rtol=1e-12, atol=1e-12)


def test_constant_angular_speed_and_linear_length() -> None:
    a, b = vectors(2)
    a, b = 2 * a, 5 * b
    points = slerp(a, b, T)
    steps = angles(points)
    torch.testing.assert_close(steps, steps[:1].expand(10), rtol=1e-9, atol=0)
    assert steps.sum() == pytest.approx(math.acos(float(a @ b / a.norm() / b.norm())), rel=1e-9)
    torch.testing.assert_close(points.norm(dim=1), a.norm() + T * (b.norm() - a.norm()), rtol=1e-12, atol=0)


def test_float32_in_and_out() -> None:
    a, b = vectors(2).float()
    points = slerp(a, b, T.float())
    assert points.dtype == torch.float32
    torch.testing.assert_close(points[[0, -1]], torch.stack([a, b]), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("nz", [2, 16])
@pytest.mark.parametrize("off", [0.0, 1e-12, 1e-7, 1e-5])
def test_opposite_directions_turn_by_half_a_circle(nz: int, off: float) -> None:
    a, side = vectors(2, nz)
    b = -2 * a + off * side
    points = slerp(a, b, T)
    assert points.isfinite().all()
    torch.testing.assert_close(points[[0, -1]], torch.stack([a, b]), rtol=0, atol=1e-5)
    torch.testing.assert_close(angles(points), torch.full((10,), math.pi / 10, dtype=torch.float64), rtol=1e-4, atol=0)
    torch.testing.assert_close(points, slerp(a, b, T), rtol=0, atol=0)  # always the same one


@pytest.mark.parametrize("off", [0.0, 1e-12, 1e-7, 1e-5])
def test_the_same_direction_is_kept(off: float) -> None:
    a, side = vectors(2)
    b = 3 * a + off * side
    expected = torch.lerp(a, b, T[:, None])
    torch.testing.assert_close(slerp(a, b, T), expected, rtol=0, atol=1e-5)


def test_a_latent_of_length_zero() -> None:
    a = vectors(1)[0]
    points = slerp(torch.zeros_like(a), a, T)
    assert points.isfinite().all()
    torch.testing.assert_close(points[[0, -1]], torch.stack([torch.zeros_like(a), a]))


@pytest.mark.parametrize("easing", ["linear", "smooth"])
class TestPath:
    def test_goes_through_every_keyframe(self, easing: str) -> None:
        keyframes = vectors(3)
        points = path(keyframes, 5, loop=False, easing=easing)  # type: ignore[arg-type]
        assert points.shape == (11, 16)
        torch.testing.assert_close(points[::5], keyframes)

    def test_a_loop_ends_one_step_before_its_first_frame(self, easing: str) -> None:
        keyframes = vectors(3)
        points = path(keyframes, 5, loop=True, easing=easing)  # type: ignore[arg-type]
        assert points.shape == (15, 16)
        torch.testing.assert_close(points[::5], keyframes)
        opened = path(torch.cat([keyframes, keyframes[:1]]), 5, loop=False, easing=easing)  # type: ignore[arg-type]
        torch.testing.assert_close(points, opened[:-1])
        torch.testing.assert_close(points[0], opened[-1])

    def test_one_frame_a_keyframe(self, easing: str) -> None:
        keyframes = vectors(4)
        torch.testing.assert_close(path(keyframes, 1, loop=True, easing=easing), keyframes)  # type: ignore[arg-type]


def test_linear_turns_at_one_speed_and_smooth_rests_at_keyframes() -> None:
    keyframes = vectors(2)
    linear = angles(path(keyframes, 10, loop=False, easing="linear"))
    torch.testing.assert_close(linear, linear[:1].expand(10), rtol=1e-9, atol=0)
    smooth = angles(path(keyframes, 10, loop=False, easing="smooth"))
    assert smooth[0] < 0.3 * linear[0]
    assert smooth[-1] < 0.3 * linear[0]
    assert smooth[5] > 1.4 * linear[0]


@pytest.mark.parametrize("easing", EASINGS.values(), ids=EASINGS.keys())
def test_easings_go_from_0_to_1_and_never_back(easing: object) -> None:
    eased = easing(T)  # type: ignore[operator]
    assert (eased[0], eased[-1]) == (0, 1)
    assert (eased.diff() > 0).all()
    torch.testing.assert_close(eased + eased.flip(0), torch.ones_like(T))  # there as back
