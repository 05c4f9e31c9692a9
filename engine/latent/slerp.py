"""The way between latents: spherical, so that what lies between two is as likely as they are."""

from collections.abc import Callable

import torch
from torch import Tensor

from fastgan_engine.latent.defaults import Easing

EASINGS: dict[Easing, Callable[[Tensor], Tensor]] = {
    "linear": lambda t: t,
    "smooth": lambda t: t * t * (3 - 2 * t),  # smoothstep: stands still at both ends
}

# Below this sine of the angle, two directions do not tell in which plane they lie.
PARALLEL = 1e-6


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Points [n, nz] between a and b [nz] at the fractions t [n] of the angle between them.

    The direction turns at constant angular speed (Shoemake, "Animating Rotation with Quaternion Curves", 1985); the
    length goes linearly. Where a and b point the same way the direction stays; where they are opposite, every great
    circle is as short, and one is taken, always the same. Computed in float64; returned in a's dtype.
    """
    start, end, t = a.double(), b.double(), t.double()[:, None]
    length_a, length_b = start.norm(), end.norm()
    u, v = (x / x.norm().clamp_min(torch.finfo(x.dtype).tiny) for x in (start, end))
    across = v - (u @ v) * u  # the part of v that is perpendicular to u; its length is the sine of the angle
    angle = torch.atan2(across.norm(), u @ v)
    normal = across / across.norm() if across.norm() > PARALLEL else _perpendicular(u)
    direction = torch.cos(t * angle) * u + torch.sin(t * angle) * normal
    return (direction * torch.lerp(length_a, length_b, t)).to(a.dtype)


def _perpendicular(u: Tensor) -> Tensor:
    """A unit vector perpendicular to the unit vector u: the axis that u has least of, without its part along u."""
    axis = torch.zeros_like(u)
    axis[u.abs().argmin()] = 1
    axis -= (u @ axis) * u
    return axis / axis.norm()


def path(keyframes: Tensor, frames: int, *, loop: bool, easing: Easing) -> Tensor:
    """Latents [F, nz] along keyframes [K, nz], ``frames`` steps from each to the next.

    Without ``loop`` F = (K - 1) frames + 1, from the first keyframe to the last. With it F = K frames: the last goes on
    to the first, and the step from the last frame to the first is one like the others.
    """
    t = EASINGS[easing](torch.arange(frames, dtype=torch.float64, device=keyframes.device) / frames)
    ends = keyframes.roll(-1, 0)
    segments = len(keyframes) - (not loop)
    parts = [slerp(a, b, t) for a, b in zip(keyframes[:segments], ends[:segments], strict=True)]
    return torch.cat(parts if loop else [*parts, keyframes[-1:]])
