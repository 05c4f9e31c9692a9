"""From a configuration to networks, optimizers and scalers."""

import importlib.util

import pytest
import torch

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
    torch.testing.assert_close(dict(ema), dict(live), rtol=0, atol=0)
    assert all(ema[name].data_ptr() != value.data_ptr() for name, value in live.items() if value.numel())
    assert not any(p.requires_grad for p in networks.ema.parameters())
    assert all(p.requires_grad for p in networks.generator.parameters())


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
    networks = build_networks(small_config(precision={"channels_last": channels_last}), CPU)
    weight = networks.discriminator.down_from_small[0].weight_orig  # 4 x 4, three channels: the formats differ
    assert weight.is_contiguous(memory_format=torch.channels_last) is channels_last


def test_adam_has_the_configured_settings() -> None:
    config = small_config(train={"lr": 3e-4, "beta1": 0.25, "beta2": 0.9})
    network = torch.nn.Linear(2, 2)
    optimizer = build_optimizer(config, network, CPU)
    assert type(optimizer) is torch.optim.Adam
    (group,) = optimizer.param_groups
    assert (group["lr"], group["betas"], group["weight_decay"]) == (3e-4, (0.25, 0.9), 0)
    assert group["params"] == list(network.parameters())


def test_missing_apex_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "amp_C" else found(name))
    config = small_config(engine={"optimizer": "apex", "device": "auto"})
    with pytest.raises(
        UserError, match=r"(?s)engine.optimizer = \"apex\" needs NVIDIA apex.*another project.*\"adam\""
    ):
        build_optimizer(config, torch.nn.Linear(2, 2), CPU)


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
    assert (settings.policy, settings.ema_decay, settings.dtype) == ("color,cutout", 0.5, torch.bfloat16)
    assert (settings.accumulation, settings.impl) == (3, "reference")
