"""``bench ablation``: each opportunity is really off in its row, without changing what is computed."""

import json
from pathlib import Path
from unittest import mock

import pytest
import torch
from typer.testing import CliRunner

from fastgan_engine.bench import ablation, ablation_report
from fastgan_engine.bench.ablation import AGAIN, FUSED, GRAPH, NOTHING, ablate, time_ablation, variants
from fastgan_engine.bench.counting import Cost
from fastgan_engine.build import build_loss, build_state, build_step
from fastgan_engine.cli import app
from fastgan_engine.iteration import draw_for
from tests.engine.small import small_config

CPU = torch.device("cpu")
BUILT_IN = ("reals and fakes at once", "no D gradients in G step", "two targets for three")


@pytest.fixture(scope="module")
def counted() -> dict[str, Cost]:
    """At 64, with LPIPS, which the shared target belongs to; bytes are not looked at."""
    config = small_config(loss={"reconstruction": "lpips-vgg"}, train={"batch": 16})
    with mock.patch.object(ablation, "launch_traffic", return_value=lambda launch: 0):
        return ablate(config, torch.bfloat16)


def test_every_operation_and_every_built_in_has_a_row(counted: dict[str, Cost]) -> None:
    assert next(iter(counted)) == NOTHING
    assert {f"fused {op}" for op in FUSED} | set(BUILT_IN) < set(counted)
    assert GRAPH not in counted


def test_a_fused_operation_that_is_off_launches_no_kernel_of_its_own(counted: dict[str, Cost]) -> None:
    kernels = {op.name for op in counted[NOTHING].operations if op.triton}
    for name in ("norm_glu", "norm_lrelu", "diffaug", "spectral", "adam_ema", "hinge", "conv_relu", "conv_tap"):
        own = {kernel for kernel in kernels if kernel.startswith(name)}
        left = {op.name for op in counted[f"fused {name}"].operations if op.triton}
        assert own, name
        assert not own & left, name


def test_what_is_built_in_saves_work(counted: dict[str, Cost]) -> None:
    full = counted[NOTHING]
    saved = {name: counted[name].gflop - full.gflop for name in counted}
    # D's gradients in the G step, and a third batch of targets through VGG16 at 32 x 32.
    assert saved["no D gradients in G step"] > 0
    vgg = 15.35 * 2 * (32 / 224) ** 2  # GFLOP an image, its fully connected layers left out
    assert saved["two targets for three"] == pytest.approx(16 * vgg, rel=0.02)
    assert saved["transposed up_conv"] > 0
    assert saved["(G recomputed)"] > 0
    # The same work in two halves: more launches, no more arithmetic.
    assert saved["reals and fakes at once"] == pytest.approx(0, abs=1e-6)
    assert counted["reals and fakes at once"].ops > full.ops + 50


@pytest.mark.parametrize("name", [NOTHING, *BUILT_IN, "transposed up_conv", "(G recomputed)"])
def test_what_is_computed_stays_the_same(name: str) -> None:
    """Losses of one step, and G's weights after it."""
    torch.manual_seed(0)
    config = small_config(precision={"dtype": "fp32"}, loss={"reconstruction": "lpips-squeeze"}, train={"lr": 1e-30})
    reals = (torch.rand(2, 3, 64, 64) * 2 - 1).contiguous(memory_format=torch.channels_last)
    found = []
    for own in (NOTHING, name):
        variant = variants(config)[own]
        torch.manual_seed(0)  # of LPIPS
        with variant.off:
            state = build_state(variant.config, CPU, torch.float32)
            step = build_step(variant.config, state, build_loss(config, random_weights=True), torch.float32)
            losses = step(reals, draw_for(config, torch.Generator().manual_seed(1)))
        gradient = torch.cat([p.grad.flatten() for p in state.networks.generator.parameters() if p.grad is not None])
        found.append((torch.stack(list(losses)), gradient))
    (losses, gradient), (own_losses, own_gradient) = found
    torch.testing.assert_close(own_losses, losses, rtol=1e-4, atol=1e-5)
    assert (own_gradient - gradient).norm() < 1e-3 * gradient.norm()


def test_on_a_cpu_what_runs_there_anyway_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablation, "engine_step_ms", lambda config, iterations: 7.0)
    times = time_ablation(small_config(), 1)
    assert next(iter(times)) == NOTHING
    assert list(times)[-1] == AGAIN
    assert set(BUILT_IN) < set(times)
    assert not any(name.startswith("fused") or name == GRAPH for name in times)


def test_the_command_shows_and_writes_what_it_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastgan_engine.kernels.launch.INTERPRETED", False)
    a, b = Cost([]), Cost([])
    monkeypatch.setattr(ablation_report, "ablate", lambda *_: {NOTHING: a, "fused hinge": b})
    monkeypatch.setattr(ablation_report, "time_ablation", lambda *_: {NOTHING: 10.0, "fused hinge": 10.5, GRAPH: 12.0})
    file = tmp_path / "a.json"
    arguments = ["bench", "ablation", "--im-size", "64", "--device", "cpu", "--json", str(file)]
    counted_only = CliRunner().invoke(app, arguments)
    assert counted_only.exit_code == 0, counted_only.output
    assert "timed on" not in counted_only.output
    timed = CliRunner().invoke(app, [*arguments, "--time"])
    assert "timed on cpu" in timed.output
    assert "+0.50" in timed.output
    off = json.loads(file.read_text())["off"]
    assert off["fused hinge"] == {"ops": 0, "gflop": 0, "gbytes": 0, "ms": 10.5}
    assert off[GRAPH] == {"ms": 12.0}
