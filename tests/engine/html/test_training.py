"""Training writes its own page, and goes on where that fails."""

from pathlib import Path

import pytest

from fastgan_engine import trainer
from fastgan_engine.html import page
from fastgan_engine.pipelines import PreparedSet, draw_demo, prepare
from fastgan_engine.run_folder import RunFolder
from fastgan_engine.screen import QuietScreen
from tests.engine.small import SIZE, small_config


class Events(QuietScreen):
    def __init__(self) -> None:
        self.said: list[str] = []

    def event(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    folder = tmp_path_factory.mktemp("photos")
    draw_demo(folder, count=4, size=SIZE)
    return prepare(folder, tmp_path_factory.mktemp("prepared"), im_size=SIZE, warn=pytest.fail)


def train(images: PreparedSet, folder: Path, **log: object) -> list[str]:
    screen = Events()
    config = small_config(
        train={"steps": 2, "batch": 2}, log={"tick": 1, "sample_every": 1, "tensorboard": False} | log
    )
    assert trainer.Trainer(config, images, folder, screen=screen).train()
    return screen.said


def test_a_page_at_each_grid_and_at_the_end(
    images: PreparedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def write(folders: list[Path], out: Path) -> None:
        written.append(len(RunFolder(folders[0]).all_samples()))
        if len(written) == 1:
            raise OSError("no space left")
        real(folders, out)

    real = page.write_report
    monkeypatch.setattr(page, "write_report", write)
    said = train(images, tmp_path / "run")
    assert written == [2, 3, 3]  # with those of the steps 0 and 1, then 2, then at the end
    assert sum("report.html was not written (OSError: no space left)" in text for text in said) == 1
    html = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "<dd>2 of 2</dd>" in html
    assert html.count('<div class="frame ') == 6
    assert "Training started" in html


def test_it_can_be_turned_off(images: PreparedSet, tmp_path: Path) -> None:
    train(images, tmp_path / "run", report=False)
    assert not (tmp_path / "run" / "report.html").exists()
