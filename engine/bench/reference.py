"""The released recipe built from a configuration, for whatever measures it."""

import torch

from fastgan_engine.build import build_loss, build_networks
from fastgan_engine.config import Config
from fastgan_engine.reference_step import ReferenceStep


def build_reference(
    config: Config,
    device: torch.device,
    *,
    channels_last: bool = False,
    autocast: torch.autocast | None = None,
    foreach: bool | None = None,
) -> ReferenceStep:
    """The reference step on fresh networks, LPIPS with random weights.

    foreach: as PyTorch's Adam takes it; None: its default, False: tensor by tensor.
    """
    networks = build_networks(config, device, channels_last=channels_last)
    train = config.train
    opt_g, opt_d = (
        torch.optim.Adam(network.parameters(), lr=train.lr, betas=(train.beta1, train.beta2), foreach=foreach)
        for network in (networks.generator, networks.discriminator)
    )
    loss = build_loss(config, random_weights=True).to(device)
    return ReferenceStep(networks, loss, opt_g, opt_d, ema_decay=train.ema_decay, autocast=autocast)
