"""`profiles list` and `profiles show`."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from fastgan_engine import hardware, profiles
from fastgan_engine.cli.profiles import app
from fastgan_engine.errors import UserError


def run(*arguments: str) -> str:
    return CliRunner().invoke(app, arguments, catch_exceptions=False, env={"COLUMNS": "160"}).output


def test_list_names_every_profile_its_card_and_its_changes() -> None:
    lines = {line.split()[0]: line for line in run("list").splitlines()}
    assert set(profiles.names()) <= set(lines)
    assert " ".join(lines["rtx4060"].split()) == "rtx4060 RTX 4060 sm_89 8 GiB 272 GB/s dtype, device"
    assert "reconstruction" in lines["cpu"]


def test_list_json() -> None:
    rows = {row["name"]: row for row in json.loads(run("list", "--json"))}
    assert list(rows) == profiles.names()
    assert rows["rtx2070"]["card"]["arch"] == "sm_75"
    assert rows["rtx2070"]["settings"]["precision.dtype"] == {"value": "fp16", "default": "auto"}
    assert rows["cpu"]["card"] is None


def test_show_puts_the_default_beside_each_change() -> None:
    output = run("show", "gtx1050ti")
    assert "gtx1050ti: GTX 1050 Ti, sm_61, 4 GiB, 112 GB/s" in output
    rows = {line.split()[0]: line.split()[1:3] for line in output.splitlines() if "." in line.split()[0]}
    assert rows["engine.recompute"] == ["true", "false"]
    assert rows["precision.dtype"] == ["fp32", "auto"]


def test_show_json_holds_what_is_said_and_why() -> None:
    shown = json.loads(run("show", "rtx3070", "--json"))
    settings = shown["settings"]
    assert {key: said for key, said in settings.items() if said["value"] != said["default"]} == {
        "precision.dtype": {"value": "bf16", "default": "auto"},
        "engine.device": {"value": "cuda", "default": "auto"},
    }
    assert settings["train.batch"] == {"value": 8, "default": 8}
    assert "gradient scaler" in shown["reasons"]["precision.dtype"]


def test_show_auto_shows_the_profile_of_this_machine_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    choice = hardware.Choice(profile="rtx5060", reason="profile rtx5060: found it")
    monkeypatch.setattr(hardware, "choose_profile", lambda: choice)
    output = run("show", "auto")
    assert "profile rtx5060: found it" in output
    assert "rtx5060: RTX 5060, sm_120" in output


def test_show_an_unknown_profile_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown profile rtx3080\. Did you mean rtx3070\?"):
        run("show", "rtx3080")


def test_importing_the_commands_stays_light() -> None:
    code = (
        "import sys, fastgan_engine.cli.profiles, fastgan_engine.cli.doctor;"
        "print({'torch', 'pydantic'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
