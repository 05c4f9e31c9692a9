"""What makes a run fit, in the order of its cost; refusals in numbers; budgets."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from fastgan_engine import profiles
from fastgan_engine.config import Config, resolve
from fastgan_engine.errors import UserError
from fastgan_engine.hardware import GIB
from fastgan_engine.memory import guard
from fastgan_engine.memory.budget import DESKTOP_GIB, Budget, budget_of
from fastgan_engine.memory.fit import candidates, fit, largest_batch, with_settings
from tests.engine.machines import GTX_1050_TI, RTX_2070, install_cuda, install_nvml

IMAGES = 100
EXPANDABLE = "--set engine.expandable_segments=true"


@dataclass(frozen=True)
class Peak:
    """A plan as far as fitting looks at it."""

    peak: int


def model(config: Config) -> Any:
    """MiB: 100 in all, 10 an image at once, 30 an image where G's graph is kept, 50 for resident images, 20 lost."""
    at_once = config.train.batch // config.train.accumulation
    repeats = config.engine.recompute or config.train.accumulation > 1
    resident = 50 if config.data.resident_gib > 0 else 0
    lost = 0 if config.engine.expandable_segments else 20
    return Peak((100 + at_once * (10 if repeats else 40) + resident + lost) * 2**20)


def config_of(**flags: Any) -> Config:
    return resolve(flags={"train.batch": 8} | {key.replace("__", "."): value for key, value in flags.items()})


@pytest.mark.parametrize(
    ("budget_mib", "flags"),
    [
        (490, ""),
        (489, f"{EXPANDABLE}"),
        (469, f"{EXPANDABLE} --set data.resident_gib=0"),
        (419, f"{EXPANDABLE} --set data.resident_gib=0 --set engine.recompute=true"),
        (179, f"{EXPANDABLE} --set data.resident_gib=0 --micro-batch 4"),
        (139, f"{EXPANDABLE} --set data.resident_gib=0 --micro-batch 2"),
        (119, f"{EXPANDABLE} --set data.resident_gib=0 --micro-batch 1"),
        (109, None),
    ],
)
def test_the_cheapest_means_that_fits_is_chosen(budget_mib: int, flags: str | None) -> None:
    found = fit(config_of(), budget_mib * 2**20, IMAGES, model)
    assert (found.chosen and found.chosen.flags) == flags


def test_flags_are_what_train_takes() -> None:
    for settings in candidates(config_of(), IMAGES):
        sets = [f"{key}={str(value).lower()}" for key, value in settings.items()]
        assert resolve(flags={"train.batch": 8}, sets=sets) == with_settings(config_of(), settings)


def test_a_set_that_is_streamed_has_no_resident_cache_to_move() -> None:
    assert all("data.resident_gib" not in c for c in candidates(config_of(data__loader="pillow"), IMAGES))


@pytest.mark.parametrize(("budget_mib", "batch"), [(210, 1), (209, 0), (489, 7), (170 + 40 * 31, 31), (99_999, 64)])
def test_largest_batch(budget_mib: int, batch: int) -> None:
    asked = []

    def counted(config: Config) -> Any:
        asked.append(config.train.batch)
        return model(config)

    assert largest_batch(config_of(), budget_mib * 2**20, counted) == batch
    assert len(asked) <= 6


def test_largest_batch_of_a_peak_that_is_no_line() -> None:
    def steps(config: Config) -> Any:
        return Peak(1000 + config.train.batch // 3 * 100)

    assert largest_batch(config_of(), 1500, steps) == 17


def test_budgets() -> None:
    card = profiles.card("rtx2070")
    assert card is not None
    assert budget_of(config_of(engine__budget_gib=3.5), card) == Budget(round(3.5 * GIB), "engine.budget_gib")
    assert budget_of(config_of(), card).bytes == round((8 - DESKTOP_GIB) * GIB)  # type: ignore[union-attr]
    assert budget_of(config_of(), None) is None


@pytest.fixture
def on_a_2070(monkeypatch: pytest.MonkeyPatch) -> None:
    """6.5 of 8 GiB free."""
    install_cuda(monkeypatch, [RTX_2070])
    install_nvml(monkeypatch, [GTX_1050_TI, RTX_2070])


def planning(monkeypatch: pytest.MonkeyPatch, peak: Callable[[Config], float]) -> None:
    monkeypatch.setattr(guard, "plan", lambda config, **_: Peak(round(peak(config) * GIB)))


@pytest.mark.usefixtures("on_a_2070")
class TestGuard:
    def test_what_fits_into_the_free_memory_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        planning(monkeypatch, lambda config: 6.4)
        line = guard.check_fits(config_of(), IMAGES)
        assert line is not None
        assert "6.40 GiB" in line
        assert "6.50 GiB" in line
        assert "RTX 2070" in line

    def test_what_does_not_is_refused_with_the_flags_that_would(self, monkeypatch: pytest.MonkeyPatch) -> None:
        planning(monkeypatch, lambda config: 4 if config.engine.recompute else 7)
        with pytest.raises(UserError, match=r"needs 7\.00 GiB.*6\.50 GiB.*with 4\.00 GiB.*engine\.recompute=true"):
            guard.check_fits(config_of(), IMAGES)

    def test_where_nothing_fits_the_way_out_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        planning(monkeypatch, lambda config: 7)
        with pytest.raises(
            UserError, match=r"--micro-batch 1 it needs 7\.00 GiB.*doctor.*--im-size.*engine\.budget_gib"
        ):
            guard.check_fits(config_of(), IMAGES)

    def test_an_own_budget_overrides_what_is_free(self, monkeypatch: pytest.MonkeyPatch) -> None:
        planning(monkeypatch, lambda config: 7)
        assert guard.check_fits(config_of(engine__budget_gib=7.5), IMAGES) is not None

    def test_a_run_on_the_cpu_is_not_planned(self, monkeypatch: pytest.MonkeyPatch) -> None:
        planning(monkeypatch, lambda config: pytest.fail("planned"))
        assert guard.check_fits(config_of(engine__device="cpu"), IMAGES) is None
