"""`fastgan-engine train`: which run it works on, with which settings, and what it says. No network is built here."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fastgan_engine.cli import app
from fastgan_engine.cli import train as command
from fastgan_engine.errors import UserError

CONFIG = """
[train]
steps = 700
batch = 3
[model]
im_size = 64
"""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "_forecast", lambda config, profile: [f"planned for {profile}"])  # takes seconds


def make_run(folder: Path, *steps: int, config: str | None = CONFIG) -> Path:
    """A run's folder as far as finding it goes: empty checkpoints, and its configuration."""
    (folder / "checkpoints").mkdir(parents=True)
    for step in steps:
        (folder / "checkpoints" / f"step-{step:07d}.pt").touch()
    if config is not None:
        (folder / "config.toml").write_text(config)
    return folder


def dry_run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["train", "--dry-run", *arguments])
    if isinstance(result.exception, UserError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def resolved(*arguments: str) -> dict:
    return tomllib.loads(dry_run(*arguments))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """What the command would have trained: its arguments, in place of training."""
    calls: list[tuple] = []

    def record(start, config, source, screen) -> bool:  # type: ignore[no-untyped-def]
        calls.append((start, config))
        return True

    monkeypatch.setattr(command, "_train", record)
    return calls


def begin(*arguments: str):  # type: ignore[no-untyped-def]
    result = CliRunner().invoke(app, ["train", "--data", "images", "--screen", "quiet", *arguments])
    if isinstance(result.exception, UserError):
        raise result.exception
    return result


@pytest.mark.parametrize(
    ("flags", "section", "key", "value"),
    [
        (["--im-size", "128"], "model", "im_size", 128),
        (["--fit", "crop"], "data", "fit", "crop"),
        (["--background", "#102030"], "data", "background", "#102030"),
        (["--flip"], "data", "flip", True),
        (["--no-flip"], "data", "flip", False),
        (["--strict"], "data", "strict", True),
        ([], "data", "strict", False),
        (["--steps", "12"], "train", "steps", 12),
        (["--batch", "6"], "train", "batch", 6),
        (["--batch", "6", "--micro-batch", "2"], "train", "micro_batch", 2),
        (["--lr", "1e-3"], "train", "lr", 1e-3),
        (["--seed", "5"], "train", "seed", 5),
        (["--reconstruction", "l1"], "loss", "reconstruction", "l1"),
        (["--device", "cuda:1"], "engine", "device", "cuda:1"),
        (["--dtype", "fp16"], "precision", "dtype", "fp16"),
        (["--sample-every", "7"], "log", "sample_every", 7),
        (["--checkpoint-every", "9"], "log", "checkpoint_every", 9),
        (["--screen", "plain"], "log", "screen", "plain"),
        (["--steps", "12", "--set", "train.steps=13"], "train", "steps", 13),
        (["--set", "train.beta1=0.25"], "train", "beta1", 0.25),
    ],
    ids=lambda value: " ".join(value) or "nothing" if isinstance(value, list) else None,
)
def test_flag_sets_its_key(flags: list[str], section: str, key: str, value: object) -> None:
    assert resolved(*flags)[section][key] == value


def test_paths_become_absolute_so_that_a_run_resumes_from_elsewhere(tmp_path: Path) -> None:
    config = resolved("--data", "my images", "--weights-dir", "weights")
    assert config["data"]["path"] == str(tmp_path / "my images")
    assert config["loss"]["weights_dir"] == str(tmp_path / "weights")


def test_dry_run_shows_where_each_value_came_from_and_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[train]\nlr = 1e-4\nbatch = 2\n")
    lines = dry_run("--profile", "cpu", "--config", "mine.toml", "--batch", "4", "--set", "log.keep=5").splitlines()
    assert "im_size = 64  # from profile cpu" in lines
    assert "lr = 0.0001  # from file mine.toml" in lines
    assert "batch = 4  # from flag" in lines
    assert "keep = 5  # from --set" in lines
    assert "nz = 256" in lines  # a default
    assert [path.name for path in tmp_path.iterdir()] == ["mine.toml"]


def test_dry_run_tells_the_forecast_as_comments() -> None:
    assert dry_run("--profile", "rtx2070").startswith("# planned for rtx2070\n")


def test_dry_run_tells_notes_as_comments(tmp_path: Path) -> None:
    assert "# model.decode is on but" in dry_run("--reconstruction", "none")


def test_first_run_is_numbered_one_and_the_next_follows_the_largest(started: list) -> None:
    begin()
    for name in ("0001", "0002", "0010", "007", "trial"):
        make_run(Path("runs") / name, 5)
    begin()
    assert [start.folder for start, _ in started] == [Path("runs/0001"), Path("runs/0011")]
    assert all(start.checkpoint is None for start, _ in started)


def test_existing_run_is_not_overwritten() -> None:
    make_run(Path("trial"), 20, 100)
    with pytest.raises(UserError) as raised:
        begin("--out", "trial")
    assert "trial already holds a run (its last checkpoint: step-0000100.pt)" in str(raised.value)
    assert "--resume auto" in str(raised.value)


def test_folder_without_checkpoint_starts_over(started: list) -> None:
    make_run(Path("trial"))
    begin("--out", "trial", "--steps", "5")
    begin("--out", "trial", "--steps", "5", "--resume", "auto")
    for start, config in started:
        assert (start.folder, start.checkpoint, config.train.steps) == (Path("trial"), None, 5)
        assert config.train.batch == 8  # the file of a run that never saved a state decides nothing


def test_resume_auto_goes_on_with_the_run_in_out(started: list) -> None:
    make_run(Path("trial"), 20, 100)
    begin("--out", "trial", "--resume", "auto")
    start, config = started[0]
    assert (start.folder, start.checkpoint) == (Path("trial"), Path("trial/checkpoints/step-0000100.pt"))
    assert (config.train.steps, config.train.batch, config.model.im_size) == (700, 3, 64)


def test_resume_auto_without_out_takes_the_newest_run(started: list) -> None:
    for name, steps in (("0002", (5,)), ("0010", (7,)), ("trial", (9,))):
        make_run(Path("runs") / name, *steps)
    begin("--resume", "auto")
    assert started[0][0].checkpoint == Path("runs/0010/checkpoints/step-0000007.pt")


def test_resume_auto_with_no_run_starts_one(started: list) -> None:
    begin("--resume", "auto")
    begin("--resume", "auto", "--out", "new")
    assert [(start.folder, start.checkpoint) for start, _ in started] == [
        (Path("runs/0001"), None),
        (Path("new"), None),
    ]


@pytest.mark.parametrize("at", [".", "trial", "trial/checkpoints"])
def test_resume_of_a_file_goes_on_in_its_run(
    at: str, started: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(Path("trial"), 20, 100)
    monkeypatch.chdir(at)
    file = tmp_path / "trial/checkpoints/step-0000020.pt"
    relative = {".": "trial/checkpoints/", "trial": "checkpoints/", "trial/checkpoints": ""}[at] + file.name
    begin("--resume", relative)
    start, config = started[0]
    assert start.folder.absolute() == tmp_path / "trial"
    assert start.checkpoint.absolute() == file
    assert config.train.batch == 3


def test_resume_of_a_folder_takes_its_last_checkpoint(started: list) -> None:
    make_run(Path("trial"), 20, 100)
    begin("--resume", "trial")
    assert started[0][0].checkpoint == Path("trial/checkpoints/step-0000100.pt")


@pytest.mark.parametrize("named", ["trial", "trial/checkpoints/step-0000100.pt"])
def test_resume_into_another_folder_takes_the_settings_along(named: str, started: list) -> None:
    make_run(Path("trial"), 20, 100)
    begin("--resume", named, "--out", "branch")
    start, config = started[0]
    assert start.folder == Path("branch")
    assert start.checkpoint.name == "step-0000100.pt"
    assert config.train.batch == 3


def test_resume_into_a_folder_that_holds_another_run_is_refused() -> None:
    make_run(Path("trial"), 20)
    make_run(Path("other"), 30)
    with pytest.raises(UserError, match="other already holds a run"):
        begin("--resume", "trial", "--out", "other")


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("nowhere", r"--resume: nowhere does not exist; give a checkpoint file, a run's folder, or auto"),
        ("empty", r"--resume: the folder empty holds no checkpoint"),
        ("stray.pt", r"--resume: stray\.pt lies in no run"),
        ("trial/log.jsonl", r"log\.jsonl lies in no run"),
    ],
)
def test_resume_of_something_else(named: str, message: str) -> None:
    Path("empty").mkdir()
    Path("stray.pt").touch()
    make_run(Path("trial"), 20)
    Path("trial/log.jsonl").touch()
    with pytest.raises(UserError, match=message):
        begin("--resume", named)


