"""A flower painted from formulas, centred on its image.

Everything varies (petals, their shape, rows, curl, colours, light, background), and the layout does not: few enough
images teach a GAN what all of them share. A flower is painted back to front in float RGB at ``SUPERSAMPLE`` times the
size: background, leaves, rows of petals with their shadows, and the heart as a spiral of florets.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]  # float32 throughout: Python's floats do not widen it, NumPy's scalars would
Point = tuple[float, float]

SUPERSAMPLE = 2
SHOULDER = 0.8
GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))
LIGHT = (-0.45, -0.62, 0.64)  # from the upper left, towards the viewer


@dataclass(frozen=True)
class Palette:
    """Colours of one kind of flower, as ``rrggbb``: the petals', the heart's inside and outside, the background's."""

    base: str
    middle: str
    tip: str
    heart: str
    rim: str
    top: str
    bottom: str


PALETTES = (
    Palette("7a0f3c", "e0407f", "ffb3cb", "f8cf4a", "b8641c", "eaf3ea", "a9c9b8"),  # pink on sage
    Palette("8c1d0c", "ee5a2a", "ffb05c", "5b2312", "2c0f0a", "fdf1dc", "e6c89c"),  # orange on sand
    Palette("3a1c78", "7b57d1", "c9b6ff", "fbd65a", "c9822a", "f3effa", "b9b4de"),  # violet on lilac
    Palette("c98a00", "ffc61a", "fff0a0", "7a3b12", "40200c", "e4f2fb", "9cc4e0"),  # yellow on sky
    Palette("f3cf9a", "fdf6ea", "ffffff", "ffc93c", "d98a14", "7fb7a4", "2f6f69"),  # white on teal
    Palette("12337f", "3f7fdc", "a8d4ff", "ffe79a", "d3a13a", "fbf4e6", "e2d2b0"),  # blue on cream
    Palette("6a0614", "c8182f", "ff6a66", "2b1414", "140a0a", "dfe8e4", "8fa8a4"),  # red on grey green
    Palette("b0305a", "ff8f8a", "ffe0c4", "fff0a8", "e0a038", "2f4a66", "162438"),  # coral on midnight
)


