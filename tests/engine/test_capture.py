"""What capturing an iteration rests on: its state stays at fixed addresses and can be put back in place."""

import copy
from pathlib import Path

import pytest
import torch

from fastgan_engine.build import build_state, build_step
from fastgan_engine.capture import CapturedIteration, mutable_tensors
from fastgan_engine.clock import Clock
from fastgan_engine.config import Config
from fastgan_engine.iteration import Iteration
from fastgan_engine.pipelines import draw_demo, prepare
from fastgan_engine.reconstruction import ReconstructionLoss
from fastgan_engine.sources import open_source


def iteration_of(tmp_path: Path, device: str, dtype: torch.dtype) -> Iteration:
    config = Config.model_validate(
        {
            "model": {"im_size": 64, "ngf": 8, "ndf": 8, "nz": 16},
            "loss": {"reconstruction": "l1"},
            "train": {"batch": 4},
            "engine": {"device": device},
        }
    )
    if not (tmp_path / "photos").exists():
        draw_demo(tmp_path / "photos", count=4, size=64)
    images = prepare(tmp_path / "photos", tmp_path / "cache", im_size=64, warn=pytest.fail)
    where = torch.device(device)
    state = build_state(config, where, dtype)
    clock = Clock(where)
    step = build_step(config, state, ReconstructionLoss("l1"), dtype, clock)
    source = open_source(config, images, where, start_step=0)
    source.fetch()
    return Iteration(config, state, source, step, clock)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["fp32", "fp16-scaler"])
def test_every_tensor_that_an_iteration_changes_is_known_and_stays_in_place(tmp_path: Path, dtype: torch.dtype) -> None:
    iteration = iteration_of(tmp_path, "cpu", dtype)
    state = iteration.state
    for scaler in state.scalers.values():
        scaler.scale(torch.zeros(()))
    before = copy.deepcopy(state.state_dict())
    tensors = list(mutable_tensors(state))
    addresses = [tensor.data_ptr() for tensor in tensors]
    values = [tensor.detach().clone() for tensor in tensors]
    iteration.on_device()
    changed = sum(not torch.equal(t.detach(), v) for t, v in zip(tensors, values, strict=True))
    assert changed > 100
    assert [tensor.data_ptr() for tensor in mutable_tensors(state)] == addresses
    with torch.no_grad():
        for tensor, value in zip(tensors, values, strict=True):
            tensor.copy_(value)
    after = state.state_dict()
    for key in ("generator", "discriminator", "ema"):
        for name, value in before[key].items():
            assert torch.equal(after[key][name], value), f"{key}.{name}"
    for key in ("opt_g", "opt_d"):
        for index, moments in before[key]["state"].items():
            for name, value in moments.items():
                assert torch.equal(after[key]["state"][index][name], value), f"{key}.{index}.{name}"
    assert after["scalers"] == before["scalers"]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=["fp32", "fp16", "bf16"])
def test_captured_equals_eager(tmp_path: Path, dtype: torch.dtype) -> None:
    eager, graph = iteration_of(tmp_path, "cuda", dtype), iteration_of(tmp_path, "cuda", dtype)
    captured = CapturedIteration(graph)
    for _ in range(3):
        wanted = torch.stack(list(eager()))
        got = torch.stack(list(captured()))
        torch.testing.assert_close(got, wanted, rtol=0.02, atol=0.02)
    assert graph.state.step == 3


@pytest.mark.gpu
def test_an_iteration_never_waits_for_the_device(tmp_path: Path) -> None:
    iteration = iteration_of(tmp_path, "cuda", torch.float16)
    iteration.on_device()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        iteration.on_device()
    finally:
        torch.cuda.set_sync_debug_mode("default")
