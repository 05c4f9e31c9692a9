"""One iteration against the plain loop, learning rates, noise amplitudes, and what is cached for a stage."""

import copy

import pytest
import torch

from fastgan_engine.bench.single_plain import PlainStep, generate
from fastgan_engine.single.inputs import Inputs
from fastgan_engine.single.state import build_optimizers
from fastgan_engine.single.step import SingleLosses, StageStep
from tests.engine.single.small import begun, small_single

MODES = ["generate", "retarget", "harmonize", "edit", "animate"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stage", [0, 3], ids=["first-stage", "with-frozen-stages"])
def test_two_iterations_are_those_of_the_plain_loop(mode: str, stage: int) -> None:
    single = small_single(mode=mode)
    state, reals, sizes = begun(single, stage, torch.float64)
    start = copy.deepcopy(list(state.networks.generator.parameters()))
    inputs = Inputs(single, reals[0], state.generator)
    plain = PlainStep(state, single, reals[stage], sizes)
    step = StageStep(state, single, reals[stage], sizes)
    for iteration in range(2):
        inputs.fetch(iteration)
        draws = inputs.draw(sizes)
        draws = draws._replace(noise=[z.double() for z in draws.noise], mixes=draws.mixes.double())
        for name, a, b in zip(SingleLosses._fields, step(draws), plain(draws), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}")
    for network, expected in zip(state.modules(), (plain.generator, plain.discriminator), strict=True):
        for (name, a), b in zip(network.named_parameters(), expected.parameters(), strict=True):
            # Adam divides by |gradient| + 1e-8: where a gradient is zero but for rounding (D's last bias, biases before
            # batch norm), only the step's size is bounded.
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7, msg=lambda text, name=name: f"{name}: {text}")
    moved = [not torch.equal(a, b) for a, b in zip(start, state.networks.generator.parameters(), strict=True)]
    assert any(moved)


def test_frozen_stages_and_head_do_not_move_and_the_others_do() -> None:
    single = small_single(train_depth=2)
    state, reals, sizes = begun(single, 3, torch.float32)
    generator = state.networks.generator
    before = {name: value.clone() for name, value in generator.named_parameters()}
    StageStep(state, single, reals[3], sizes)(Inputs(single, reals[0], state.generator).draw(sizes))
    for name, value in generator.named_parameters():
        frozen = name.startswith(("head.", "stages.0.", "stages.1."))
        assert torch.equal(value, before[name]) == frozen, name


@pytest.mark.parametrize(
    ("stage", "rates"),
    [
        (0, [5e-4, 5e-4, 5e-4]),  # stage 0, head, tail
        (2, [5e-6, 5e-5, 5e-4, 5e-6, 5e-4]),  # stages 0 to 2, head, tail
        (3, [5e-6, 5e-5, 5e-4, 5e-4]),  # stages 1 to 3, tail: the head is frozen
    ],
)
def test_learning_rates(stage: int, rates: list[float]) -> None:
    single = small_single(train_depth=3)
    state, _, _ = begun(single, stage, torch.float32)
    opt_g, opt_d = build_optimizers(single, state.networks, stage)
    assert [group["lr"] for group in opt_g.param_groups] == pytest.approx(rates)
    assert [group["lr"] for group in opt_d.param_groups] == [5e-4]
    generator = state.networks.generator
    first = max(0, stage - 2)
    expected = [*generator.stages[first:], *([generator.head] if stage < 3 else []), generator.tail]
    for group, module in zip(opt_g.param_groups, expected, strict=True):
        assert [id(p) for p in group["params"]] == [id(p) for p in module.parameters()]
    for optimizer in (opt_g, opt_d):
        assert all(group["betas"] == (0.5, 0.999) for group in optimizer.param_groups)


def test_noise_amplitudes_are_a_tenth_of_the_reconstructions_error_before_the_stage_trains() -> None:
    single = small_single()
    state, reals, sizes = begun(single, 2, torch.float64)
    assert state.amplitudes[0] == 1
    for stage in (1, 2):
        stages = state.networks.generator.stages
        generator = copy.deepcopy(state.networks.generator)
        generator.stages = copy.deepcopy(stages[: stage + 1])
        with torch.no_grad():
            made = generate(generator, state.fixed[: stage + 1], sizes, [*state.amplitudes[:stage], 0.0])
        rmse = (made - reals[stage]).square().mean().sqrt().item()
        assert rmse > 0.1
        assert state.amplitudes[stage] == pytest.approx(0.1 * rmse, rel=1e-9)


def test_what_is_cached_of_the_reconstruction_is_what_would_be_computed_again_after_training() -> None:
    single = small_single()
    state, reals, sizes = begun(single, 3, torch.float32)
    step = StageStep(state, single, reals[3], sizes)
    inputs = Inputs(single, reals[0], state.generator)
    for _ in range(3):
        step(inputs.draw(sizes))
    again = state.networks.generator.entry(2, state.fixed, sizes, state.amplitudes)
    assert step.frozen is not None
    assert again is not None
    for kept, now in zip(step.frozen, again, strict=True):
        assert torch.equal(kept, now)


def test_in_bf16_the_losses_are_near_and_weights_and_penalty_stay_in_fp32() -> None:
    single = small_single()
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        state, reals, sizes = begun(single, 3, torch.float32)
        step = StageStep(state, single, reals[3], sizes, dtype)
        found[dtype] = step(Inputs(single, reals[0], state.generator).draw(sizes))
        assert all(weight.dtype == torch.float32 for network in state.modules() for weight in network.parameters())
    for name, exact, rounded in zip(SingleLosses._fields, *found.values(), strict=True):
        assert rounded.dtype == torch.float32
        assert rounded.item() == pytest.approx(exact.item(), rel=0.1, abs=0.05), name
    assert found[torch.bfloat16] != found[torch.float32]