def test_saved_settings_win_over_the_profile_and_flags_over_them(started: list) -> None:
    make_run(Path("trial"), 20)
    begin("--out", "trial", "--resume", "auto", "--profile", "cpu", "--steps", "900", "--set", "train.lr=0.1")
    config = started[0][1]
    assert config.train.steps == 900
    assert config.train.lr == 0.1
    assert config.train.batch == 3
    assert config.loss.reconstruction == "lpips-vgg"  # the cpu profile's would be l1


def test_a_profile_that_is_passed_over_is_told_unless_auto() -> None:
    make_run(Path("trial"), 20)
    resume = ("--resume", "trial")
    assert "--profile cpu has no effect" in dry_run(*resume, "--profile", "cpu")
    assert "has no effect" not in dry_run(*resume, "--profile", "auto")


def test_dry_run_of_a_resumed_run_names_its_file() -> None:
    make_run(Path("trial"), 20)
    assert "batch = 3  # from file trial/config.toml" in dry_run("--resume", "trial").splitlines()


def test_config_is_refused_on_resume() -> None:
    make_run(Path("trial"), 20)
    Path("mine.toml").write_text("[train]\nbatch = 4\n")
    with pytest.raises(UserError, match=r"--config cannot change the run in trial; use flags or --set"):
        begin("--resume", "trial", "--config", "mine.toml")


