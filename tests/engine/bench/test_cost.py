"""Counted costs against closed forms, against published figures of the released recipe, and against the targets."""

import json
from collections import Counter
from collections.abc import Callable
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from typer.testing import CliRunner

from fastgan_engine.bench import cost_report
from fastgan_engine.bench import counting as counting_module
from fastgan_engine.bench.cost import cost
from fastgan_engine.bench.counting import Cost, Op, counting, tensor_bytes
from fastgan_engine.bench.released_ops import diffaug, glu, swish
from fastgan_engine.bench.roofline import EAGER_LAUNCH_US, GRAPH_LAUNCH_US, model
from fastgan_engine.cli import app
from fastgan_engine.config import resolve
from fastgan_engine.kernels.batch import gather_batch
from fastgan_engine.kernels.diffaug import diffaug_reference, draw_diffaug
from fastgan_engine.kernels.launch import Launch
from fastgan_engine.kernels.norm_glu import norm_glu
from fastgan_engine.kernels.tables import contents
from fastgan_engine.kernels.traffic import traffic
from fastgan_engine.profiles import Card

FP32, BF16 = 4, 2


def counted(function: Callable[[], object]) -> list[Op]:
    with FakeTensorMode(), counting() as operations:
        function()
    return operations


def total(operations: list[Op]) -> tuple[int, int, int]:
    return len(operations), sum(op.flop for op in operations), sum(op.bytes for op in operations)


class TestCountingRule:
    def test_a_convolution_and_its_backward(self) -> None:
        x, w, y = (2, 3, 8, 8), (5, 3, 3, 3), (2, 5, 8, 8)
        sizes = [torch.Size(shape).numel() for shape in (x, w, y)]
        flop = 2 * sizes[2] * 3 * 9

        def step() -> None:
            image, weight = torch.empty(x, requires_grad=True), torch.empty(w, requires_grad=True)
            out = F.conv2d(image, weight, padding=1)
            torch.autograd.grad(out, (image, weight), torch.empty(y))

        forward, backward = counted(step)
        assert forward == Op("convolution", flop, FP32 * sum(sizes))
        assert backward == Op("convolution_backward", 2 * flop, FP32 * (sum(sizes) + sizes[0] + sizes[1]))

    def test_the_gradient_of_a_frozen_weight_is_not_computed(self) -> None:
        def step() -> None:
            image = torch.empty(2, 3, 8, 8, requires_grad=True)
            torch.autograd.grad(F.conv2d(image, torch.empty(5, 3, 3, 3), padding=1), image, torch.empty(2, 5, 8, 8))

        forward, backward = counted(step)
        assert backward.flop == forward.flop
        assert backward.bytes == FP32 * (640 + 384 + 135 + 384)

    def test_a_transposed_convolution(self) -> None:
        operations = counted(lambda: F.conv_transpose2d(torch.empty(2, 3, 8, 8), torch.empty(3, 5, 4, 4), None, 2, 1))
        assert total(operations)[:2] == (1, 2 * (2 * 3 * 8 * 8) * 5 * 16)

    def test_a_matrix_product_in_half_precision(self) -> None:
        operations = counted(lambda: torch.empty(4, 5, dtype=torch.bfloat16) @ torch.empty(5, 6, dtype=torch.bfloat16))
        assert total(operations) == (1, 2 * 4 * 5 * 6, BF16 * (20 + 30 + 24))

    @pytest.mark.parametrize(
        ("operation", "accesses"),
        [
            (lambda a, b: a.add_(b), 3),
            (lambda a, b: a + a, 2),
            (lambda a, b: a.copy_(b), 2),
            (lambda a, b: a.zero_(), 1),
            (lambda a, b: torch.zeros_like(a), 1),
            (lambda a, b: torch.add(a, b, out=torch.empty(10)), 3),
            (lambda a, b: torch._foreach_add_([a, b], [b, a]), 4),
            (lambda a, b: torch._foreach_copy_([a], [b]), 2),
            (lambda a, b: a[:5].add_(b[5:]), 1.5),
            (lambda a, b: a[:1].expand(10) + b, 2.1),
        ],
    )
    def test_one_operation_reads_its_inputs_and_writes_its_outputs_once(self, operation, accesses) -> None:
        operations = counted(lambda: operation(torch.empty(10), torch.empty(10)))
        assert total(operations) == (1, 0, accesses * 10 * FP32)

    def test_a_multi_tensor_operation_on_unlike_tensors_falls_apart(self) -> None:
        """As PyTorch's own on CUDA does."""

        def copy(*dtypes: torch.dtype) -> None:
            made = [[torch.empty(10, dtype=dtype) for dtype in dtypes] for _ in range(2)]
            torch._foreach_copy_(*made)

        assert total(counted(lambda: copy(torch.float32, torch.float32))) == (1, 0, 4 * 10 * FP32)
        assert total(counted(lambda: copy(torch.float32, torch.int64))) == (2, 0, 2 * 10 * (FP32 + 8))

    def test_views_allocations_and_questions_are_free(self) -> None:
        def free() -> None:
            x = torch.empty(4, 6)
            x.view(2, 12).t()[1:].expand(3, 11, 2)
            x.detach().flatten().chunk(2)
            x.new_empty(3), torch.empty_like(x), x.shape, x.device, x.is_contiguous()

        assert counted(free) == []

    def test_tensor_bytes_are_those_in_memory(self) -> None:
        x = torch.zeros(3, 1, 5)
        assert tensor_bytes(x.expand(3, 7, 5)) == tensor_bytes(x) == 15 * FP32
        assert tensor_bytes(x[:, :, ::2]) == 9 * FP32
        assert tensor_bytes(torch.zeros(0, 5).expand(0, 5)) == 0
        assert tensor_bytes(torch.zeros(())) == FP32

    def test_a_triton_launch_counts_what_it_loads_and_stores(self) -> None:
        def gather() -> None:
            cache = torch.empty(50, 64, 64, 3, dtype=torch.uint8)
            gather_batch(
                cache, torch.empty(4, dtype=torch.int64), torch.empty(4, dtype=torch.bool), torch.float32, impl="triton"
            )

        (operation,) = counted(gather)
        pixels = 4 * 64 * 64 * 3
        assert (operation.name, operation.triton, operation.flop) == ("gather_batch_kernel", True, 0)
        assert pixels * (1 + FP32) <= operation.bytes < 1.02 * pixels * (1 + FP32)

    def test_counting_makes_autograd_copy_nothing(self) -> None:
        """A gradient that the counter held on to would be copied instead of taken over."""

        def step() -> None:
            x = torch.empty(2, 8, 4, 4).to(memory_format=torch.channels_last).requires_grad_()
            weight, bias = torch.empty(8, requires_grad=True), torch.empty(8, requires_grad=True)
            mean, variance = torch.empty(8), torch.empty(8)
            y = norm_glu(x, weight, bias, mean, variance, momentum=0.1, eps=1e-5, impl="triton")
            y.backward(torch.empty_like(y))
            assert weight.grad is not None

        names = Counter(op.name for op in counted(step))
        assert names["norm_glu_gradient_kernel"] == 1
        assert names["copy_"] == 0

    def test_rows_add_up(self) -> None:
        rows = Cost([Op("a", 2, 10), Op("b", 0, 30), Op("a", 4, 10), Op("a", 0, 1, triton=True)]).rows()
        assert [(row.name, row.triton, row.ops) for row in rows] == [("b", False, 1), ("a", False, 2), ("a", True, 1)]
        assert (rows[1].gflop, rows[1].gbytes) == (6e-9, 20e-9)


