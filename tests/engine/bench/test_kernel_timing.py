"""What ``bench kernels`` times on a GPU, here on the CPU with a clock that only runs it."""

import pytest
import torch

from fastgan_engine.bench import kernel_timing
from fastgan_engine.bench.kernel_timing import BUILDERS, PASSES, largest_launches, time_launch
from fastgan_engine.kernels.launch import Launch

OPS = {"norm_glu", "norm_lrelu", "sle", "diffaug", "lpips_distance", "up_conv"}


@pytest.fixture(scope="module")
def launches() -> list[Launch]:
    return largest_launches(64, 1, torch.float32)


def test_each_operation_has_its_largest_maps(launches: list[Launch]) -> None:
    assert {launch.name for launch in launches} == set(BUILDERS)
    cases = {(case := BUILDERS[launch.name](launch, "meta")).op: case for launch in launches}
    assert set(cases) == OPS
    # G's last block at 64, and a batch of reals and fakes in D's norms.
    assert cases["norm_glu"].tensors["x"].shape[2:] == (64, 64)
    assert cases["norm_lrelu"].tensors["x"].shape[0] == 2
    assert cases["diffaug"].tensors["x"].shape == (1, 3, 64, 64)


def test_every_pass_runs_and_has_bytes(launches: list[Launch], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, dynamic: function)

    def clock(closure):  # type: ignore[no-untyped-def]
        closure()
        return 2.0, 1.0, 3.0

    # Triton's own run on fake tensors, for their bytes; the interpreter would take minutes.
    plain = ("eager", "compile")
    monkeypatch.setattr(kernel_timing, "CONTENDERS", plain)
    for launch in launches:
        rows = time_launch(launch, "cpu", clock, copy_rate=100.0)
        assert [(row["contender"], row["pass"]) for row in rows] == [(c, p) for c in plain for p in PASSES]
        for row in rows:
            assert row["bytes_minimum"] > 0
            assert row["gb_s"] == pytest.approx(row["bytes_minimum"] / 2e-3 / 1e9)
            assert row["of_copy"] == pytest.approx(row["gb_s"] / 100)
        of = {row["pass"]: row["bytes_minimum"] for row in rows}
        assert of["both"] == of["forward"] + of["backward"]


def test_bytes_of_a_norm_are_those_of_its_maps(launches: list[Launch]) -> None:
    """Forward reads x twice and writes y: 5 maps of C; backward reads x and g twice and writes dx: 8."""
    (launch,) = (launch for launch in launches if launch.name == "norm_glu_apply_kernel")
    case = BUILDERS[launch.name](launch, "meta")
    channels = case.tensors["x"].numel() // 2 * 4
    least = kernel_timing.minimum_bytes(launch)
    assert 5 * channels < least["forward"] < 5.6 * channels
    assert 8 * channels < least["backward"] < 8.8 * channels
