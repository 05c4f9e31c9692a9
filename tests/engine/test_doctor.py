"""`doctor` finds what is there and what is not, and never crashes."""

import json
import shutil
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
import typer
from typer.testing import CliRunner

from fastgan_engine import doctor
from fastgan_engine.cli.doctor import doctor as doctor_command
from fastgan_engine.doctor import Check, diagnose

from .machines import GIB, GTX_1050_TI, RTX_2070, RTX_3090, FakeCard, hide, install_cuda, install_nvml


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No card, nothing optional imported for real: the tests put in place what they are about."""
    install_nvml(monkeypatch, [], init_error="Driver Not Loaded")
    install_cuda(monkeypatch, [])
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    for module in ("nvidia.dali", "lpips", "triton", "amp_C"):
        hide(monkeypatch, module)


def find(name: str, weights_dir: Path | None = None) -> Check:
    return {check.name: check for check in diagnose(weights_dir)}[name]


class TestCards:
    def test_two_cards_with_their_memory_and_users(self, monkeypatch: pytest.MonkeyPatch) -> None:
        game = [(11, "C:\\game.exe", None), (12, None, None), (13, "python", 3 * GIB)]
        cards = [FakeCard(**{**vars(RTX_2070), "processes": game}), RTX_3090]
        install_nvml(monkeypatch, cards)
        install_cuda(monkeypatch, cards)
        assert find("driver").found == "580.95.05"
        turing, ampere = find("gpu 0"), find("gpu 1")
        assert turing.found == (
            "cuda:0 NVIDIA GeForce RTX 2070 (sm_75, 8.0 GiB), 6.5 GiB free; used by python (pid 13) 3.0 GiB, "
            "C:\\game.exe (pid 11) of unknown size, unknown (pid 12) of unknown size"
        )
        assert (turing.status, turing.effect) == ("ok", "trains in fp16")
        assert (ampere.status, ampere.effect) == ("ok", "trains in bf16")
        assert find("profile").found.startswith("profile rtx2070: found")

    def test_a_lost_card_is_reported_beside_the_working_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        install_nvml(monkeypatch, [FakeCard("x", (8, 6), 8, uuid="GPU-x", lost=True), RTX_2070])
        install_cuda(monkeypatch, [RTX_2070])
        assert find("driver").effect == "NVML, card 0: GPU is lost"
        assert find("gpu 0").found.startswith("cuda:0 NVIDIA GeForce RTX 2070")

    def test_a_card_older_than_the_build(self, monkeypatch: pytest.MonkeyPatch) -> None:
        install_nvml(monkeypatch, [GTX_1050_TI])
        install_cuda(monkeypatch, [GTX_1050_TI])
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        check = find("gpu 0")
        assert check.status == "fallback"
        assert "built for sm_75, sm_80" in check.effect
        assert check.effect.endswith("not sm_61")
        assert "CUDA 12.6" in check.remedy

    def test_a_card_with_a_cpu_build(self, monkeypatch: pytest.MonkeyPatch) -> None:
        install_nvml(monkeypatch, [RTX_2070])
        monkeypatch.setattr(torch.version, "cuda", None)
        check = find("gpu 0")
        assert (check.status, check.effect) == ("fallback", "not used: PyTorch is a CPU build")
        assert "PyTorch cannot use it" in find("profile").found

    def test_a_card_whose_cuda_does_not_start(self, monkeypatch: pytest.MonkeyPatch) -> None:
        install_nvml(monkeypatch, [RTX_2070])
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        assert "does not start" in find("gpu 0").effect

    @pytest.mark.parametrize("nvml", ["missing", "failing"])
    def test_without_nvml(self, monkeypatch: pytest.MonkeyPatch, nvml: str) -> None:
        if nvml == "missing":
            hide(monkeypatch, "pynvml")
        check = find("driver")
        reason = "NVML: the package nvidia-ml-py is not installed" if nvml == "missing" else "NVML: Driver Not Loaded"
        assert (check.status, check.found) == ("fallback", reason)
        assert check.effect == "training runs on the CPU"


class TestParts:
    @pytest.mark.parametrize(
        ("name", "effect"),
        [
            ("triton", "plain PyTorch operations"),
            ("dali", "images are decoded with Pillow"),
            ("lpips", "l1 can"),
            ("apex", "torch.optim.Adam is used"),
        ],
    )
    def test_a_missing_part_falls_back_and_says_to_what(self, name: str, effect: str) -> None:
        check = find(name)
        assert check.status == "fallback"
        assert effect in check.effect
        assert check.remedy

    @pytest.mark.parametrize(("name", "module"), [("triton", "triton"), ("dali", "nvidia.dali")])
    def test_a_part_that_is_there(self, monkeypatch: pytest.MonkeyPatch, name: str, module: str) -> None:
        monkeypatch.setitem(sys.modules, module, SimpleNamespace(__version__="9.9"))
        assert (find(name).status, find(name).found) == ("ok", "9.9")

    def test_triton_on_a_card_it_does_not_support(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "triton", SimpleNamespace(__version__="9.9"))
        install_cuda(monkeypatch, [GTX_1050_TI], arch_list=["sm_61"])
        assert find("triton").status == "fallback"
        install_cuda(monkeypatch, [RTX_2070])
        assert find("triton").status == "ok"

    def test_a_damaged_part_is_a_finding(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "lpips.py").write_text("raise OSError('libcudart.so.13: cannot open shared object file')")
        monkeypatch.delitem(sys.modules, "lpips")
        monkeypatch.syspath_prepend(tmp_path)
        assert find("lpips").found == "failed: OSError: libcudart.so.13: cannot open shared object file"

    def test_a_part_that_lacks_a_part_of_its_own(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "lpips.py").write_text("import scypi_is_not_installed")
        monkeypatch.delitem(sys.modules, "lpips")
        monkeypatch.syspath_prepend(tmp_path)
        assert find("lpips").remedy == "install scypi_is_not_installed"

    def test_nvidias_apex(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "amp_C", ModuleType("amp_C"))
        assert (find("apex").status, find("apex").found) == ("ok", "NVIDIA's apex")

    def test_the_unrelated_apex_is_recognised(self, monkeypatch: pytest.MonkeyPatch) -> None:
        version = metadata.version
        monkeypatch.setattr(metadata, "version", lambda name: "0.9.10" if name == "apex" else version(name))
        check = find("apex")
        assert check.found == "apex 0.9.10, but not NVIDIA's: it has no amp_C"
        assert "unrelated" in check.effect

    def test_no_compiler(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(shutil, "which", lambda name: None)
        assert (find("compiler").status, "gcc" in find("compiler").remedy) == ("fallback", True)

    def test_the_compiler_that_cc_names(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CC", "my-cc")
        monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}" if name == "my-cc" else None)
        assert find("compiler").found == "/bin/my-cc"

    @pytest.mark.parametrize("place", ["weights_dir", "cache"])
    def test_vgg_weights_are_found(self, tmp_path: Path, place: str) -> None:
        folder = tmp_path / ("mine" if place == "weights_dir" else "hub/checkpoints")
        folder.mkdir(parents=True)
        (folder / "vgg16-397923af.pth").touch()
        check = find("lpips weights", tmp_path / "mine")
        assert (check.status, check.found) == ("ok", str(folder / "vgg16-397923af.pth"))

    def test_missing_vgg_weights_name_the_file_and_the_folders(self, tmp_path: Path) -> None:
        check = find("lpips weights", tmp_path / "mine")
        assert check.status == "fallback"
        assert f"no vgg16-397923af.pth in {tmp_path}/mine or {tmp_path}/hub/checkpoints" in check.found

    def test_a_full_disk(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=GIB))
        assert (find("disk").status, find("disk").effect) == ("fallback", "a run may need 2.0 GiB")

    def test_a_run_folder_that_does_not_exist_yet(self, tmp_path: Path) -> None:
        check = {check.name: check for check in diagnose(out=tmp_path / "a" / "b")}["disk"]
        assert check.found.endswith(f"free at {tmp_path}")


class TestVerdict:
    def test_a_machine_with_nothing_optional_can_train(self) -> None:
        assert doctor.can_train(diagnose())

    def test_without_torch_nothing_crashes_and_training_cannot_work(self, monkeypatch: pytest.MonkeyPatch) -> None:
        hide(monkeypatch, "torch")
        monkeypatch.delitem(sys.modules, "fastgan_engine.perceptual", raising=False)
        checks = diagnose()
        assert [check.name for check in checks if check.status == "missing"] == ["torch"]
        assert not doctor.can_train(checks)

    def test_any_failing_check_is_a_finding(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: object) -> None:
            raise ZeroDivisionError("boom")

        for name in ("_cpu", "_driver", "_profile", "_compiler", "_disk"):
            monkeypatch.setattr(doctor, name, fail)
        failed = [check.name for check in diagnose() if "ZeroDivisionError: boom" in check.found]
        assert failed == ["cpu", "driver", "profile", "compiler", "disk"]


class TestCommand:
    @staticmethod
    def run(*arguments: str) -> tuple[int, str]:
        app = typer.Typer()
        app.command()(doctor_command)
        result = CliRunner().invoke(app, arguments)
        return result.exit_code, result.output

    def test_table(self) -> None:
        code, output = self.run()
        assert code == 0
        assert "Training can work here." in output
        assert "NVML: Driver Not Loaded" in output

    def test_json(self) -> None:
        code, output = self.run("--json")
        report = json.loads(output)
        assert (code, report["can_train"]) == (0, True)
        assert {"python", "torch", "driver", "profile", "triton", "dali", "lpips", "apex", "disk"} <= {
            check["name"] for check in report["checks"]
        }

    def test_exit_code_when_training_cannot_work(self, monkeypatch: pytest.MonkeyPatch) -> None:
        hide(monkeypatch, "torch")
        code, output = self.run()
        assert code == 1
        assert "pip install torch" in output
