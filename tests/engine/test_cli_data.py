"""``data check|prepare|demo`` as a user runs them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from fastgan_engine.cli.data import app
from fastgan_engine.errors import UserError
from fastgan_engine.pipelines import defaults, open_prepared
from tests.pipelines.bad_files import encode, photo, write_bad_files


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Three good images."""
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(3):
        (folder / f"{index}.png").write_bytes(encode(photo(20, 20, seed=index), "PNG"))
    return folder


def run(*arguments: object) -> Result:
    """The command's result, terminal colours off and 200 columns wide."""
    environment = {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env=environment)


def test_check_of_a_good_folder(images):
    result = run("check", images)
    assert result.exit_code == 0
    assert "3 usable images" in result.output
    assert "20 x 20" in result.output
    assert "No problems." in result.output


def test_check_of_bad_files_lists_them_and_exits_2(tmp_path):
    listed = write_bad_files(tmp_path / "bad")
    result = run("check", tmp_path / "bad")
    assert result.exit_code == 2
    assert result.exception is None or isinstance(result.exception, SystemExit)
    for file in listed:
        if not file.usable:
            assert re.search(rf"^  {re.escape(file.name)}: \S", result.stdout, re.MULTILINE), file.name


def test_check_shows_names_that_look_like_markup(images):
    (images / "[red]x[bold].png").write_bytes(b"")
    assert "  [red]x[bold].png: empty file" in run("check", images).stdout


def test_check_as_json(images):
    (images / "broken.png").write_bytes(b"")
    result = run("check", images, "--json", "--im-size", 32)
    assert result.exit_code == 2
    report = json.loads(result.stdout)
    assert report["im_size"] == 32
    assert [image["name"] for image in report["images"]] == ["0.png", "1.png", "2.png"]
    assert report["problems"] == [{"name": "broken.png", "reason": "empty file (0 bytes)"}]


def test_check_of_an_empty_folder_exits_2(tmp_path):
    result = run("check", tmp_path)
    assert result.exit_code == 2
    assert "No image files" in result.stdout


def test_a_wrong_folder_is_a_user_error(tmp_path):
    for command in ("check", "prepare"):
        error = run(command, tmp_path / "nowhere").exception
        assert isinstance(error, UserError)
        assert "nowhere" in str(error)


def test_prepare_writes_a_set_and_prints_where(images, tmp_path):
    result = run("prepare", images, "--im-size", 16, "--fit", "pad", "--channels", 4, "--out", tmp_path / "sets")
    assert result.exit_code == 0
    prepared = open_prepared(Path(result.stdout.splitlines()[-1]))
    assert prepared.folder.parent == tmp_path / "sets"
    assert (prepared.count, prepared.im_size, prepared.channels) == (3, 16, 4)
    assert prepared.settings.fit == "pad"


def test_prepare_warns_and_strict_refuses(images, tmp_path):
    (images / "broken.png").write_bytes(b"")
    result = run("prepare", images, "--im-size", 16, "--out", tmp_path / "sets")
    assert result.exit_code == 0
    assert "warning: left out broken.png: empty file" in result.stderr
    error = run("prepare", images, "--im-size", 16, "--out", tmp_path / "sets", "--strict").exception
    assert isinstance(error, UserError)
    assert "broken.png" in str(error)


@pytest.mark.parametrize("wrong", [("--fit", "stretch"), ("--background", "nothing"), ("--channels", 2)])
def test_prepare_names_a_wrong_setting(images, tmp_path, wrong):
    error = run("prepare", images, "--out", tmp_path, *wrong).exception
    assert isinstance(error, UserError)
    assert str(wrong[1]) in str(error)


def test_demo_draws_and_can_be_repeated(tmp_path):
    for _ in range(2):
        result = run("demo", tmp_path / "demo", "--count", 2, "--size", 16)
        assert result.exit_code == 0
    with Image.open(tmp_path / "demo" / "flower-0001.png") as image:
        assert image.size == (16, 16)


def test_demo_leaves_other_files_alone(images):
    before = {path.name: path.read_bytes() for path in images.iterdir()}
    error = run("demo", images, "--count", 2, "--size", 16).exception
    assert isinstance(error, UserError)
    assert {path.name: path.read_bytes() for path in images.iterdir()} == before


def test_help_shows_the_defaults():
    assert str(defaults.DEMO_COUNT) in run("demo", "--help").stdout
    text = run("prepare", "--help").stdout
    for value in (defaults.IM_SIZE, defaults.FIT, defaults.BACKGROUND, defaults.CHANNELS, "FASTGAN_CACHE"):
        assert str(value) in text


def test_the_command_loads_nothing_heavy():
    code = (
        "import sys, fastgan_engine.cli.data, fastgan_engine.pipelines\n"
        "print([name for name in ('torch', 'numpy', 'PIL', 'nvidia.dali') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
