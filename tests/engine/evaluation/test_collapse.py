"""The alarm rings for samples that are alike, and not for samples as different as the training images."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fastgan_engine.evaluation import collapse as module
from fastgan_engine.evaluation.collapse import CollapseAlarm
from fastgan_engine.networks import Generator
from fastgan_engine.pipelines import PreparedSet, draw_demo, prepare

DECAY = 0.9  # settled after 50 steps


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    folder = tmp_path_factory.mktemp("reals")
    draw_demo(folder, count=40, size=64)
    return prepare(folder, tmp_path_factory.mktemp("prepared"), im_size=64, warn=pytest.fail)


@pytest.fixture
def measure(images: PreparedSet, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Measures chosen training images in place of samples: (ratio, swd, whether it rings at step 60)."""

    def of(chosen: list[int]) -> tuple[float, float, bool]:
        shown = torch.stack([torch.from_numpy(images.array(index)) for index in chosen])

        def sample(generator: object, count: int, *, seed: int) -> Iterator[Tensor]:
            assert count == len(chosen)
            return iter(shown.split(8))

        monkeypatch.setattr(module, "sample", sample)
        alarm = CollapseAlarm(images, threshold=0.6, ema_decay=DECAY)
        diversity = alarm.measure(None, seed=0)  # type: ignore[arg-type]
        return diversity.ratio, diversity.swd, alarm.rings(diversity, step=60)

    return of


def test_constant_samples_ring(measure: Any) -> None:
    ratio, _, rings = measure([0] * 32)
    assert ratio == pytest.approx(0, abs=1e-6)
    assert rings


def test_images_as_different_as_the_training_set_do_not_ring(measure: Any) -> None:
    ratio, swd, rings = measure(list(range(32)))
    assert ratio == pytest.approx(1, abs=0.1)
    assert not rings
    assert swd < measure([0] * 32)[1] / 3


def test_ratio_counts_the_pairs_that_differ(measure: Any) -> None:
    """Of 32 samples of two kinds, half and half, 256 pairs of 496 differ; where one is odd, 31 do."""
    assert measure([0, 1] * 16)[0] / measure([0] * 31 + [1])[0] == pytest.approx(256 / 31, rel=1e-6)


def test_untrained_average_is_given_time(images: PreparedSet) -> None:
    alarm = CollapseAlarm(images, threshold=0.6, ema_decay=DECAY)
    alike = module.Diversity(ratio=0.1, swd=1.0)
    assert [alarm.rings(alike, step=step) for step in (1, 49, 50, 1000)] == [False, False, True, True]
    assert not alarm.rings(module.Diversity(ratio=0.61, swd=1.0), step=1000)


def test_samples_of_a_generator_are_measured_and_its_mode_kept(images: PreparedSet) -> None:
    generator = Generator(64, nz=16, ngf=8).train()
    before = torch.get_rng_state()
    alarm = CollapseAlarm(images, threshold=0.6, ema_decay=DECAY)
    found = alarm.measure(generator, seed=0)
    assert found.ratio > 0
    assert found == alarm.measure(generator, seed=0)
    assert found != alarm.measure(generator, seed=1)
    assert generator.training
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("count", [1, 2])
def test_equal_training_images_are_not_compared_with(count: int, tmp_path: Path) -> None:
    draw_demo(tmp_path / "photos", count=1, size=64)
    (photo,) = (path for path in (tmp_path / "photos").iterdir() if path.suffix in (".png", ".jpg"))
    for index in range(1, count):
        (tmp_path / "photos" / f"copy-{index}{photo.suffix}").write_bytes(photo.read_bytes())
    same = prepare(tmp_path / "photos", tmp_path / "prepared", im_size=64, warn=lambda text: None)
    assert not CollapseAlarm(same, threshold=0.6, ema_decay=DECAY).applies