def test_run_that_lost_its_configuration_never_goes_on_with_the_defaults(started: list) -> None:
    make_run(Path("trial"), 20, config=None)
    with pytest.raises(UserError, match=r"has no config.toml; restore it, or give one with --config"):
        begin("--resume", "trial")
    Path("mine.toml").write_text(CONFIG)
    begin("--resume", "trial", "--config", "mine.toml")
    assert started[0][1].train.batch == 3


def test_images_are_asked_for() -> None:
    result = CliRunner().invoke(app, ["train", "--out", "trial"])
    assert isinstance(result.exception, UserError)
    message = str(result.exception)
    assert "--data FOLDER" in message
    assert "fastgan-engine data demo" in message
    assert not Path("trial").exists()


@pytest.mark.parametrize("folder", ["trial", "my trial"])
def test_interrupted_run_exits_130_and_says_how_to_go_on(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_train", lambda *arguments: None)
    result = CliRunner().invoke(app, ["train", "--data", "images", "--out", folder, "--screen", "plain"])
    assert result.exit_code == 130
    shown = f'"{folder}"' if " " in folder else folder
    assert f"fastgan-engine train --resume auto --out {shown}\n" in result.output
    assert f"fastgan-engine sample {shown}\n" in result.output


def test_finished_run_exits_0(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_train", lambda *arguments: 1234)
    arguments = ["train", "--data", "images", "--out", "trial", "--steps", "1234", "--screen", "plain"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0
    assert "done: 1,234 steps. More images: fastgan-engine sample trial\n" in result.output


@pytest.mark.parametrize("moment", ["_train", "prepare"])
def test_bad_data_is_the_users_error(moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastgan_engine import pipelines

    def fail(*arguments: object, **settings: object) -> bool:
        raise pipelines.DataError("images: no such folder")

    monkeypatch.setattr(command if moment == "_train" else pipelines, moment, fail)
    with pytest.raises(UserError, match="images: no such folder"):
        begin("--out", "trial")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--dry-run", "--profile", "cpu"], 0, ""),
        (["--dry-run", "--im-size", "100"], 2, "error: model.im_size: got 100 (flag)"),
        (["--steps", "many"], 2, "'--steps'"),
        ([], 2, "error: no training images"),
    ],
    ids=["done", "setting", "usage", "no data"],
)
def test_exit_codes_of_the_command(arguments: list[str], code: int, message: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fastgan_engine", "train", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
