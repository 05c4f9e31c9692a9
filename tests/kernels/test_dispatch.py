import logging
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from fastgan_engine.kernels import (
    adam_ema,
    batch,
    conv_relu,
    conv_tap,
    diffaug,
    dispatch,
    hinge,
    launch,
    lpips_distance,
    lrelu_pool,
    norm_glu,
    norm_lrelu,
    sle,
    spectral,
)
from fastgan_engine.kernels.dispatch import assert_near, passes_self_test, self_test, summary, use_triton

CPU = torch.device("cpu")
# Imported before any test, so that their self-tests are registered for good.
OPS = (
    adam_ema, batch, conv_relu, conv_tap, diffaug, hinge, lpips_distance, lrelu_pool, norm_glu, norm_lrelu, sle,
    spectral,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    """Registrations and log lines of a test do not outlive it."""
    monkeypatch.setattr(dispatch, "_self_tests", dict(dispatch._self_tests))
    monkeypatch.setattr(dispatch, "_logged", set())
    yield
    passes_self_test.cache_clear()


def on_cuda(dtype=torch.float16):
    """As much of a CUDA tensor as the choice looks at."""
    return SimpleNamespace(device=torch.device("cuda", 0), dtype=dtype)


def test_reference_is_never_triton():
    assert not use_triton("op", "reference", torch.zeros(1))


def test_auto_on_the_cpu_is_the_reference_and_says_so_once(caplog):
    caplog.set_level(logging.INFO, "fastgan_engine.kernels")
    assert not use_triton("op", "auto", torch.zeros(1))
    assert not use_triton("op", "auto", torch.zeros(2))
    assert [r.getMessage() for r in caplog.records] == [
        'op on cpu, torch.float32: reference ("auto" uses kernels on CUDA tensors only)'
    ]


def test_unknown_impl_is_a_value_error():
    with pytest.raises(ValueError, match="impl: got 'cuda', expected one of auto, triton, reference"):
        use_triton("op", "cuda", torch.zeros(1))


def test_triton_runs_on_the_cpu_under_the_interpreter_only(monkeypatch):
    assert use_triton("op", "triton", torch.zeros(1))
    monkeypatch.setattr(launch, "INTERPRETED", False)
    with pytest.raises(RuntimeError, match=r'op: impl="triton" cannot run: .*cpu.*TRITON_INTERPRET=1'):
        use_triton("op", "triton", torch.zeros(1))


def test_without_triton_auto_falls_back_and_triton_raises(monkeypatch):
    monkeypatch.setattr(launch, "triton", None)
    assert not use_triton("op", "auto", on_cuda())
    with pytest.raises(RuntimeError, match="Triton is not installed"):
        use_triton("op", "triton", on_cuda())


WITHOUT_TRITON = """
import importlib, pkgutil, sys
sys.modules["triton"] = None
import torch, fastgan_engine.kernels as kernels
for module in pkgutil.iter_modules(kernels.__path__):
    importlib.import_module(f"fastgan_engine.kernels.{module.name}")
from fastgan_engine.kernels.norm_lrelu import norm_lrelu
print(norm_lrelu(torch.ones(2, 1, 1, 1), *(torch.ones(1) for _ in range(4))).tolist())
"""


def test_every_module_imports_and_references_run_without_triton():
    done = subprocess.run([sys.executable, "-c", WITHOUT_TRITON], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[[[[1.0]]], [[[1.0]]]]"


def test_importing_the_package_imports_neither_triton_nor_torch():
    code = "import sys, fastgan_engine.kernels; print({'torch', 'triton'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("capability", "dtype", "runs"),
    [
        ((6, 1), torch.float16, False),
        ((7, 5), torch.float16, True),
        ((7, 5), torch.bfloat16, False),
        ((8, 0), torch.bfloat16, True),
        ((12, 0), torch.float32, True),
    ],
)
def test_capability_floor(monkeypatch, capability, dtype, runs):
    monkeypatch.setattr(launch, "INTERPRETED", False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    if runs:
        assert use_triton("op", "triton", on_cuda(dtype))
    else:
        with pytest.raises(RuntimeError, match=f"compute capability {capability[0]}.{capability[1]} is below"):
            use_triton("op", "triton", on_cuda(dtype))


def test_float64_has_no_kernel():
    assert not use_triton("op", "auto", torch.zeros(1, dtype=torch.float64))
    with pytest.raises(RuntimeError, match="float64"):
        use_triton("op", "triton", torch.zeros(1, dtype=torch.float64))


def test_self_test_runs_once_per_device_and_dtype(caplog):
    caplog.set_level(logging.INFO, "fastgan_engine.kernels")
    seen = []
    self_test("good")(lambda device, dtype: seen.append((device, dtype)))
    assert all(passes_self_test("good", CPU, torch.float16) for _ in range(3))
    assert passes_self_test("good", CPU, torch.float32)
    assert seen == [(CPU, torch.float16), (CPU, torch.float32)]
    assert "good on cpu, torch.float16: triton (self-test passed)" in caplog.text


@pytest.mark.parametrize("broken", ["wrong", "nan", "raises"])
def test_a_broken_kernel_is_replaced_with_a_warning_that_names_it(caplog, broken):
    @self_test("broken_op")
    def test(device, dtype):
        if broken == "raises":
            raise RuntimeError("no kernel image")
        value = float("nan") if broken == "nan" else 1.5
        assert_near("broken_op", [torch.full((3,), value, dtype=dtype)], [torch.ones(3)])

    assert not passes_self_test("broken_op", CPU, torch.float16)
    assert not passes_self_test("broken_op", CPU, torch.float16)
    (warning,) = caplog.records
    assert warning.levelno == logging.WARNING
    assert "broken_op: its kernels failed their self-test on cpu, torch.float16" in warning.getMessage()


def test_auto_follows_the_self_test_on_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    self_test("good")(lambda device, dtype: None)
    self_test("bad")(lambda device, dtype: 1 / 0)
    assert use_triton("good", "auto", on_cuda())
    assert not use_triton("bad", "auto", on_cuda())


def test_first_use_inside_a_graph_capture_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    self_test("good")(lambda device, dtype: None)
    with pytest.raises(RuntimeError, match="good: first use is inside a CUDA graph capture"):
        use_triton("good", "auto", on_cuda())


def test_fake_cuda_tensors_stand_for_a_card_that_works():
    with FakeTensorMode():
        assert use_triton("op", "auto", torch.empty(1, device="cuda"))
        assert not use_triton("op", "auto", torch.empty(1))
        assert use_triton("op", "triton", torch.empty(1))


def test_assert_near_accepts_rounding_and_missing_tensors():
    exact = torch.linspace(0, 3, 100, dtype=torch.float64)
    assert_near("op", [exact.half(), None], [exact, None])
    with pytest.raises(AssertionError, match="op, tensor 1: got None"):
        assert_near("op", [exact.half(), None], [exact, exact])


class TestSummary:
    @pytest.fixture
    def card(self, monkeypatch):
        """A card on which all self-tests pass but those of ``self.broken``; what was asked of it, by operation."""
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6))
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
        names = {op.__name__.rpartition(".")[2] for op in OPS}
        monkeypatch.setattr(dispatch, "_self_tests", {name: dispatch._self_tests[name] for name in names})
        seen = {}

        def passes(op, device, dtype):
            seen[op] = device, dtype
            return op not in self.broken

        monkeypatch.setattr(dispatch, "passes_self_test", passes)
        self.broken = set()
        return seen

    def test_without_a_card(self, monkeypatch):
        assert summary(CPU, torch.float32) == "kernels: plain PyTorch (no CUDA device)"
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        assert summary(CPU, torch.float32) == "kernels: plain PyTorch (training on the CPU)"

    def test_without_triton(self, card, monkeypatch):
        monkeypatch.setattr(launch, "triton", None)
        assert summary(torch.device("cuda"), torch.float16) == "kernels: plain PyTorch (Triton is not installed)"

    def test_on_an_old_card(self, card, monkeypatch):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (6, 1))
        assert summary(torch.device("cuda"), torch.float32) == (
            "kernels: plain PyTorch (compute capability 6.1 is below 7.5, the floor for torch.float32)"
        )

    def test_all_pass_in_the_dtype_they_run_in(self, card):
        assert summary(torch.device("cuda"), torch.bfloat16) == f"kernels: Triton, all {len(OPS)} self-tests passed"
        assert {device for device, _ in card.values()} == {torch.device("cuda", 0)}
        of_float32 = {op for op, (_, dtype) in card.items() if dtype == torch.float32}
        assert of_float32 == {"adam_ema", "spectral"}

    def test_those_that_failed_are_named(self, card):
        self.broken = {"norm_glu"}
        assert summary(torch.device("cuda", 0), torch.bfloat16) == (
            "kernels: Triton, but norm_glu failed its self-test and runs as plain PyTorch"
        )
        self.broken = {"sle", "norm_glu", "diffaug"}
        assert summary(torch.device("cuda", 0), torch.bfloat16) == (
            "kernels: Triton, but diffaug, norm_glu and sle failed their self-tests and run as plain PyTorch"
        )
        self.broken = set(card)
        expected = f"kernels: plain PyTorch (all {len(OPS)} self-tests failed)"
        assert summary(torch.device("cuda", 0), torch.bfloat16) == expected
