"""Every default of the latent tools, once, and the names of their choices. Standard library only: the command line's
help reads them."""

from typing import Literal

Easing = Literal["smooth", "linear"]
EASING: Easing = "smooth"
FRAMES = 30  # from one keyframe to the next
FPS = 30.0

MetricName = Literal["lpips", "lpips-squeeze", "pixels"]
METRIC: MetricName = "lpips"

NEIGHBORS = 3
# Pixels a side at which neighbours are looked for: few, so that texture and shifts do not hide a copy.
NEIGHBOR_SIZES: dict[MetricName, int] = {"lpips": 128, "lpips-squeeze": 128, "pixels": 32}

STEPS = 300
LR = 0.1
RESTARTS = 4
# Pixels a side, at most, at which an inversion's metric looks at the images.
INVERSION_SIZES: dict[MetricName, int] = {"lpips": 256, "lpips-squeeze": 256, "pixels": 1024}
