"""One training iteration of the engine on fake tensors: every kernel launch it makes, without a GPU and without data.

The fake tensors are on the CPU: PyTorch cannot run a backward pass of fake CUDA tensors where there is no CUDA. No
choice of the engine depends on the device once its kernels are told to be Triton's.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from fastgan_engine.build import build_loss, build_state, build_step
from fastgan_engine.config import resolve
from fastgan_engine.iteration import draw_for
from fastgan_engine.kernels.launch import Launch, record_launches

CPU = torch.device("cpu")


def iteration_launches(im_size: int, batch: int, dtype: torch.dtype) -> list[Launch]:
    """The launches of one iteration of the default configuration, every fused operation in Triton."""
    config = resolve(flags={"model.im_size": im_size, "train.batch": batch, "engine.kernels": "triton"})
    generator = torch.Generator().manual_seed(0)
    with fake_tensors():
        loss = build_loss(config, random_weights=True)
        step = build_step(config, build_state(config, CPU, dtype), loss, dtype)
        draws = draw_for(config, generator)
        reals = torch.empty(batch, config.model.nc, im_size, im_size).contiguous(memory_format=torch.channels_last)
        with record_launches() as launches:
            step(reals, draws)
    return launches


@contextmanager
def fake_tensors() -> Iterator[None]:
    """Inside, tensors are fake, and modules of them can be converted."""
    with FakeTensorMode(allow_non_fake_inputs=True), _modules_of_fake_tensors():
        yield


@contextmanager
def _modules_of_fake_tensors() -> Iterator[None]:
    """Inside, ``Module.to`` converts modules of fake tensors.

    PyTorch's own swaps the tensors in place, which it refuses for fake ones that something else still refers to.
    """

    def apply(module: nn.Module, function: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        for child in module.children():
            child._apply(function)
        for name, parameter in module._parameters.items():
            if parameter is not None:
                converted = function(parameter.detach())
                module._parameters[name] = nn.Parameter(converted, requires_grad=parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = function(buffer)
        return module

    with mock.patch.object(nn.Module, "_apply", apply):
        yield
