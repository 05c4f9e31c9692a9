"""Small networks that have trained for a moment, and files of them as the released code writes them."""

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastgan_engine.networks import Discriminator, Generator


@dataclass
class Trained:
    """Networks after `STEPS` steps of Adam, and averaged weights that differ from the live ones."""

    generator: Generator
    discriminator: Discriminator
    averaged: list[Tensor]
    opt_g: torch.optim.Optimizer
    opt_d: torch.optim.Optimizer


STEPS = 3


def trained(im_size: int = 64, *, nz: int = 16, nc: int = 3) -> Trained:
    torch.manual_seed(0)
    generator, discriminator = Generator(im_size, nz=nz, ngf=8, nc=nc), Discriminator(im_size, ndf=16, nc=nc)
    opt_g, opt_d = (torch.optim.Adam(n.parameters(), lr=3e-4, betas=(0.5, 0.99)) for n in (generator, discriminator))
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            if parameter.numel() == 1:  # of a noise injection: 0 at first, which would hide the noise
                parameter.fill_(0.05)
                assert name.endswith((".2.weight", ".6.weight"))
        generator.get_parameter(f"feat_{im_size}.2.weight").mul_(50)  # contrast: else all images are nearly grey
    for _ in range(10):  # singular vectors near their limit, as after any real training
        discriminator(generator(torch.randn(4, nz)), "real", 0)
    for _ in range(STEPS):
        train_step(generator, discriminator, opt_g, opt_d, torch.randn(4, nz))
    averaged = [(0.9 * p + 0.1 * torch.randn_like(p).mul(p.abs())).detach() for p in generator.parameters()]
    return Trained(generator, discriminator, averaged, opt_g, opt_d)


def train_step(
    generator: nn.Module,
    discriminator: nn.Module,
    opt_g: torch.optim.Optimizer,
    opt_d: torch.optim.Optimizer,
    z: Tensor,
) -> None:
    """Some gradient for every parameter."""
    logits, made = discriminator(generator(z), "real", 1)
    loss = logits.mean() + sum(image.mean() for image in made)
    for optimizer in (opt_g, opt_d):
        optimizer.zero_grad()
    loss.backward()
    opt_g.step()
    opt_d.step()


def save_as_released(path: Path, networks: Trained, *, everything: bool, parallel: bool, zipped: bool = True) -> Path:
    """N.pth, or with `everything` all_N.pth, as `torch.save` in the released loop; `parallel`: under DataParallel."""
    wrap = nn.DataParallel if parallel else (lambda network: network)
    content: dict[str, Any] = {
        "g": wrap(networks.generator).state_dict(),
        "d": wrap(networks.discriminator).state_dict(),
    }
    if everything:
        content["g_ema"] = networks.averaged
        content["opt_g"] = networks.opt_g.state_dict()
        content["opt_d"] = networks.opt_d.state_dict()
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def assert_same_state(state: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Key by key, in order, and value by value."""
    assert list(state) == list(expected)
    for name, tensor in expected.items():
        assert torch.equal(state[name], tensor), name


def copied(state: dict[str, Tensor]) -> "OrderedDict[str, Tensor]":
    return OrderedDict((name, tensor.clone()) for name, tensor in state.items())
