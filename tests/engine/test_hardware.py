"""The profile, device and precision that suit a machine."""

import pytest
import torch

from fastgan_engine import hardware
from fastgan_engine.errors import UserError
from fastgan_engine.hardware import Gpu, built_for, choose_profile, pick_device, pick_dtype, profile_for
from fastgan_engine.nvml import GpuProcess

from .machines import GIB, GTX_1050_TI, RTX_2070, RTX_3090, FakeCard, hide, install_cuda, install_nvml


@pytest.fixture(autouse=True)
def no_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless a test says otherwise: a machine without cards, wherever the tests run."""
    install_nvml(monkeypatch, [], init_error="NVML Shared Library Not Found")
    install_cuda(monkeypatch, [])


def gpu(name: str, capability: tuple[int, int], gib: float) -> Gpu:
    return Gpu(name=name, capability=capability, total_bytes=int(gib * GIB), cuda_index=0)


class TestDetect:
    def test_nvml_and_cuda_are_matched_by_uuid_not_by_number(self, monkeypatch: pytest.MonkeyPatch) -> None:
        install_nvml(monkeypatch, [RTX_2070, RTX_3090])
        install_cuda(monkeypatch, [RTX_3090, RTX_2070])
        found = hardware.detect()
        assert found.driver == "580.95.05"
        assert [(g.name, g.cuda_index, g.free_bytes) for g in found.gpus] == [
            ("NVIDIA GeForce RTX 3090", 0, 20 * GIB),
            ("NVIDIA GeForce RTX 2070", 1, 6.5 * GIB),
        ]

    def test_a_card_pytorch_cannot_use_has_no_cuda_index(self, monkeypatch: pytest.MonkeyPatch) -> None:
        install_nvml(monkeypatch, [GTX_1050_TI, RTX_2070])
        install_cuda(monkeypatch, [GTX_1050_TI, RTX_2070])
        assert [(g.name, g.cuda_index) for g in hardware.detect().gpus] == [
            ("NVIDIA GeForce GTX 1050 Ti", None),
            ("NVIDIA GeForce RTX 2070", 1),
        ]

    def test_processes_with_unknown_memory_and_names(self, monkeypatch: pytest.MonkeyPatch) -> None:
        card = FakeCard("A", (7, 5), 8, processes=[(7, None, None), (8, "python", GIB)])
        install_nvml(monkeypatch, [card])
        assert hardware.detect().gpus[0].processes == (
            GpuProcess(pid=8, name="python", used_bytes=GIB),
            GpuProcess(pid=7, name=None, used_bytes=None),
        )

    def test_one_lost_card_does_not_hide_the_other(self, monkeypatch: pytest.MonkeyPatch) -> None:
        install_nvml(monkeypatch, [FakeCard("broken", (7, 5), 8, lost=True), RTX_2070])
        found = hardware.detect()
        assert [g.name for g in found.gpus] == [RTX_2070.name]
        assert found.problems == ["NVML, card 0: GPU is lost"]

    def test_without_nvml_the_cards_come_from_pytorch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        hide(monkeypatch, "pynvml")
        install_cuda(monkeypatch, [RTX_2070])
        found = hardware.detect()
        assert [(g.name, g.arch, g.total_bytes, g.free_bytes) for g in found.gpus] == [
            (RTX_2070.name, "sm_75", 8 * GIB, None)
        ]
        assert found.problems == ["NVML: the package nvidia-ml-py is not installed"]

    def test_a_broken_cuda_is_a_problem_not_a_crash(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(index: int) -> None:
            raise RuntimeError("CUDA unknown error")

        install_cuda(monkeypatch, [RTX_2070])
        monkeypatch.setattr(torch.cuda, "get_device_properties", fail)
        found = hardware.detect()
        assert found.gpus == []
        assert "PyTorch: CUDA unknown error" in found.problems


class TestProfile:
    @pytest.mark.parametrize(
        ("name", "capability", "gib", "profile"),
        [
            ("NVIDIA GeForce RTX 2070", (7, 5), 8, "rtx2070"),
            ("NVIDIA GeForce RTX 2070 SUPER", (7, 5), 8, "rtx2070"),
            ("NVIDIA GeForce RTX 2070 with Max-Q Design", (7, 5), 8, "rtx2070"),
            ("NVIDIA GeForce GTX 1050 Ti", (6, 1), 4, "gtx1050ti"),
            ("NVIDIA GeForce RTX 3060 Ti", (8, 6), 8, "rtx3060ti"),
            ("NVIDIA GeForce RTX 3070 Laptop GPU", (8, 6), 8, "rtx3070"),
            ("NVIDIA GeForce RTX 4060 Ti", (8, 9), 16, "rtx4060"),
            ("NVIDIA GeForce RTX 5060", (12, 0), 8, "rtx5060"),
            ("NVIDIA H200 NVL", (9, 0), 141, "h200"),
        ],
    )
    def test_by_name(self, name: str, capability: tuple[int, int], gib: float, profile: str) -> None:
        choice = profile_for(gpu(name, capability, gib))
        assert choice.profile == profile
        assert choice.reason.startswith(f"profile {profile}: found {name} (sm_")

    @pytest.mark.parametrize(
        ("name", "capability", "gib", "profile"),
        [
            ("NVIDIA GeForce GTX 1080", (6, 1), 8, "gtx1050ti"),
            ("NVIDIA GeForce GTX 980", (5, 2), 4, "gtx1050ti"),
            ("Tesla T4", (7, 5), 16, "rtx2070"),
            ("Tesla V100-SXM2-16GB", (7, 0), 16, "rtx2070"),
            ("NVIDIA A100-SXM4-80GB", (8, 0), 80, "rtx3060ti"),
            ("NVIDIA GeForce RTX 3060", (8, 6), 12, "rtx3060ti"),
            ("NVIDIA GeForce RTX 4090", (8, 9), 24, "rtx4060"),
            ("NVIDIA H100 80GB HBM3", (9, 0), 80, "h200"),
            ("NVIDIA GH200 480GB", (9, 0), 96, "h200"),
            ("NVIDIA GeForce RTX 5090", (12, 0), 32, "rtx5060"),
        ],
    )
    def test_an_unknown_card_gets_the_nearest_and_a_line_says_so(
        self, name: str, capability: tuple[int, int], gib: float, profile: str
    ) -> None:
        choice = profile_for(gpu(name, capability, gib))
        assert choice.profile == profile
        assert choice.reason.startswith(f"no profile for {name}")
        assert f"taking the nearest, {profile} (" in choice.reason

    def test_less_memory_than_the_nearest_profile_assumes_is_said(self) -> None:
        assert "less memory" in profile_for(gpu("NVIDIA GeForce RTX 3050", (8, 6), 4)).reason
        assert "less memory" not in profile_for(gpu("NVIDIA GeForce RTX 3060", (8, 6), 12)).reason

    def test_no_card(self) -> None:
        assert choose_profile().profile == "cpu"

    def test_the_cpu_when_it_is_asked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        install_cuda(monkeypatch, [RTX_2070])
        assert choose_profile("cpu").profile == "cpu"

    def test_the_card_that_is_asked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        install_cuda(monkeypatch, [RTX_3090, RTX_2070])
        assert [choose_profile(device).profile for device in ("auto", "cuda", "cuda:1")] == [
            "rtx3060ti",
            "rtx3060ti",
            "rtx2070",
        ]
        with pytest.raises(UserError, match=r"engine\.device = cuda:2.*cuda:1 NVIDIA GeForce RTX 2070"):
            choose_profile("cuda:2")

    def test_a_card_pytorch_cannot_use_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        install_nvml(monkeypatch, [GTX_1050_TI])
        choice = choose_profile()
        assert choice.profile == "cpu"
        assert "GTX 1050 Ti (sm_61, 4.0 GiB) is there, but PyTorch cannot use it" in choice.reason


class TestDeviceAndPrecision:
    # NVIDIA's rule: machine code runs on the same major version from its minor up, PTX on anything newer.
    @pytest.mark.parametrize(
        ("capability", "arch_list", "expected"),
        [
            ((8, 6), ["sm_80"], True),
            ((8, 6), ["sm_86"], True),
            ((8, 0), ["sm_86"], False),
            ((9, 0), ["sm_80"], False),
            ((9, 0), ["sm_80", "compute_80"], True),
            ((6, 1), ["sm_75", "compute_75"], False),
            ((12, 0), ["sm_90a", "sm_120"], True),
            ((7, 5), [], False),
            ((7, 5), ["gfx90a"], False),
        ],
    )
    def test_built_for(self, capability: tuple[int, int], arch_list: list[str], expected: bool) -> None:
        assert built_for(capability, arch_list) is expected

    def test_auto_takes_the_first_usable_card_else_the_cpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert pick_device("auto") == torch.device("cpu")
        install_cuda(monkeypatch, [GTX_1050_TI, RTX_2070])
        assert pick_device("auto") == torch.device("cuda", 1)

    @pytest.mark.parametrize("setting", ["cuda", "cuda:0", "cuda:2"])
    def test_asking_for_cuda_that_is_not_there(self, monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
        install_cuda(monkeypatch, [GTX_1050_TI, RTX_2070])
        with pytest.raises(UserError, match=f"engine.device = {setting}: PyTorch .* can use 1 CUDA device"):
            pick_device(setting)

    @pytest.mark.parametrize(
        ("card", "dtype"),
        [
            (FakeCard("P100", (6, 0), 16), torch.float32),
            (GTX_1050_TI, torch.float32),
            (FakeCard("V100", (7, 0), 16), torch.float16),
            (RTX_2070, torch.float16),
            (FakeCard("A100", (8, 0), 80), torch.bfloat16),
            (RTX_3090, torch.bfloat16),
            (FakeCard("B200", (10, 0), 180), torch.bfloat16),
        ],
    )
    def test_auto_precision_by_capability(
        self, monkeypatch: pytest.MonkeyPatch, card: FakeCard, dtype: torch.dtype
    ) -> None:
        install_cuda(monkeypatch, [card])
        assert pick_dtype("auto", torch.device("cuda", 0)) == dtype

    def test_bf16_on_turing_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        install_cuda(monkeypatch, [RTX_2070])
        with pytest.raises(
            UserError, match=r"needs compute capability 8\.0, but .* RTX 2070 has 7\.5; take fp16 or auto"
        ):
            pick_dtype("bf16", torch.device("cuda", 0))

    @pytest.mark.parametrize(
        ("avx512_bf16", "amx", "dtype"),
        [(True, False, torch.float32), (True, True, torch.bfloat16), (False, False, torch.float32)],
    )
    def test_auto_precision_on_a_cpu(
        self, monkeypatch: pytest.MonkeyPatch, avx512_bf16: bool, amx: bool, dtype: torch.dtype
    ) -> None:
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16, raising=False)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
        assert pick_dtype("auto", torch.device("cpu")) == dtype

    @pytest.mark.parametrize(
        ("setting", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
    )
    def test_explicit_precision(self, setting: str, dtype: torch.dtype) -> None:
        assert pick_dtype(setting, torch.device("cpu")) == dtype
