"""`sample`, and `load_run` behind it."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

import fastgan_engine
from fastgan_engine.cli.sample import sample as sample_command
from fastgan_engine.config import resolve
from fastgan_engine.errors import UserError
from fastgan_engine.latent.latents import draw, save_latents
from fastgan_engine.run_folder import RunFolder
from fastgan_engine.sampling import sample
from fastgan_engine.snapshot import save_snapshot
from tests.engine.weights import Trained, save_as_released, trained

app = typer.Typer()
app.command()(sample_command)


def run(*arguments: object) -> str:
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False).output


@pytest.fixture(scope="module")
def networks() -> Trained:
    return trained(nz=16)


@pytest.fixture
def folder(networks: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run with two snapshots; the later one is of a step that its name does not tell."""
    monkeypatch.chdir(tmp_path)
    folder = RunFolder(tmp_path / "shells")
    save_snapshot(folder.snapshot(9), networks.generator, step=9)
    save_snapshot(folder.snapshot(10), networks.generator, step=1234)
    folder.config.write_text(resolve(flags={"model.im_size": 64, "model.nz": 16, "model.ngf": 8}).to_toml())
    return folder.path


def picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


class TestSample:
    def test_a_grid_named_after_the_run(self, folder: Path) -> None:
        output = run(folder, "--count", 5)
        assert "5 image(s) of 64 x 64" in output
        assert "step 1,234, seed 0: shells-seed-0.png" in output
        assert picture(Path("shells-seed-0.png")).shape == (2 * 64 + 2, 3 * 64 + 4, 3)

    def test_files_are_the_cells_of_the_grid(self, folder: Path, networks: Trained) -> None:
        run(folder, "--count", 4, "--seed", 2, "--truncation", 0.7, "--out", "grid.png")
        run(folder, "--count", 4, "--seed", 2, "--truncation", 0.7, "--files", "--chunk", 3, "--out", "files")
        files = sorted(Path("files").iterdir())
        assert [file.name for file in files] == [f"{index:06d}.png" for index in range(4)]
        expected = torch.cat(list(sample(networks.generator, 4, seed=2, truncation=0.7))).int().numpy()
        for index, file in enumerate(files):
            top, left = index // 2 * 66, index % 2 * 66
            cell = picture(Path("grid.png"))[top : top + 64, left : left + 64]
            assert abs(cell - picture(file)).max() <= 1  # chunks may round otherwise
            assert abs(cell - expected[index]).max() <= 1

    def test_latents_by_name(self, folder: Path, networks: Trained) -> None:
        save_latents(Path("two.safetensors"), draw(networks.generator, 3, [1, 4]))
        output = run(folder, "--latents", "0:2,two.safetensors", "--truncation", 0.7, "--files")
        assert "3 image(s) of 64 x 64" in output
        assert "latents 0:2,two.safetensors: shells-latents-truncation-0.7/000000.png to 000002.png" in output
        zeroth, third = (torch.cat(list(sample(networks.generator, 5, seed=s, truncation=0.7))) for s in (0, 3))
        for file, expected in zip(
            sorted(Path("shells-latents-truncation-0.7").iterdir()), (zeroth[2], third[1], third[4]), strict=True
        ):
            assert abs(picture(file) - expected.int().numpy()).max() <= 1

    def test_names_tell_the_settings(self, folder: Path) -> None:
        run(folder, "--count", 1, "--seed", 7, "--truncation", 0.5)
        run(folder, "--count", 1, "--files")
        run(RunFolder(folder).snapshot(9), "--count", 1)
        names = {path.name for path in Path().iterdir()}
        assert {"shells-seed-7-truncation-0.5.png", "shells-seed-0", "step-0000009-seed-0.png"} <= names

    def test_nothing_is_overwritten_unasked(self, folder: Path) -> None:
        Path("x.png").write_text("mine")
        with pytest.raises(UserError, match=r"--out: x\.png exists; choose another path, or overwrite it with --force"):
            run(folder, "--out", "x.png")
        assert Path("x.png").read_text() == "mine"
        run(folder, "--out", "x.png", "--force")
        assert picture(Path("x.png")).ndim == 3
        Path("files").mkdir()
        run(folder, "--count", 1, "--files", "--out", "files")  # an empty folder is free
        with pytest.raises(UserError, match="--out: files exists"):
            run(folder, "--count", 1, "--files", "--out", "files")

    def test_a_released_file(self, folder: Path, networks: Trained) -> None:
        path = save_as_released(Path("all_3.pth"), networks, everything=True, parallel=True)
        assert "from all_3.pth, step 3, seed 0: all_3-seed-0.png" in run(path, "--count", 1)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--out", "x.jpg"], r"a grid is written as \.png, got x\.jpg; for a PNG each, add --files"),
            (["--count", "1000000"], r"--count: 1,000,000 images of 64 x 64 are too many .*at most 65,536.*--files"),
            (["--latents", "7,eleven"], "a latent: got 'eleven', expected a SEED such as 7"),
            (["--device", "gpu"], r'engine\.device: got "gpu"'),
            (["--out", "config.toml/x.png"], r"cannot write config\.toml/x\.png: "),
        ],
    )
    def test_errors(self, folder: Path, arguments: list[str], message: str) -> None:
        Path("config.toml").touch()
        with pytest.raises(UserError, match=message):
            run(folder, *arguments)


