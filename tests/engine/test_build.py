"""From a configuration to networks, optimizers and scalers."""

import importlib.util

import pytest
import torch
from torch import nn

from fastgan_engine.build import build_networks, build_optimizer, build_state, build_step
from fastgan_engine.errors import UserError
from fastgan_engine.reconstruction import ReconstructionLoss

from .small import small_config

CPU = torch.device("cpu")


def test_networks_are_reproducible_from_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = build_networks(small_config(train={"seed": 5}), CPU)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    second = build_networks(small_config(train={"seed": 5}), CPU)
    other = build_networks(small_config(train={"seed": 6}), CPU)
    assert torch.equal(torch.get_rng_state(), before)
    for name in ("generator", "discriminator", "ema"):
        got, wanted = getattr(second, name).state_dict(), getattr(first, name).state_dict()
        torch.testing.assert_close(dict(got), dict(wanted), rtol=0, atol=0)
    assert not torch.equal(other.generator.to_big.weight_orig, first.generator.to_big.weight_orig)


def test_average_begins_as_the_generator_and_takes_no_gradient() -> None:
    networks = build_networks(small_config(), CPU)
    live, ema = networks.generator.state_dict(), networks.ema.state_dict()
    for name, value in live.items():
        assert ema[name].data_ptr() != value.data_ptr()
        if not name.endswith(("weight_u", "weight_v")):
            assert torch.equal(ema[name], value), name
    assert not any(p.requires_grad for p in networks.ema.parameters())
    assert all(p.requires_grad for p in networks.generator.parameters())


def test_average_can_be_sampled_before_the_first_step() -> None:
    """Its spectral norms are near the true ones; those that random vectors give are not."""

    def ratios(network: nn.Module) -> list[float]:
        found = []
        for module in network.modules():
            if hasattr(module, "weight_orig"):
                weight = module.weight_orig.detach().double()
                weight = weight.transpose(0, 1) if isinstance(module, nn.ConvTranspose2d) else weight
                u, v = module.weight_u.double(), module.weight_v.double()
                assert (u.norm().item(), v.norm().item()) == pytest.approx((1, 1), abs=1e-5)
                matrix = weight.flatten(1)
                found.append((u @ matrix @ v / torch.linalg.svdvals(matrix)[0]).item())
        return found

    networks = build_networks(small_config(), CPU)
    assert min(ratios(networks.ema)) > 0.85
    assert min(ratios(networks.generator)) < 0.5


def test_configuration_reaches_the_networks() -> None:
    model = {"im_size": 128, "nz": 24, "ngf": 16, "ndf": 8, "nc": 4, "skip": False, "decode": False, "tanh": "always"}
    networks = build_networks(small_config(model=model), CPU)
    generator, discriminator = networks.generator, networks.discriminator
    for name in ("im_size", "nz", "ngf", "nc", "skip", "tanh"):
        assert getattr(generator, name) == getattr(networks.ema, name) == model[name]
    for name in ("im_size", "ndf", "nc", "skip", "decode"):
        assert getattr(discriminator, name) == model[name]
    assert networks.device == CPU


@pytest.mark.parametrize("channels_last", [True, False])
def test_memory_format(channels_last: bool) -> None:
    networks = build_networks(small_config(), CPU, channels_last=channels_last)
    weight = networks.discriminator.down_from_small[0].weight_orig  # 4 x 4, three channels: the formats differ
    assert weight.is_contiguous(memory_format=torch.channels_last) is channels_last


@pytest.mark.parametrize(("step", "expected"), [("auto", True), ("eager", True), ("compile", False)])
def test_the_engines_own_step_is_always_channels_last(step: str, expected: bool) -> None:
    """Its kernels take nothing else; torch.compile takes what it is given."""
    config = small_config(engine={"step": step}, precision={"channels_last": False})
    state = build_state(config, CPU, torch.float32)
    weight = state.networks.discriminator.down_from_small[0].weight_orig
    assert weight.is_contiguous(memory_format=torch.channels_last) is expected
    assert any("precision.channels_last = false has no effect" in line for line in config.warnings()) is expected


def test_adam_has_the_configured_settings() -> None:
    config = small_config(train={"lr": 3e-4, "beta1": 0.25, "beta2": 0.9})
    network = nn.Linear(2, 2)
    optimizer = build_optimizer(config, network)
    assert isinstance(optimizer, torch.optim.Adam)
    (group,) = optimizer.param_groups
    assert (group["lr"], group["betas"], group["weight_decay"]) == (3e-4, (0.25, 0.9), 0)
    assert group["params"] == list(network.parameters())


def test_optimizer_of_the_generator_moves_the_average() -> None:
    state = build_state(small_config(train={"lr": 0.5, "ema_decay": 0.75}), CPU, torch.float32)
    live, ema = state.networks.generator, state.networks.ema
    before = [p.clone() for p in ema.parameters()]
    for p in (*live.parameters(), *state.networks.discriminator.parameters()):
        p.grad = torch.ones_like(p)
    state.opt_d.step()
    torch.testing.assert_close(list(ema.parameters()), before, rtol=0, atol=0)
    state.opt_g.step()
    wanted = [0.75 * old + 0.25 * new for old, new in zip(before, live.parameters(), strict=True)]
    torch.testing.assert_close(list(ema.parameters()), wanted)


def test_missing_apex_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "amp_C" else found(name))
    config = small_config(engine={"optimizer": "apex", "device": "auto"})
    with pytest.raises(
        UserError, match=r"(?s)engine.optimizer = \"apex\" needs NVIDIA apex.*another project.*\"adam\""
    ):
        build_optimizer(config, nn.Linear(2, 2))


@pytest.mark.parametrize(("dtype", "scaled"), [(torch.float32, False), (torch.bfloat16, False), (torch.float16, True)])
def test_only_fp16_scales_its_losses_each_network_for_itself(dtype: torch.dtype, scaled: bool) -> None:
    state = build_state(small_config(), CPU, dtype)
    assert {name: scaler.is_enabled() for name, scaler in state.scalers.items()} == {"d": scaled, "g": scaled}
    assert state.scalers["d"] is not state.scalers["g"]
    assert state.step == 0


def test_step_has_the_configured_settings() -> None:
    config = small_config(
        loss={"augment": "color,cutout"},
        train={"batch": 6, "micro_batch": 2, "ema_decay": 0.5},
        engine={"kernels": "reference"},
    )
    step = build_step(config, build_state(config, CPU, torch.bfloat16), ReconstructionLoss("l1"), torch.bfloat16)
    settings = step.settings
    assert (settings.ema_decay, settings.dtype) == (0.5, torch.bfloat16)
    assert (settings.accumulation, settings.impl) == (3, "reference")
