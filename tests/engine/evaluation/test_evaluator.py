"""The whole way from images to values: as torch-fidelity called directly; in chunks; the reals once."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch_fidelity
import torchvision
from PIL import Image
from torch import Tensor

from fastgan_engine.errors import UserError
from fastgan_engine.evaluation import evaluator as module
from fastgan_engine.evaluation.cache import cached_features
from fastgan_engine.evaluation.defaults import NAMES, parse_metrics
from fastgan_engine.evaluation.evaluator import Evaluator
from fastgan_engine.evaluation.extractors import Extractor, build_extractor
from fastgan_engine.evaluation.metrics import MEASURES, METRICS
from fastgan_engine.evaluation.weights import INCEPTION, LPIPS, fetch_weights, find_weights
from fastgan_engine.images import save_image
from fastgan_engine.networks import Generator
from fastgan_engine.perceptual import build_lpips
from fastgan_engine.pipelines import PreparedSet, draw_demo, prepare
from fastgan_engine.sampling import sample
from tests.engine.evaluation.inception import write_random_inception

CPU = torch.device("cpu")
SAMPLES = REALS = 6  # equal, so that every subset that KID draws is the whole set


@pytest.fixture(autouse=True)
def _offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("FASTGAN_CACHE", str(tmp_path / "cache"))

    def offline(*arguments: object, **settings: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    folder = tmp_path_factory.mktemp("reals")
    draw_demo(folder, count=REALS, size=64)
    return prepare(folder, tmp_path_factory.mktemp("prepared"), im_size=64, warn=pytest.fail)


@pytest.fixture(scope="module")
def weights_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_inception(tmp_path_factory.mktemp("weights")).parent


def small_generator(channels: int) -> Generator:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Generator(64, nz=16, ngf=8, nc=channels)


@pytest.fixture(scope="module")
def generator() -> Generator:
    return small_generator(3)


def test_values_are_those_of_torch_fidelity(
    images: PreparedSet, weights_dir: Path, generator: Generator, tmp_path: Path
) -> None:
    """On the same PNG files and the same weights."""
    metrics = ("fid", "kid", "precision", "recall")
    before = torch.get_rng_state()
    evaluator = Evaluator(images, metrics, CPU, weights_dir=weights_dir)
    values = evaluator(generator, count=SAMPLES, seed=3, chunk=4)
    assert torch.equal(torch.get_rng_state(), before)
    assert values is not None
    for index, image in enumerate(torch.cat(list(sample(generator, SAMPLES, seed=3)))):
        save_image(tmp_path / "samples" / f"{index}.png", image)
    for index in range(images.count):
        save_image(tmp_path / "reals" / f"{index}.png", torch.from_numpy(images.array(index)))
    theirs = torch_fidelity.calculate_metrics(
        input1=str(tmp_path / "samples"), input2=str(tmp_path / "reals"),
        feature_extractor="inception-v3-compat", feature_extractor_weights_path=str(weights_dir / INCEPTION.file),
        fid=True, kid=True, prc=True, kid_subset_size=SAMPLES, cuda=False, save_cpu_ram=True, cache=False,
        verbose=False,
    )  # fmt: skip
    assert values["fid"] == pytest.approx(theirs["frechet_inception_distance"], rel=1e-4)
    assert values["kid"] == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-3)
    assert values["precision"] == theirs["precision"]
    assert values["recall"] == theirs["recall"]
    assert values["fid"] > 0.1, "random weights must tell the sets apart for this to test anything"


class Counted(Extractor):
    """Each image's mean; counts what it is shown."""

    key = "counted"

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def _look(self, pixels: Tensor) -> Tensor:
        self.batches.append(len(pixels))
        return pixels.float().mean((1, 2, 3))[:, None]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[Counted]:
    made: list[Counted] = []

    def build(*arguments: object) -> Counted:
        made.append(Counted())
        return made[-1]

    monkeypatch.setattr(module, "build_extractor", build)
    return made


