import os
import subprocess
import sys

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from fastgan_engine.kernels.launch import cdiv, jit, launch, next_power_of_2, record_launches, tl
from fastgan_engine.kernels.traffic import Traffic, traffic


@jit
def _twice(x):
    return x + x


@jit
def _double_kernel(x_ptr, partial_ptr, y_ptr, numel, BLOCK: tl.constexpr):
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offsets, mask=offsets < numel, other=0.0)
    tl.store(partial_ptr + tl.program_id(0), tl.sum(x, axis=0))
    tl.store(y_ptr + offsets, _twice(x), mask=offsets < numel)


def double(x, block=16):
    y, partial = torch.empty_like(x), x.new_empty(cdiv(x.numel(), block))
    launch(_double_kernel, (partial.numel(),), x, partial, y, x.numel(), BLOCK=block, num_warps=1)
    return y, partial


def test_launch_runs_the_kernel_over_the_whole_grid():
    x = torch.arange(50, dtype=torch.float32)
    y, partial = double(x)
    assert torch.equal(y, 2 * x)
    assert partial.tolist() == [120.0, 376.0, 632.0, 97.0]


def test_fake_tensors_are_recorded_and_not_run():
    with FakeTensorMode(), record_launches() as outer, record_launches() as inner:
        double(torch.empty(50))
    double(torch.zeros(50))
    assert len(outer) == len(inner) == 1
    assert outer[0].name == "double_kernel"
    assert outer[0].grid == (4,)
    assert outer[0].meta["BLOCK"] == 16
    assert list(outer[0].tensors) == ["x_ptr", "partial_ptr", "y_ptr"]


def test_real_launches_are_recorded_too():
    with record_launches() as launches:
        double(torch.zeros(5))
    assert [launch.grid for launch in launches] == [(1,)]


def test_traffic_counts_every_unmasked_element_of_a_large_grid():
    numel = 100_003  # a ragged last block, far more programs than are run
    for dtype, size in ((torch.float32, 4), (torch.float16, 2)):
        with FakeTensorMode(), record_launches() as launches:
            double(torch.empty(numel, dtype=dtype))
        (launched,) = launches
        assert traffic(launched) == Traffic(moved=size * (2 * numel + cdiv(numel, 16)), minimum=size * 2 * numel)


def test_traffic_of_a_real_launch_leaves_its_output_alone():
    x = torch.ones(20)
    with record_launches() as launches:
        y, _ = double(x)
    y.zero_()
    assert traffic(launches[0]).moved == 4 * (20 + 20 + 2)
    assert y.eq(0).all()


def test_traffic_needs_no_interpreter_mode():
    code = "import tests.kernels.test_launch as t; t.test_traffic_counts_every_unmasked_element_of_a_large_grid()"
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


@jit
def _three_loads_kernel(x_ptr, table_ptr, y_ptr, BLOCK: tl.constexpr):
    count = tl.load(table_ptr)
    offsets = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offsets) + tl.load(x_ptr + offsets)
    tl.store(y_ptr + offsets, x, mask=offsets < count)


def test_traffic_counts_a_second_load_but_not_as_needed():
    with record_launches() as launches:
        table = torch.tensor([2])  # read, so that kernels may follow tables
        with FakeTensorMode(allow_non_fake_inputs=True):
            launch(_three_loads_kernel, (1,), torch.empty(8), table, torch.empty(100), BLOCK=8)
    assert traffic(launches[0]) == Traffic(moved=8 + 2 * 32 + 8, minimum=8 + 32 + 8)


@jit
def _narrow_kernel(x_ptr, stride, BLOCK: tl.constexpr):
    tl.store(x_ptr + tl.program_id(0) * stride + tl.arange(0, BLOCK), 0.0)


def test_traffic_sees_offsets_that_overflow_32_bits():
    for programs, fits in ((2**10, True), (2**12, False)):
        with FakeTensorMode(), record_launches() as launches:
            launch(_narrow_kernel, (programs,), torch.empty(programs * 2**20), 2**20, BLOCK=16)
        if fits:
            assert traffic(launches[0]).moved == programs * 64
        else:
            with pytest.raises(IndexError, match="a store goes outside its tensor"):
                traffic(launches[0])


def test_rounding_helpers():
    assert [cdiv(n, 4) for n in (1, 4, 5)] == [1, 1, 2]
    assert [next_power_of_2(n) for n in (1, 2, 3, 17)] == [1, 2, 4, 32]
