"""A small generator that every test of the latent tools may use, and a run of it."""

from pathlib import Path

import pytest

from fastgan_engine.config import resolve
from fastgan_engine.networks import Generator
from fastgan_engine.run_folder import RunFolder
from fastgan_engine.snapshot import save_snapshot
from tests.engine.weights import trained


@pytest.fixture(scope="session")
def generator() -> Generator:
    """64 x 64, nz 16, in evaluation mode, with noise that can be seen."""
    return trained().generator.eval()


@pytest.fixture
def run_folder(generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of this generator in the current folder; what is prepared stays below it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FASTGAN_CACHE", str(tmp_path / "cache"))
    folder = RunFolder(tmp_path / "shells")
    save_snapshot(folder.snapshot(7), generator, step=7)
    flags = {"model.im_size": 64, "model.nz": 16, "model.ngf": 8, "data.path": tmp_path / "photos"}
    folder.config.write_text(resolve(flags=flags).to_toml())
    return folder.path
