"""A tick's report for the tests of what shows it."""

from dataclasses import replace
from typing import Any

from fastgan_engine.report import Memory, TickReport

REPORT = TickReport(
    step=1_234,
    steps=50_000,
    images_per_second=123.45,
    ms_step=64.8,
    ms_data=1.2,
    ms_d=30.4,
    ms_g=33.2,
    memory=Memory(used=3.14, reserved=3.87, budget=7.79),
    losses={"d_real": 0.9123, "d_fake": 0.8456, "reconstruction": 12.3456, "g": -0.1234},
    seconds_left=7_512.3,
)
CPU = Memory(used=1.26)


def report(**changes: Any) -> TickReport:
    return replace(REPORT, **changes)
