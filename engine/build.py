"""From a configuration to the objects that train: networks, optimizers, scalers, step."""

import importlib.util
from typing import Any

import torch
from torch import nn

from fastgan_engine.clock import Clock
from fastgan_engine.compiled_step import CompiledStep
from fastgan_engine.config import Config
from fastgan_engine.config.single import SingleConfig
from fastgan_engine.errors import UserError
from fastgan_engine.fast.weights import SpectralWeights
from fastgan_engine.hardware import pick_device
from fastgan_engine.host_memory import keep_freed_memory
from fastgan_engine.kernels.adam_ema import AdamEma
from fastgan_engine.networks import Discriminator, Generator
from fastgan_engine.reconstruction import ReconstructionLoss
from fastgan_engine.state import Networks, TrainingState
from fastgan_engine.step import EngineStep, StepSettings

INITIAL_POWER_ITERATIONS = 5


def set_backends(config: Config | SingleConfig) -> None:
    """Sets what PyTorch and the C library keep for the whole process as a run under ``config`` has it."""
    if config.engine.threads is not None:
        torch.set_num_threads(config.engine.threads)
    if pick_device(config.engine.device).type == "cpu":
        keep_freed_memory()
    torch.backends.cuda.matmul.allow_tf32 = config.precision.tf32
    torch.backends.cudnn.allow_tf32 = config.precision.tf32
    torch.backends.cudnn.benchmark = True


def build_networks(config: Config, device: torch.device, *, channels_last: bool = True) -> Networks:
    """Networks with the released initialisation, reproducible from ``train.seed``, on the device."""
    model = config.model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        generator = _generator(config)
        discriminator = Discriminator(
            model.im_size,
            ndf=model.ndf,
            nc=model.nc,
            skip=model.skip,
            decode=config.decodes,
            self_supervision=config.loss.self_supervision,
        )
        ema = _generator(config)
    ema.load_state_dict(generator.state_dict())
    _converge_singular_vectors(ema)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    for network in (generator, discriminator, ema):
        network.to(device=device, memory_format=memory_format)  # type: ignore[call-overload]
    return Networks(generator, discriminator, ema.requires_grad_(False))


def _converge_singular_vectors(network: nn.Module) -> None:
    """Makes the spectral norms of an untrained network the true ones, so that it can be sampled before any step."""
    power_iteration = SpectralWeights(network, dtype=torch.float32, impl="reference").batch.step
    for _ in range(INITIAL_POWER_ITERATIONS):
        power_iteration()


def build_state(config: Config, device: torch.device, dtype: torch.dtype) -> TrainingState:
    """The state of a run at step 0."""
    networks = build_networks(config, device, channels_last=config.channels_last)
    return TrainingState(
        networks=networks,
        opt_g=build_optimizer(config, networks.generator, networks.ema),
        opt_d=build_optimizer(config, networks.discriminator),
        scalers={name: torch.amp.GradScaler(device.type, enabled=dtype == torch.float16) for name in ("d", "g")},
        generator=torch.Generator(device).manual_seed(config.train.seed),
    )


def build_loss(config: Config, *, random_weights: bool = False) -> ReconstructionLoss:
    """The decoders' loss: none where D has no decoders. ``random_weights``: of LPIPS, for benchmarks.

    Raises:
        UserError: LPIPS weights can neither be found nor downloaded.
    """
    kind = config.loss.reconstruction if config.decodes else "none"
    return ReconstructionLoss(kind, weights_dir=config.loss.weights_dir, random_weights=random_weights)


def build_step(
    config: Config, state: TrainingState, loss: ReconstructionLoss, dtype: torch.dtype, clock: Clock | None = None
) -> EngineStep | CompiledStep:
    """The iteration of ``engine.step`` on a state; ``loss`` is handed over (its trunk may change its dtype)."""
    loss = loss.to(state.networks.device)
    if config.engine.step == "compile":
        return CompiledStep(state, loss, dtype=dtype, ema_decay=config.train.ema_decay, clock=clock)
    settings = StepSettings(
        batch=config.train.batch // config.train.accumulation,
        ema_decay=config.train.ema_decay,
        dtype=dtype,
        accumulation=config.train.accumulation,
        impl=config.engine.kernels,
        recompute=config.engine.recompute,
        transposed_from=config.engine.transposed_from,
    )
    return EngineStep(state, loss, settings, clock)


def build_optimizer(config: Config, network: nn.Module, ema: nn.Module | None = None) -> torch.optim.Optimizer:
    """Adam with the released settings, which also moves the average ``ema``; apex's and PyTorch's own do not.

    PyTorch's own is for ``engine.step = "compile"``, which uses nothing of the engine's.

    Raises:
        UserError: apex is asked for and not installed.
    """
    train = config.train
    betas = (train.beta1, train.beta2)
    if config.engine.optimizer == "apex":
        return _apex_adam()(network.parameters(), lr=train.lr, betas=betas, adam_w_mode=False)
    if config.engine.step == "compile":
        return torch.optim.Adam(network.parameters(), lr=train.lr, betas=betas, fused=True)
    return AdamEma(
        network.parameters(),
        lr=train.lr,
        betas=betas,
        emas=None if ema is None else ema.parameters(),
        decay=train.ema_decay,
        impl=config.engine.kernels,
    )


def _apex_adam() -> Any:
    """apex's class, imported where it is wanted.

    Raises:
        UserError: apex is not installed, or without its extensions.
    """
    if importlib.util.find_spec("amp_C") is None:
        raise UserError(
            'engine.optimizer = "apex" needs NVIDIA apex with its CUDA extensions, which is not installed '
            '(the package called "apex" in the registry is another project); take "adam", or build apex from source'
        )
    from apex.optimizers import FusedAdam

    return FusedAdam


def _generator(config: Config) -> Generator:
    model = config.model
    return Generator(model.im_size, nz=model.nz, ngf=model.ngf, nc=model.nc, skip=model.skip, tanh=model.tanh)