class TestEvaluator:
    def test_reals_are_looked_at_once(self, images: PreparedSet, generator: Generator, counted: list[Counted]) -> None:
        values = [Evaluator(images, ["swd"], CPU)(generator, count=5, seed=0, chunk=2) for _ in range(2)]
        assert [sum(extractor.batches) for extractor in counted] == [REALS + 5, 5]
        assert counted[1].batches == [2, 2, 1]
        assert values[0] == values[1]

    def test_second_evaluation_starts_over(
        self, images: PreparedSet, generator: Generator, counted: list[Counted]
    ) -> None:
        evaluator = Evaluator(images, ["swd"], CPU)
        first = evaluator(generator, count=5, seed=0)
        assert evaluator(generator, count=5, seed=1) != first
        assert evaluator(generator, count=5, seed=0, stop=lambda: True) is None
        assert evaluator(generator, count=5, seed=0) == first

    def test_progress_counts_up(self, images: PreparedSet, generator: Generator) -> None:
        seen: list[tuple[str, int, int]] = []
        evaluator = Evaluator(images, ["swd"], CPU, progress=lambda *told: seen.append(told))
        evaluator(generator, count=5, seed=0, chunk=2, progress=lambda *told: seen.append(told))
        assert seen == [("training images", 6, 6), ("samples", 2, 5), ("samples", 4, 5), ("samples", 5, 5)]

    def test_distance_of_the_reals_to_themselves_is_zero(
        self, images: PreparedSet, generator: Generator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reals = torch.stack([torch.from_numpy(images.array(index)) for index in range(images.count)])
        monkeypatch.setattr(module, "sample", lambda *arguments, **settings: iter(reals.split(3)))
        values = Evaluator(images, ["swd"], CPU)(generator, count=REALS, seed=0)
        assert values is not None
        assert values["swd"] == pytest.approx(0, abs=1e-9)

    @pytest.mark.parametrize(
        ("metrics", "count", "message"),
        [
            (["recall", "swd"], 3, "recall: needs 4 samples or more, got 3; raise the count, or leave it out"),
            (["density", "coverage"], 5, "density and coverage: needs 6 samples or more, got 5"),
            (["fid"], 1, "fid: needs 2 samples or more"),
        ],
    )
    def test_too_few_samples(
        self, images: PreparedSet, generator: Generator, counted: Any, metrics: Any, count: int, message: str
    ) -> None:
        with pytest.raises(UserError, match=message):
            Evaluator(images, metrics, CPU)(generator, count=count, seed=0)

    def test_too_few_reals(self, tmp_path: Path) -> None:
        draw_demo(tmp_path / "photos", count=5, size=64)
        few = prepare(tmp_path / "photos", tmp_path / "prepared", im_size=64, warn=pytest.fail)
        with pytest.raises(UserError, match="coverage: needs 6 training images or more, there are 5; leave it out"):
            Evaluator(few, ["coverage"], CPU, weights_dir=tmp_path)


class TestExtractors:
    def test_memory_for_fewer_images_halves_the_batch(self, weights_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        extractor = build_extractor("inception", weights_dir, CPU)
        sizes = []

        def network(pixels: Tensor) -> tuple[Tensor]:
            sizes.append(len(pixels))
            if len(pixels) > 2:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")
            return (pixels.float().mean((1, 2, 3))[:, None],)

        monkeypatch.setattr(extractor, "network", network)
        pixels = torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8)
        extractor.add(pixels)
        assert sizes == [5, 2, 2, 1]
        torch.testing.assert_close(extractor.take(), pixels.float().mean((1, 2, 3))[:, None])

    def test_pairs_share_no_image_whatever_the_batches(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Against the package's network on the same pairs; random weights in place of the 528 MB file."""
        network = build_lpips("squeeze", None)
        torch.save({}, tmp_path / LPIPS.file)
        monkeypatch.setattr("fastgan_engine.evaluation.extractors.load_trunk", lambda *arguments: None)
        monkeypatch.setattr("fastgan_engine.evaluation.extractors.build_lpips", lambda *arguments: network)
        pixels = torch.randint(0, 256, (9, 3, 32, 32), dtype=torch.uint8)
        x = pixels.float() / 127.5 - 1
        expected = torch.cat([network(x[[i]], x[[i + 1]]).flatten() for i in (0, 2, 4, 6)])
        extractor = build_extractor("lpips", tmp_path, CPU)
        for sizes in ((9,), (1, 2, 3, 3), (4, 4, 1)):
            for batch in pixels.split(sizes):
                extractor.add(batch)
            torch.testing.assert_close(extractor.take(), expected)
        monkeypatch.setattr("fastgan_engine.evaluation.extractors.LPIPS_PAIRS", 3)
        for batch in pixels.split(4):
            extractor.add(batch)
        torch.testing.assert_close(extractor.take(), expected[:3])

    @pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"PK\x03\x04cut"], ids=["empty", "page", "cut"])
    def test_damaged_weights_are_named(self, content: bytes, tmp_path: Path) -> None:
        (tmp_path / INCEPTION.file).write_bytes(content)
        with pytest.raises(UserError) as raised:
            build_extractor("inception", tmp_path, CPU)
        message = str(raised.value)
        assert f"weights of InceptionV3: {tmp_path / INCEPTION.file} cannot be read" in message
        assert "\n" not in message

    def test_weights_of_another_network_are_refused(self, tmp_path: Path) -> None:
        torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), tmp_path / INCEPTION.file)
        with pytest.raises(UserError, match="is of another network"):
            build_extractor("inception", tmp_path, CPU)

    def test_weights_are_not_unpickled_freely(self, tmp_path: Path) -> None:
        class Bomb:
            def __reduce__(self) -> Any:
                return os.mkdir, (str(tmp_path / "exploded"),)

        torch.save({"weight": Bomb()}, tmp_path / INCEPTION.file)
        with pytest.raises(UserError, match="cannot be read"):
            build_extractor("inception", tmp_path, CPU)
        assert not (tmp_path / "exploded").exists()