class TestLoadRun:
    def test_a_folder(self, folder: Path, networks: Trained) -> None:
        opened = fastgan_engine.load_run(folder)
        assert opened.step == 1234
        assert opened.source == RunFolder(folder).snapshot(10)
        assert opened.config is not None
        assert opened.config.model.nz == 16
        assert not opened.generator.training
        assert torch.equal(opened.generator.to_big.weight_orig, networks.generator.to_big.weight_orig)

    def test_files(self, folder: Path, networks: Trained) -> None:
        copied = shutil.copy(RunFolder(folder).snapshot(9), "elsewhere.safetensors")
        opened = fastgan_engine.load_run(str(copied))
        assert (opened.step, opened.config, opened.folder) == (9, None, None)
        released = fastgan_engine.load_run(save_as_released(Path("a.pth"), networks, everything=True, parallel=False))
        assert released.step == 3
        assert torch.equal(next(released.generator.parameters()), networks.averaged[0])
        assert not released.generator.training

    @pytest.mark.parametrize("name", ["best.safetensors", "snapshots/step-0000009.safetensors"])
    def test_a_snapshot_in_a_run_is_of_the_run(self, folder: Path, name: str) -> None:
        run_folder = RunFolder(folder)
        shutil.copy(run_folder.snapshot(9), run_folder.best)
        opened = fastgan_engine.load_run(folder / name)
        assert opened.config == fastgan_engine.load_run(folder).config
        assert opened.folder == RunFolder(folder.absolute())

    def test_a_file_beside_another_programs_settings_is_of_no_run(self, folder: Path) -> None:
        shutil.copy(RunFolder(folder).snapshot(9), "photos.safetensors")
        Path("config.toml").write_text("[server]\nport = 80\n")
        assert fastgan_engine.load_run("photos.safetensors").config is None

    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"nope does not exist; give the folder of a run, a snapshot or"):
            fastgan_engine.load_run(tmp_path / "nope")
        with pytest.raises(UserError, match=r"holds no snapshot \(snapshots/step-N\.safetensors\)"):
            fastgan_engine.load_run(tmp_path)


def test_importing_stays_light() -> None:
    code = (
        "import sys, fastgan_engine, fastgan_engine.cli.sample, fastgan_engine.cli.exchange;"
        "print({'torch', 'pydantic', 'numpy', 'PIL'} & set(sys.modules));"
        "print(all(getattr(fastgan_engine, name) for name in fastgan_engine.__all__), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\nTrue True\n"