class TestReleasedOps:
    """The released spelling computes what the networks and the kernels' references do."""

    @pytest.mark.parametrize(("spelled", "module"), [(glu, nn.GLU(dim=1)), (swish, nn.SiLU())])
    def test_activations(self, spelled, module) -> None:
        x = torch.randn(2, 6, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(spelled(x), module(x))

    def test_diffaug_and_its_gradient(self) -> None:
        generator = torch.Generator().manual_seed(0)
        params = draw_diffaug(3, 16, 24, "color,translation", generator=generator)
        x, grad = (torch.randn(3, 3, 16, 24, dtype=torch.float64, generator=generator) for _ in range(2))
        results = []
        for function in (diffaug, diffaug_reference):
            leaf = x.clone().requires_grad_()
            y = function(leaf, params)
            results.append((y.detach(), *torch.autograd.grad(y, leaf, grad)))
        torch.testing.assert_close(*results)


# The released recipe in fp32 at batch 8, counted once with another counter: operations, GFLOP, GB.
RELEASED = {256: (6292, 1607, 48.2), 1024: (6756, 1932, 91.9)}


@pytest.mark.parametrize("im_size", RELEASED)
def test_the_reference_costs_what_the_released_recipe_does(im_size: int) -> None:
    ops, gflop, gbytes = RELEASED[im_size]
    reference = cost(resolve(flags={"model.im_size": im_size}), "reference")
    assert reference.ops == pytest.approx(ops, rel=0.025)
    assert reference.gflop == pytest.approx(gflop, rel=0.0005)
    assert reference.gbytes == pytest.approx(gbytes, rel=0.04)


# What a kernel moves of its tensors at most, in their bytes; the kernels' own tests hold each to 1.1 of the minimum.
MOVED = 1.1


def quick_bytes() -> Callable[[Launch], float]:
    """A near bound on what a launch moves: counting them all takes a minute.

    Of kernels over all of a network the first launch is counted and stands for the others, program by program.
    """
    of_a_program: dict[str, float] = {}

    def count(launch: Launch) -> float:
        if all(contents(tensor) is None for tensor in launch.tensors.values()):
            return MOVED * sum(map(tensor_bytes, launch.tensors.values()))
        if not launch.name.startswith(("spectral", "up_conv")):
            return traffic(launch).moved
        if launch.name not in of_a_program:
            of_a_program[launch.name] = traffic(launch).moved / launch.grid[0]
        return of_a_program[launch.name] * launch.grid[0]

    return count


def test_the_engine_costs_little_at_256() -> None:
    """The targets."""
    engine = cost(resolve(), "engine", launch_bytes=quick_bytes())
    assert engine.gbytes < 15
    assert engine.gflop < 1200
    assert engine.ops < 800
    adam = sum(op.bytes for op in engine.operations if op.name == "adam_ema_kernel")
    # Weights, moments and averages read and written, gradients read; D has no averages.
    assert adam == pytest.approx(FP32 * (9 * 29.13e6 + 7 * 11.53e6), rel=0.01)


def test_the_engine_costs_little_at_1024() -> None:
    """The targets."""
    engine = cost(resolve(flags={"model.im_size": 1024}), "engine", launch_bytes=lambda launch: 0)
    assert engine.gflop < 1400
    assert engine.ops < 850


def test_equal_launches_are_counted_once_and_alike() -> None:
    counted_first: list[object] = []

    def gather(batch: int) -> None:
        cache = torch.empty(50, 16, 16, 3, dtype=torch.uint8)
        flips = torch.empty(batch, dtype=torch.bool)
        gather_batch(cache, torch.empty(batch, dtype=torch.int64), flips, torch.float32, impl="triton")

    def step() -> None:
        for batch in (2, 2, 4):
            gather(batch)

    with mock.patch.object(counting_module, "traffic", lambda launch: counted_first.append(launch) or traffic(launch)):
        operations = counted(step)
    assert len(counted_first) == 2
    assert operations[0] == operations[1]
    assert operations[2].bytes == 2 * operations[0].bytes


CARD = Card(name="x", arch="sm_86", memory_gib=8, bandwidth_gbs=100, tensor_tflops=10, fp32_tflops=2, note="")


@pytest.mark.parametrize(("half", "rate"), [(True, 10e12), (False, 2e12)])
def test_the_model_takes_the_slower_of_memory_and_arithmetic(half: bool, rate: float) -> None:
    operations = Cost([Op("convolution", int(4e9), 1000), Op("add", 0, int(5e6)), Op("tiny", 0, 100)])
    seconds = 4e9 / rate + 5e6 / 100e9 + 100 / 100e9
    for graph, launch in ((True, GRAPH_LAUNCH_US), (False, EAGER_LAUNCH_US)):
        times = model(operations, CARD, half=half, graph=graph)
        assert times.ms == pytest.approx(seconds * 1e3)
        assert times.ms_launched == pytest.approx((seconds - 1e-9) * 1e3 + launch * 1e-3)


def test_bench_cost_writes_what_it_counted(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("fastgan_engine.kernels.launch.INTERPRETED", False)
    monkeypatch.setattr(cost_report, "launch_traffic", lambda: lambda launch: 1000)
    monkeypatch.setattr("fastgan_engine.profiles.names", lambda: ["cpu", "rtx2070", "rtx3070"])
    file = tmp_path / "cost.json"
    result = CliRunner().invoke(app, ["bench", "cost", "--im-size", "64", "--batch", "2", "--json", str(file)])
    assert result.exit_code == 0, result.output
    values = json.loads(file.read_text())
    assert values.keys() == {"reference", "engine", "cards"}
    for who in ("reference", "engine"):
        for key in ("ops", "gflop", "gbytes"):
            assert sum(row[key] for row in values[who]["by_operation"]) == pytest.approx(values[who][key])
    assert values["engine"]["ops"] < values["reference"]["ops"] / 4
    assert {name: row["engine_dtype"] for name, row in values["cards"].items()} == {
        "rtx2070": "float16", "rtx3070": "bfloat16",
    }  # fmt: skip
    for row in values["cards"].values():
        assert row["engine_ms"] < row["reference_ms"] < row["reference_ms_launched"]


def test_counting_needs_compiled_kernels(monkeypatch) -> None:
    monkeypatch.setattr("fastgan_engine.kernels.launch.INTERPRETED", True)
    result = CliRunner().invoke(app, ["bench", "cost"])
    assert "TRITON_INTERPRET unset" in str(result.exception)
