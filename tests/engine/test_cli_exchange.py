"""`import` and `export`: released checkpoints to runs, and back."""

import shutil
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from fastgan_engine.api import load_run
from fastgan_engine.build import build_state
from fastgan_engine.checkpoint import load_checkpoint
from fastgan_engine.cli import exchange
from fastgan_engine.errors import UserError
from fastgan_engine.networks import Generator
from fastgan_engine.run_folder import RunFolder
from fastgan_engine.snapshot import load_snapshot, save_snapshot
from tests.engine.weights import STEPS, Trained, assert_same_state, save_as_released, trained

app = typer.Typer()
app.command("import")(exchange.import_)
app.command("export")(exchange.export)


def run(*arguments: object) -> str:
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False).output


@pytest.fixture(scope="module")
def networks() -> Trained:
    return trained()


@pytest.fixture(scope="module")
def everything(networks: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_as_released(tmp_path_factory.mktemp("in") / "all_1.pth", networks, everything=True, parallel=True)


@pytest.fixture(scope="module")
def imported(everything: Path) -> RunFolder:
    folder = RunFolder(everything.with_name("run"))
    run("import", everything, "--out", folder.path)
    return folder


class TestImport:
    def test_a_run_with_snapshot_and_checkpoint(self, imported: RunFolder, networks: Trained) -> None:
        assert imported.latest_snapshot() == imported.snapshot(STEPS)
        assert imported.latest_checkpoint() == imported.checkpoint(STEPS)
        opened = load_run(imported.path)
        assert opened.step == STEPS
        for parameter, expected in zip(opened.generator.parameters(), networks.averaged, strict=True):
            assert torch.equal(parameter, expected)
        assert opened.config is not None
        model, train = opened.config.model, opened.config.train
        assert (model.im_size, model.nz, model.ngf, model.ndf, model.nc) == (64, 16, 8, 16, 3)
        assert (train.lr, train.beta1, train.beta2) == (3e-4, 0.5, 0.99)

    def test_training_goes_on_exactly_where_it_was(self, imported: RunFolder, networks: Trained) -> None:
        config = load_run(imported.path).config
        assert config is not None
        state = build_state(config, torch.device("cpu"), torch.float32)
        state.load_state_dict(load_checkpoint(imported.checkpoint(STEPS))["state"])
        assert state.step == STEPS
        for ours, theirs in (
            (state.networks.generator, networks.generator),
            (state.networks.discriminator, networks.discriminator),
        ):
            assert_same_state(ours.state_dict(), theirs.state_dict())
        for optimizer, original in ((state.opt_g, networks.opt_g), (state.opt_d, networks.opt_d)):
            assert optimizer.param_groups[0]["betas"] == (0.5, 0.99)
            assert optimizer.param_groups[0]["fused"] is True  # how Adam runs is this machine's choice
            moments = original.state_dict()["state"]
            torch.testing.assert_close(optimizer.state_dict()["state"], moments, rtol=0, atol=0)

    def test_without_optimizers_only_a_snapshot(self, networks: Trained, tmp_path: Path) -> None:
        file = save_as_released(tmp_path / "50000.pth", networks, everything=False, parallel=False)
        output = run("import", file, "--out", tmp_path / "run")
        folder = RunFolder(tmp_path / "run")
        assert folder.latest_checkpoint() is None
        assert load_run(folder.path).step == 0  # unknown, and never read from a name
        assert f"fastgan-engine sample {folder.path}" in output.replace("\n", "")
        assert "train on" not in output
        run("import", file, "--out", tmp_path / "run2", "--step", 50_000)
        assert load_run(tmp_path / "run2").step == 50_000

    def test_only_into_a_new_folder(self, everything: Path, imported: RunFolder, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="exists; a run is imported into a new folder"):
            run("import", everything, "--out", imported.path)
        with pytest.raises(UserError, match=r"cannot read .*none\.pth"):
            run("import", tmp_path / "none.pth", "--out", tmp_path / "new")
        assert not (tmp_path / "new").exists()

    def test_a_size_that_no_configuration_has(self, tmp_path: Path) -> None:
        torch.save({"g": Generator(64, nz=4, ngf=10).state_dict()}, tmp_path / "odd.pth")
        with pytest.raises(UserError, match=r"model\.ngf: got 10 \(flag\), expected a multiple of 8"):
            run("import", tmp_path / "odd.pth", "--out", tmp_path / "new")
        assert not (tmp_path / "new").exists()


class TestExport:
    def test_everything_comes_back(self, everything: Path, imported: RunFolder, tmp_path: Path) -> None:
        """Released file -> run -> released file: key by key and value by value."""
        run("export", imported.path, tmp_path / "x.pth", "--everything")
        written, original = torch.load(tmp_path / "x.pth"), torch.load(everything)
        assert list(written) == list(original)
        for entry in ("g", "d"):
            plain = {key.removeprefix("module."): tensor for key, tensor in original[entry].items()}
            assert_same_state(written[entry], plain)
        torch.testing.assert_close(written["g_ema"], original["g_ema"], rtol=0, atol=0)
        for entry in ("opt_g", "opt_d"):
            torch.testing.assert_close(written[entry]["state"], original[entry]["state"], rtol=0, atol=0)

    def test_released_holds_the_average_and_the_discriminator(
        self, everything: Path, imported: RunFolder, networks: Trained, tmp_path: Path
    ) -> None:
        for name, source in (("run.pth", imported.path), ("file.pth", everything)):
            run("export", source, tmp_path / name)
            content = torch.load(tmp_path / name)
            names = [name for name, _ in networks.generator.named_parameters()]
            assert all(torch.equal(content["g"][n], t) for n, t in zip(names, networks.averaged, strict=True))
            assert_same_state(content["d"], networks.discriminator.state_dict())

    def test_safetensors(self, imported: RunFolder, everything: Path, tmp_path: Path) -> None:
        expected = load_run(imported.path).generator.state_dict()
        for name, source in (("run", imported.path), ("file", everything)):
            output = run("export", source, tmp_path / f"{name}.safetensors")
            assert "MiB" in output
            snapshot = load_snapshot(tmp_path / f"{name}.safetensors")
            assert snapshot.step == STEPS
            assert_same_state(snapshot.generator.state_dict(), expected)

    def test_from_a_snapshot_the_generator_alone(self, networks: Trained, tmp_path: Path) -> None:
        save_snapshot(tmp_path / "s.safetensors", networks.generator, step=1)
        run("export", tmp_path / "s.safetensors", tmp_path / "x.pth")
        content = torch.load(tmp_path / "x.pth")
        assert list(content) == ["g"]
        assert_same_state(content["g"], networks.generator.state_dict())
        with pytest.raises(UserError, match="holds only a generator; without a checkpoint, leave out --everything"):
            run("export", tmp_path / "s.safetensors", tmp_path / "y.pth", "--everything")

    def test_a_checkpoint_of_another_size(self, imported: RunFolder, tmp_path: Path) -> None:
        other = RunFolder(shutil.copytree(imported.path, tmp_path / "other"))
        other.config.write_text(other.config.read_text().replace("im_size = 64", "im_size = 128"))
        with pytest.raises(UserError, match=r"holds other networks than .*config\.toml describes"):
            run("export", other.path, tmp_path / "x.pth")
        assert not (tmp_path / "x.pth").exists()

    def test_errors(self, imported: RunFolder, networks: Trained, tmp_path: Path) -> None:
        taken = tmp_path / "taken.pth"
        taken.touch()
        with pytest.raises(UserError, match=r"OUT: .* exists; choose another path, or overwrite it with --force"):
            run("export", imported.path, taken)
        with pytest.raises(UserError, match=r"ending in \.safetensors, \.pth, \.onnx, \.pt2; got .*x\.ckpt"):
            run("export", imported.path, tmp_path / "x.ckpt")
        with pytest.raises(UserError, match=r"a \.pth has no inputs; it is for \.onnx and \.pt2"):
            run("export", imported.path, tmp_path / "x.pth", "--noise", "input")
        with pytest.raises(UserError, match=r"a \.onnx holds the averaged generator alone; it is for \.pth"):
            run("export", imported.path, tmp_path / "x.onnx", "--everything")
        plain = save_as_released(tmp_path / "1.pth", networks, everything=False, parallel=False)
        with pytest.raises(UserError, match="holds no optimizers and no live weights; leave out --everything"):
            run("export", plain, tmp_path / "x.pth", "--everything")
        assert not (tmp_path / "x.pth").exists()
