"""What ``bench kernels`` times on a GPU, here on the CPU with a clock that only runs it."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from fastgan_engine.bench import kernel_timing
from fastgan_engine.bench.kernel_cases import BUILDERS, WHOLE, Case, largest_launches
from fastgan_engine.bench.kernel_timing import PASSES, closures, minimum_bytes, time_case
from fastgan_engine.config import Config
from fastgan_engine.kernels import adam_ema_kernels, spectral_plan
from fastgan_engine.kernels.launch import Launch
from tests.engine.small import small_config

OPS = {"norm_glu", "norm_lrelu", "lrelu_pool", "sle", "diffaug", "conv_relu", "conv_tap", "hinge"}
OF_ALL = {"spectral", "up_conv", "adam_ema", "batch"}


@pytest.fixture(scope="module")
def launches() -> list[Launch]:
    return largest_launches(64, 1, torch.float32)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Config:
    """Few programs run over its networks: the interpreter's time goes by them."""
    for module, name in ((adam_ema_kernels, "CHUNK"), (spectral_plan, "CHUNK")):
        monkeypatch.setattr(module, name, 1 << 15)
    for name in ("TILE", "STEP"):
        monkeypatch.setattr(spectral_plan, name, 256)
    return small_config()


def makers(launches: list[Launch], config: Config):  # type: ignore[no-untyped-def]
    yield from (lambda device, launch=launch: BUILDERS[launch.name](launch, device) for launch in launches)
    yield from (lambda device, build=build: build(config, torch.float32, device) for build in WHOLE)


def test_each_operation_has_its_largest_maps(launches: list[Launch]) -> None:
    assert {launch.name for launch in launches} == set(BUILDERS)
    cases = {(case := BUILDERS[launch.name](launch, "meta")).op: case for launch in launches}
    assert set(cases) == OPS
    # G's last block at 64, and a batch of reals and fakes in D's norms.
    assert cases["norm_glu"].tensors["x"].shape[2:] == (64, 64)
    assert cases["norm_lrelu"].tensors["x"].shape[0] == 2
    assert cases["diffaug"].tensors["x"].shape == (1, 3, 64, 64)
    # Three reconstructions of 32 x 32 and two targets go through VGG16.
    assert cases["conv_tap"].tensors["x"].shape == (3, 64, 32, 32)
    assert cases["conv_tap"].tensors["target"].shape == (2, 64, 32, 32)
    assert cases["hinge"].tensors["logits"].shape == (2, 50)


def test_every_pass_runs_and_has_bytes(launches: list[Launch], small: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, dynamic: function)

    def clock(closure):  # type: ignore[no-untyped-def]
        closure()
        return 2.0, 1.0, 3.0

    # Triton's own run on fake tensors, for their bytes; the interpreter would take minutes.
    plain = ("eager", "compile")
    monkeypatch.setattr(kernel_timing, "CONTENDERS", plain)
    timed = set()
    for make in makers(launches, small):
        rows = time_case(make, "cpu", clock, copy_rate=100.0)
        timed.add(rows[0]["op"])
        passes = PASSES if rows[0]["op"] not in ("adam_ema", "batch") else ("forward",)
        assert [(row["contender"], row["pass"]) for row in rows] == [(c, p) for c in plain for p in passes]
        for row in rows:
            assert row["bytes_minimum"] > 0
            assert row["gb_s"] == pytest.approx(row["bytes_minimum"] / 2e-3 / 1e9)
            assert row["of_copy"] == pytest.approx(row["gb_s"] / 100)
        of = {row["pass"]: row["bytes_minimum"] for row in rows}
        assert len(of) == 1 or of["both"] == of["forward"] + of["backward"]
    assert timed == OPS | OF_ALL


def tiny(name: str) -> Launch:
    """A launch of which only the tensors' shapes matter."""
    shapes = {
        "norm_glu_apply_kernel": {"x_ptr": (2, 8, 3, 5), "mean_ptr": (8,)},
        "norm_lrelu_apply_kernel": {
            "x_ptr": (4, 6, 2, 4),
            "mean_ptr": (2, 6),
            "residual_ptr": (4, 6, 2, 4),
            "gate_ptr": (4, 6),
            "pooled_ptr": (4, 6, 1, 2),
        },
        "lrelu_pool_kernel": {"x_ptr": (2, 6, 2, 4)},
        "pool4_kernel": {"low_ptr": (2, 4, 8, 6)},
        "diffaug_apply_kernel": {"x_ptr": (2, 3, 9, 8)},
        "conv_relu_kernel": {"x_ptr": (2, 16, 4, 5)},
        "conv_tap_kernel": {"x_ptr": (3, 16, 4, 5), "target_ptr": (2, 16, 4, 5)},
        "hinge_fwd_kernel": {"logits_ptr": (4, 10)},
    }
    return SimpleNamespace(tensors={key: torch.empty(shape) for key, shape in shapes[name].items()})  # type: ignore[return-value]


def results(case: Case, contender: str) -> list[Tensor]:
    """Outputs and gradients of one call."""
    found = closures(case, contender)
    values = [value for name in ("forward", "both") if name in found for value in _flat(found[name]())]
    return [value.detach().clone() for value in values]


def _flat(value: Tensor | tuple[Tensor, ...] | None) -> list[Tensor]:
    return [] if value is None else [value] if isinstance(value, Tensor) else list(value)


@pytest.mark.parametrize("name", BUILDERS)
def test_the_contenders_of_a_map_agree(name: str) -> None:
    case = BUILDERS[name](tiny(name), "cpu")
    torch.testing.assert_close(results(case, "triton"), results(case, "eager"), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("build", WHOLE, ids=lambda build: build.__name__)
def test_the_contenders_of_a_network_agree(build, small: Config) -> None:  # type: ignore[no-untyped-def]
    found = []
    for contender in ("triton", "eager"):
        torch.manual_seed(0)
        case = build(small, torch.float32, "cpu")
        found.append([*results(case, contender), *(value.detach() for value in case.tensors.values())])
    for got, wanted in zip(*found, strict=True):
        largest = wanted.abs().max().item() if wanted.dtype.is_floating_point else 0
        torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4 * max(1.0, largest))


def test_bytes_of_a_norm_are_those_of_its_maps(launches: list[Launch]) -> None:
    """Forward reads x twice and writes y: 5 maps of C; backward reads x and g twice and writes dx: 8."""
    (launch,) = (launch for launch in launches if launch.name == "norm_glu_apply_kernel")
    case = BUILDERS[launch.name](launch, "meta")
    channels = case.tensors["x"].numel() // 2 * 4
    least = minimum_bytes(lambda device: BUILDERS[launch.name](launch, device))
    assert 5 * channels < least["forward"] < 5.6 * channels
    assert 8 * channels < least["backward"] < 8.8 * channels