def draw_flower(size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """One flower: uint8 [size, size, 3]."""
    palette = PALETTES[rng.integers(len(PALETTES))]
    colours = {name: _vary(_rgb(value), rng) for name, value in vars(palette).items()}
    painter = _Painter(size * SUPERSAMPLE)
    centre = (float(rng.normal(0, 0.025)), float(rng.normal(0, 0.025)))
    _background(painter, colours, rng)
    _leaves(painter, centre, rng)
    _petals(painter, centre, colours, rng)
    _heart(painter, centre, colours, rng)
    light = np.maximum(painter.canvas - SHOULDER, 0)  # highlights level off instead of clipping
    painter.canvas += (1 - SHOULDER) * np.tanh(light / (1 - SHOULDER)) - light
    image = painter.canvas.clip(0, 1).reshape(3, size, SUPERSAMPLE, size, SUPERSAMPLE).mean((2, 4))
    return np.ascontiguousarray(np.round(image * 255).astype(np.uint8).transpose(1, 2, 0))


class _Painter:
    """A float RGB canvas [3, H, W] over the square [-1, 1] x [-1, 1], y downwards; shapes are laid on one by one."""

    def __init__(self, pixels: int) -> None:
        self.step = 2 / pixels
        axis = (np.arange(pixels, dtype=np.float32) + 0.5) * np.float32(self.step) - 1
        self.x, self.y = axis[None, :], axis[:, None]
        self.canvas = np.zeros((3, pixels, pixels), np.float32)

    def window(self, centre: Point, radius: float) -> "_Window":
        """The square of ``radius`` around a point, cut at the border."""
        return _Window(self, *(self._span(c, radius) for c in centre))

    def _span(self, middle: float, radius: float) -> slice:
        first, last = ((middle + offset + 1) / self.step for offset in (-radius, radius))
        return slice(max(0, math.floor(first)), max(0, math.ceil(last)))


class _Window:
    """A part of the canvas, with its coordinates."""

    def __init__(self, painter: _Painter, columns: slice, rows: slice) -> None:
        self.step = painter.step
        self.x, self.y = painter.x[:, columns], painter.y[rows]
        self.area = painter.canvas[:, rows, columns]

    def turned(self, origin: Point, angle: float, length: float) -> tuple[Array, Array]:
        """Coordinates along and across ``angle``, from ``origin``, in units of ``length``."""
        x, y = (self.x - origin[0]) / length, (self.y - origin[1]) / length
        cos, sin = math.cos(angle), math.sin(angle)
        return x * cos + y * sin, y * cos - x * sin

    def lay(self, inside: Array, colour: Array) -> None:
        """Blend ``colour`` [3, h, w] over what is there where ``inside``, a distance from the edge, is positive."""
        self.area += _smooth(self.step, inside) * (colour - self.area)

    def shade(self, inside: Array, softness: float, amount: float) -> None:
        """Darken by ``amount`` (0 to 1) where ``inside`` is positive, fading over ``softness``; less in blue."""
        shadow = amount * _smooth(softness, inside)
        self.area *= 1 - shadow * _column((1.0, 1.0, 0.85))


def _column(colour: Sequence[float] | Array) -> Array:
    """A colour as [3, 1, 1]."""
    return np.asarray(colour, np.float32).reshape(3, 1, 1)


def _rgb(value: str) -> Array:
    return _column([int(value[i : i + 2], 16) / 255 for i in (0, 2, 4)])


def _vary(colour: Array, rng: np.random.Generator) -> Array:
    """A neighbour of ``colour``."""
    return np.clip(colour * rng.normal(1, 0.03) + rng.normal(0, 0.025, (3, 1, 1)), 0, 1).astype(np.float32)


def _smooth(edge: float, t: Array) -> Array:
    """0 below ``-edge``, 1 above ``edge``, smooth between."""
    t = np.clip(t * (0.5 / edge) + 0.5, 0, 1)
    return t * t * (3 - 2 * t)


def _background(painter: _Painter, colours: dict[str, Array], rng: np.random.Generator) -> None:
    tilt = rng.uniform(-0.4, 0.4)
    x, y = painter.x, painter.y
    t = np.clip(0.5 + 0.45 * (y * math.cos(tilt) + x * math.sin(tilt)), 0, 1)
    glow = 0.10 * np.exp((x * x + y * y) / -0.8)
    painter.canvas += colours["top"] + t * (colours["bottom"] - colours["top"])
    painter.canvas += glow * (1 - painter.canvas)


def _leaves(painter: _Painter, centre: Point, rng: np.random.Generator) -> None:
    green = _vary(_column((0.24, 0.47, 0.25)), rng)
    for side in (-1, 1):
        angle = math.pi / 2 + side * rng.uniform(0.55, 0.95)
        _leaf(painter, centre, angle, rng.uniform(0.86, 1.0), green)


def _leaf(painter: _Painter, centre: Point, angle: float, length: float, green: Array) -> None:
    window = painter.window(_towards(centre, angle, 0.6 * length), 0.5 * length)
    u, v = window.turned(centre, angle, length)
    along = np.clip(u, 0, 1)
    v = v - 0.08 * np.sin(math.pi * along)
    inside = length * np.minimum(0.38 * np.sqrt(along) * (1 - along) ** 0.75 - np.abs(v), 1 - u)
    window.shade(inside - 0.02, 0.07, 0.28)
    halves = np.tanh(60 * v)  # the leaf is folded along its middle vein
    veins = np.cos(60 * (u - 1.2 * np.abs(v)))
    window.lay(inside, (0.85 + 0.35 * along + 0.16 * halves + 0.05 * veins) * green)


def _petals(painter: _Painter, centre: Point, colours: dict[str, Array], rng: np.random.Generator) -> None:
    """One to three rows, the outer ones first, each turned by half a petal against the last."""
    petals = int(rng.choice([5, 6, 7, 8, 10]))
    rows = int(rng.integers(1, 4)) if petals < 10 else 2
    shape = _Shape(
        width=rng.uniform(0.90, 1.14) * math.pi / petals,
        belly=rng.uniform(0.55, 0.78),
        point=rng.uniform(-0.6, 0.9),
        curl=rng.uniform(0.3, 1.0),
        veins=rng.uniform(0.0, 0.05),
        twist=rng.uniform(-0.18, 0.18),
    )
    length = rng.uniform(0.70, 0.82)
    turn = rng.normal(0, 0.05) - math.pi / 2
    for row in range(rows):
        for k in rng.permutation(petals):
            angle = turn + (k + 0.5 * row) * 2 * math.pi / petals + rng.normal(0, 0.03)
            reach = length * 0.76**row * rng.normal(1, 0.02)
            _petal(painter, centre, float(angle), float(reach), shape, colours, brightness=1 + 0.07 * row)


@dataclass(frozen=True)
class _Shape:
    """What the petals of one flower share; lengths relative to the petal's."""

    width: float  # half the angle it spans, in radians
    belly: float  # where it is widest
    point: float  # its tip: from -1, notched, over 0, round, to 1, pointed
    curl: float  # how far its edges and tip bend
    veins: float  # how much they show
    twist: float  # how far its tip leans sideways

    @property
    def reach(self) -> float:
        """Half the side of a square around the petal's middle that holds it, however it is turned."""
        return max(0.58, math.tan(self.width) * self.belly + abs(self.twist))


def _petal(
    painter: _Painter,
    centre: Point,
    angle: float,
    length: float,
    shape: _Shape,
    colours: dict[str, Array],
    brightness: float,
) -> None:
    window = painter.window(_towards(centre, angle, 0.5 * length), shape.reach * length + 0.06)
    u, v = window.turned(centre, angle, length)
    v = v - shape.twist * u * u
    half, inside = _outline(u, v, shape)
    inside *= length
    window.shade(inside - 0.015, 0.06, 0.34)
    along, across = np.clip(u, 0, 1), np.clip(v / half, -1, 1)
    first = np.clip(2 * along, 0, 1)
    colour = colours["base"] + first * (colours["middle"] - colours["base"])
    colour += np.clip(2 * along - 1, 0, 1) * (colours["tip"] - colours["middle"])
    light = _petal_light(along, across, angle, shape.curl)
    tone = 0.70 + 0.42 * light + shape.veins * np.cos(26 * across) * (1 - along)
    window.lay(inside, colour * (brightness * tone) + 0.16 * np.clip(light - 0.85, 0, 1))


def _petal_light(along: Array, across: Array, angle: float, curl: float) -> Array:
    """Lambert's law on a shallow cup whose tip bends away from the viewer, with a crease along its middle."""
    slope_along = curl * (0.55 - 1.5 * along)
    slope_across = curl * 0.9 * across - 0.22 * np.tanh(12 * across) * (1 - along)
    cos, sin = math.cos(angle), math.sin(angle)
    slope_x, slope_y = slope_along * cos - slope_across * sin, slope_along * sin + slope_across * cos
    x, y, z = LIGHT
    return (z - slope_x * x - slope_y * y) / np.sqrt(1 + slope_x * slope_x + slope_y * slope_y)


def _outline(u: Array, v: Array, shape: _Shape) -> tuple[Array, Array]:
    """Half the petal's width at ``u`` (never 0), and the distance from its edge, roughly, positive inside."""
    along = np.clip(u, 0, 1)
    below = np.sin(0.5 * math.pi * np.clip(along / shape.belly, 0, 1))
    above = np.clip((along - shape.belly) / (1 - shape.belly), 0, 1)
    pointed = max(shape.point, 0)
    rounding = np.clip(1 - above ** (2 - 0.7 * pointed), 0, 1) ** (0.5 + 0.25 * pointed)
    half = math.tan(shape.width) * shape.belly * below * rounding
    notch = 0.10 * max(-shape.point, 0) * np.exp(-((v / 0.06) ** 2))
    inside = np.minimum(half - np.abs(v), np.minimum(u, 1.6 * (1 - notch - u)))
    return np.maximum(half, 1e-3), inside


def _heart(painter: _Painter, centre: Point, colours: dict[str, Array], rng: np.random.Generator) -> None:
    """A disc of florets on a sunflower's spiral, each a small lit ball."""
    radius = rng.uniform(0.15, 0.22)
    window = painter.window(centre, radius + 0.12)
    inside = radius - np.hypot(window.x - centre[0], window.y - centre[1])
    window.shade(inside + 0.02, 0.07, 0.45)
    window.lay(inside, 0.7 * colours["rim"])
    florets = int(rng.integers(70, 110))
    for k in reversed(range(florets)):
        share = math.sqrt((k + 0.5) / florets)
        colour = colours["heart"] + share**2 * (colours["rim"] - colours["heart"])
        spot = _towards(centre, k * GOLDEN_ANGLE, radius * share)
        _ball(painter, spot, 1.25 * radius / math.sqrt(florets), colour * (1.18 if k % 3 == 0 else 1))


def _ball(painter: _Painter, spot: Point, radius: float, colour: Array) -> None:
    window = painter.window(spot, radius + painter.step)
    x, y = (window.x - spot[0]) / radius, (window.y - spot[1]) / radius
    square = x * x + y * y
    light = LIGHT[0] * x + LIGHT[1] * y + LIGHT[2] * np.sqrt(np.clip(1 - square, 0, 1))
    window.lay(0.5 * radius * (1 - square), (0.72 + 0.42 * np.clip(light, -0.3, 1)) * colour)


def _towards(start: Point, angle: float, distance: float) -> Point:
    return start[0] + distance * math.cos(angle), start[1] + distance * math.sin(angle)
