"""The kernels compiled ahead of time for cards that are not here, as training launches them."""

import json
import os
import subprocess
import sys

import pytest
import torch

from fastgan_engine.bench.compile_report import compile_report, load_width, report_row, training_dtype
from fastgan_engine.bench.fake_iteration import iteration_launches
from fastgan_engine.errors import UserError

# The oldest and the newest architecture, float16 and bfloat16, each at one image size (all of all takes minutes).
CASES = {"sm_75": 256, "sm_120": 512}
# Kernels that pass over maps or over all weights: most of an iteration's bytes.
HOT = (
    "adam_ema_kernel",
    "conv_relu_gradient_kernel",
    "conv_relu_kernel",
    "conv_tap_gradient_kernel",
    "conv_tap_kernel",
    "lrelu_pool_gradient_kernel",
    "lrelu_pool_kernel",
    "norm_glu_apply_kernel",
    "norm_glu_gradient_kernel",
    "norm_glu_reduce_kernel",
    "norm_lrelu_apply_kernel",
    "norm_lrelu_gradient_kernel",
    "norm_lrelu_reduce_kernel",
    "norm_statistics_kernel",
    "pool4_kernel",
    "spectral_dot_kernel",
    "spectral_grad_kernel",
    "spectral_normalise_kernel",
    "spectral_product_kernel",
    "up_conv_assemble_kernel",
    "up_conv_dot_kernel",
)


def print_rows():
    """Rows of the largest launch of each hot kernel."""

    def size(launch):
        return sum(t.numel() * t.element_size() for t in launch.tensors.values())

    rows = []
    for arch, im_size in CASES.items():
        largest = {}
        for launch in iteration_launches(im_size, 8, training_dtype(arch)):
            if launch.name in HOT:
                largest[launch.name] = max(largest.get(launch.name, launch), launch, key=size)
        rows += [report_row([launch], arch, {}) for launch in largest.values()]
    print(json.dumps(rows))


@pytest.fixture(scope="module")
def rows():
    # Triton compiles only where it was not told to interpret.
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    code = "from tests.kernels.test_compile_report import print_rows; print_rows()"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_hot_kernel_compiles_for_every_architecture(rows):
    assert {(row["kernel"], row["arch"]) for row in rows} == {(kernel, arch) for kernel in HOT for arch in CASES}
    assert {(row["arch"], row["dtype"]) for row in rows} == {("sm_75", "float16"), ("sm_120", "bfloat16")}


def test_nothing_spills(rows):
    assert {row["kernel"]: row["spill_bytes"] for row in rows if row["spill_bytes"]} == {}
    assert all(16 <= row["registers"] <= 255 for row in rows)


def test_hot_kernels_load_16_bytes_at_once(rows):
    assert {row["kernel"]: row["load_bytes"] for row in rows if row["load_bytes"] != 16} == {}


def test_hot_kernels_move_little_more_than_they_must(rows):
    for row in rows:
        assert row["bytes_minimum"] > 1e6
        ratio = row["bytes_moved"] / row["bytes_minimum"]
        # A target that two images are compared with is read by each.
        most = 1.15 if row["kernel"] == "conv_tap_kernel" else 1.1
        assert 1 <= ratio <= most, f"{row['kernel']}: {ratio:.3f} of the minimum"


PTX = """
    ld.param.b64 %rd1, [kernel_param_0];
    ld.global.v4.b32 {%r1, %r2, %r3, %r4}, [%rd1];
    ld.global.v4.b32 {%r1, %r2, %r3, %r4}, [%rd1+16];
{loop}
    ret;
"""
LOOP = """$L__BB0_1:
    @%p1 ld.global.L1::evict_last.v2.b16 {%rs1, %rs2}, [%rd2];
    @%p2 bra $L__BB0_1;"""


def test_load_width_is_that_of_the_loop_if_there_is_one():
    assert load_width(PTX.replace("{loop}", "")) == 16
    assert load_width(PTX.replace("{loop}", LOOP)) == 4
    assert load_width("ret;") == 0


def test_load_width_is_that_of_most_bytes():
    assert load_width("ld.global.b16 a;\nld.global.b16 b;\nld.global.v4.b32 c;") == 16
    assert load_width("ld.global.b64 a;\nld.global.b64 b;\nld.global.b64 c;\nld.global.v4.b32 c;") == 8


def test_training_dtype():
    assert training_dtype("sm_75") == torch.float16
    assert training_dtype("sm_86") == torch.bfloat16


def test_unusable_settings_are_named(monkeypatch):
    with pytest.raises(UserError, match="TRITON_INTERPRET unset"):
        compile_report()
    monkeypatch.setattr("fastgan_engine.kernels.launch.INTERPRETED", False)
    with pytest.raises(UserError, match="sm_61"):
        compile_report(archs=["sm_61"])
