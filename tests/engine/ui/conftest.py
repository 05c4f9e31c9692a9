"""A run of a small generator, and a photo."""

from pathlib import Path

import pytest

from fastgan_engine.images import save_image
from fastgan_engine.networks import Generator
from fastgan_engine.run_folder import RunFolder
from fastgan_engine.sampling import sample
from fastgan_engine.snapshot import save_snapshot
from tests.engine.small import small_config
from tests.engine.weights import trained


@pytest.fixture(scope="session")
def generator() -> Generator:
    """64 x 64, nz 16, in evaluation mode."""
    return trained().generator.eval()


@pytest.fixture(scope="session")
def run_folder(generator: Generator, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of this generator."""
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "shells")
    save_snapshot(folder.snapshot(1234), generator, step=1234)
    folder.config.write_text(small_config().to_toml())
    return folder.path


@pytest.fixture(scope="session")
def photo(generator: Generator, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture the generator can make, with a name that needs care."""
    path = tmp_path_factory.mktemp("photos") / "my photo, 1.png"
    save_image(path, next(sample(generator, 1, seed=8))[0])
    return path