class TestWeights:
    def test_weights_dir_comes_before_the_cache(self, tmp_path: Path) -> None:
        cache = tmp_path / "torch" / "hub" / "checkpoints"
        given = tmp_path / "given"
        for folder in (cache, given):
            folder.mkdir(parents=True)
            (folder / INCEPTION.file).touch()
        assert find_weights(INCEPTION, given) == given / INCEPTION.file
        assert find_weights(INCEPTION, None) == cache / INCEPTION.file
        (given / INCEPTION.file).unlink()
        assert fetch_weights(INCEPTION, given, needed_by="FID") == cache / INCEPTION.file

    def test_download_is_checked_and_kept_in_the_cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def download(url: str, path: str, hash_prefix: str) -> None:
            assert (url, hash_prefix) == (INCEPTION.url, "6726825d")
            Path(path).write_text("weights")

        monkeypatch.setattr(torch.hub, "download_url_to_file", download)
        path = fetch_weights(INCEPTION, tmp_path / "given", needed_by="FID")
        assert path == tmp_path / "torch" / "hub" / "checkpoints" / INCEPTION.file
        assert path.read_text() == "weights"

    @pytest.mark.parametrize(("view", "file"), [("inception", INCEPTION), ("lpips", LPIPS)])
    def test_message_says_which_file_to_put_where(self, view: Any, file: Any, tmp_path: Path) -> None:
        with pytest.raises(UserError) as raised:
            build_extractor(view, tmp_path / "given", CPU)
        message = str(raised.value)
        assert f"needs the file {file.file}" in message
        assert f"    {tmp_path / 'given'}\n    {tmp_path / 'torch' / 'hub' / 'checkpoints'}\n" in message
        assert "no route to host" in message
        assert f"download {file.url}" in message
        assert "--weights-dir" in message


class TestCache:
    def test_identity_is_of_pixels_and_extractor(self, images: PreparedSet, tmp_path: Path) -> None:
        computed = []

        def features(key: str) -> Tensor:
            def compute() -> Tensor:
                computed.append(key)
                return torch.tensor([float(len(computed))])

            return cached_features(images, key, compute, cache_dir=tmp_path / "c", warn=pytest.fail)

        assert [features(key).item() for key in ("a", "a", "b", "a")] == [1, 1, 2, 1]
        assert computed == ["a", "b"]

    def test_damaged_file_is_computed_again(self, images: PreparedSet, tmp_path: Path) -> None:
        def features(value: float) -> float:
            return cached_features(
                images, "a", lambda: torch.tensor([value]), cache_dir=tmp_path, warn=pytest.fail
            ).item()

        features(1)
        (file,) = (tmp_path / "features").iterdir()
        file.write_bytes(b"cut")
        assert features(2) == 2
        assert features(3) == 2

    def test_unwritable_cache_is_told_and_survived(self, images: PreparedSet, tmp_path: Path) -> None:
        (tmp_path / "features").write_text("a file where the folder should be")
        told: list[str] = []
        found = cached_features(images, "a", lambda: torch.ones(2), cache_dir=tmp_path, warn=told.append)
        assert found.tolist() == [1, 1]
        (message,) = told
        assert str(tmp_path / "features") in message


@pytest.mark.parametrize(
    ("text", "problem"),
    [("fid,fit", "unknown metric 'fit'"), ("swd,swd", "one is named twice"), (" ,", "none is named")],
)
def test_bad_metrics(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=f"{problem}; expected a comma list of fid, kid, precision"):
        parse_metrics(text)


def test_metrics_keep_their_order() -> None:
    assert parse_metrics(" swd, fid") == ("swd", "fid")


def test_every_name_is_shown_and_computed() -> None:
    assert tuple(METRICS) == NAMES
    assert tuple(name for measure in MEASURES for name in measure.names) == NAMES


def test_grey_images_are_compared_too(tmp_path: Path) -> None:
    for index in range(4):
        pixels = np.random.default_rng(index).integers(0, 256, (64, 64), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    grey = prepare(tmp_path, tmp_path / "prepared", im_size=64, channels=1, warn=pytest.fail)
    values = Evaluator(grey, ["swd"], CPU)(small_generator(1), count=4, seed=0)
    assert values is not None
    assert 0 < values["swd"] < 2
