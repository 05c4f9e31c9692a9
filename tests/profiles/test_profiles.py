"""Profiles hold differences to the defaults, name their card's facts, and fail helpfully."""

import subprocess
import sys
from pathlib import Path

import pytest

from fastgan_engine import profiles
from fastgan_engine.config import Config, resolve, settings
from fastgan_engine.hardware import dtype_for
from fastgan_engine.memory.budget import budget_of
from fastgan_engine.memory.rehearsal import plan

SHIPPED = ["cpu", "gtx1050ti", "h200", "rtx2070", "rtx3060ti", "rtx3070", "rtx4060", "rtx5060"]


# What decides how a card runs: said even where it is the default.
STATED = {
    "data.loader", "data.resident_gib", "train.batch", "precision.dtype", "engine.step", "engine.kernels",
    "engine.budget_gib",
}  # fmt: skip


def test_names_are_the_shipped_profiles() -> None:
    assert profiles.names() == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_every_setting_of_a_profile_is_valid_and_differs_from_the_default_or_is_stated(name: str) -> None:
    defaults = Config().values()
    values = {
        f"{section}.{key}": value for section, table in profiles.load(name).items() for key, value in table.items()
    }
    assert values
    assert set(values) <= set(settings())
    resolved = resolve(name).values()
    assert {key for key in values if resolved[key] == defaults[key]} <= STATED
    words = {key: None if value == "none" else value for key, value in values.items()}
    assert {key: resolved[key] for key in values} == words
    assert {key: resolved[key] for key in resolved if key not in values} == {
        key: defaults[key] for key in defaults if key not in values
    }


@pytest.mark.parametrize("name", [name for name in SHIPPED if name not in ("cpu", "gtx1050ti")])
def test_a_card_states_how_it_runs_and_why(name: str) -> None:
    reasons = profiles.reasons(name)
    stated = {f"{section}.{key}" for section, table in profiles.load(name).items() for key in table}
    assert stated >= STATED
    assert {key for key in STATED if len(reasons.get(key, "")) < 20} == set()


@pytest.mark.parametrize("name", ["gtx1050ti", "rtx2070"])
def test_the_smallest_cards_profiles_fit_their_card_by_plan(name: str) -> None:
    """At 256 and the recipe's batch, beside a desktop: `train` would refuse what does not."""
    card = profiles.card(name)
    config = resolve(name)
    allowed = budget_of(config, card)
    assert allowed is not None
    assert plan(config, images=100, card=card).peak <= allowed.bytes


def test_a_reason_is_the_comment_above_its_setting(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(
        "# Of the whole file.\n\n[train]\n# One line,\n# and one more.\nbatch = 4\nlr = 1e-3\n\n"
        "[engine]\n# Slow.\nstep = 'eager'\n"
    )
    assert profiles.reasons(str(mine)) == {"train.batch": "One line, and one more.", "engine.step": "Slow."}
    assert profiles.load(str(mine))["train"] == {"batch": 4, "lr": 1e-3}
    assert resolve(str(mine)).engine.step == "eager"
    assert profiles.card(str(mine)) is None


def test_a_profile_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(profiles.ProfileError, match=r"cannot read the profile .*no\.toml: No such file"):
        profiles.load(str(tmp_path / "no.toml"))
    broken = tmp_path / "broken.toml"
    broken.write_text("[train\n")
    with pytest.raises(profiles.ProfileError, match=r"broken\.toml is not valid TOML"):
        profiles.load(str(broken))


@pytest.mark.parametrize("name", [name for name in SHIPPED if name != "cpu"])
def test_a_cards_precision_and_device_suit_it(name: str) -> None:
    card, config = profiles.card(name), resolve(name)
    assert card is not None
    assert config.precision.dtype == dtype_for(card.capability)
    assert config.engine.device == "cuda"


def test_the_cpu_profile_has_no_card_and_needs_no_download() -> None:
    assert profiles.card("cpu") is None
    assert resolve("cpu").loss.reconstruction == "l1"


# Datasheet facts, as the project's hardware table gives them: architecture, GiB, GB/s.
@pytest.mark.parametrize(
    ("name", "capability", "memory", "bandwidth"),
    [
        ("gtx1050ti", (6, 1), 4, 112),
        ("rtx2070", (7, 5), 8, 448),
        ("rtx3060ti", (8, 6), 8, 448),
        ("rtx3070", (8, 6), 8, 448),
        ("rtx4060", (8, 9), 8, 272),
        ("rtx5060", (12, 0), 8, 448),
        ("h200", (9, 0), 141, 4800),
    ],
)
def test_card_facts(name: str, capability: tuple[int, int], memory: float, bandwidth: float) -> None:
    card = profiles.card(name)
    assert card is not None
    assert (card.capability, card.memory_gib, card.bandwidth_gbs) == (capability, memory, bandwidth)


@pytest.mark.parametrize(
    ("typed", "nearest"), [("rtx2080", "rtx2070"), ("RTX 2070", "rtx2070"), ("3070", "rtx3070"), ("h100", "h200")]
)
def test_an_unknown_profile_names_the_nearest_and_lists_all(typed: str, nearest: str) -> None:
    with pytest.raises(profiles.ProfileError) as caught:
        profiles.load(typed)
    assert f"unknown profile {typed}. Did you mean {nearest}?" in str(caught.value)
    assert all(name in str(caught.value) for name in ["auto", *SHIPPED])


def test_loading_twice_gives_independent_tables() -> None:
    profiles.load("cpu")["model"]["im_size"] = 1024
    assert profiles.load("cpu")["model"]["im_size"] == 64


def test_importing_the_profiles_loads_neither_pydantic_nor_torch() -> None:
    code = "import sys, fastgan_engine.profiles as p; p.names(); print({'torch', 'pydantic'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
