"""Every source gives the same batches, and chooses itself by the size of the set."""

import pytest
import torch

from fastgan_engine.config import Config
from fastgan_engine.pipelines import PreparedSet, Sampler, draw_demo, prepare
from fastgan_engine.sources import HostSource, ResidentSource, Source, StreamSource, open_source

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    folder = tmp_path_factory.mktemp("photos")
    draw_demo(folder, count=5, size=64)
    return prepare(folder, tmp_path_factory.mktemp("prepared"), im_size=64, warn=pytest.fail)


def config_of(**data: object) -> Config:
    return Config.model_validate({"data": data, "model": {"im_size": 64}, "train": {"batch": 3, "seed": 4}})


def expected(images: PreparedSet, step: int) -> torch.Tensor:
    """The batch of a step from its definition: the sampler's images, mirrored where it says so, in [-1, 1]."""
    indices, flips = Sampler(images.count, 3, seed=5, flip=True).batch(step)
    pixels = [images.array(i)[:, ::-1] if flip else images.array(i) for i, flip in zip(indices, flips, strict=True)]
    batch = torch.stack([torch.from_numpy(p.copy()) for p in pixels]).double()
    return (batch / 127.5 - 1).permute(0, 3, 1, 2)


@pytest.mark.parametrize("data", [
    {"loader": "resident"},
    {"loader": "auto", "resident_gib": 0.0},
    {"loader": "pillow"},
    {"loader": "dali"},
], ids=["resident", "host", "pillow", "dali"])  # fmt: skip
def test_batches_are_the_samplers(images: PreparedSet, data: dict[str, object]) -> None:
    if data["loader"] == "dali":
        pytest.importorskip("nvidia.dali")
    with open_source(config_of(**data), images, CPU, start_step=2) as source:
        for step in range(2, 7):  # past the end of an epoch of five images
            source.fetch()
            reals = source.reals()
            assert reals.dtype == torch.float32
            assert reals.is_contiguous(memory_format=torch.channels_last)
            torch.testing.assert_close(reals.double(), expected(images, step), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("data", "kind"), [
    ({}, ResidentSource),
    ({"resident_gib": 1e-6}, HostSource),
    ({"resident_gib": 1e-6, "host_gib": 1e-6}, StreamSource),
    ({"resident_gib": 0.0, "loader": "resident"}, ResidentSource),
    ({"loader": "pillow"}, StreamSource),
])  # fmt: skip
def test_auto_chooses_by_size(images: PreparedSet, data: dict[str, object], kind: type[Source]) -> None:
    with open_source(config_of(**data), images, CPU, start_step=0) as source:
        assert type(source) is kind
        assert source.reason


@pytest.mark.parametrize("data", [{"loader": "resident"}, {"resident_gib": 0.0}, {"loader": "pillow"}])
def test_before_the_first_fetch_the_batch_is_a_valid_one(images: PreparedSet, data: dict[str, object]) -> None:
    with open_source(config_of(**data), images, CPU, start_step=0) as source:
        reals = source.reals()
        assert reals.shape == (3, 3, 64, 64)
        assert reals.abs().max() <= 1


def test_the_buffers_stay_where_they_are(images: PreparedSet) -> None:
    """A captured iteration reads fixed addresses."""
    for data in ({"loader": "resident"}, {"resident_gib": 0.0}, {"loader": "pillow"}):
        with open_source(config_of(**data), images, CPU, start_step=0) as source:
            tensors = {name: value for name, value in vars(source).items() if isinstance(value, torch.Tensor)}
            assert tensors
            before = {name: value.data_ptr() for name, value in tensors.items()}
            for _ in range(3):
                source.fetch()
            after = {name: getattr(source, name).data_ptr() for name in tensors}
            assert after == before


MODES = pytest.mark.parametrize("data", [
    {"loader": "resident"},
    {"loader": "auto", "resident_gib": 0.0},
    {"loader": "pillow"},
], ids=["resident", "host", "pillow"])  # fmt: skip


@pytest.mark.gpu
@MODES
def test_batches_on_the_gpu_are_the_samplers_however_far_it_is_behind(
    images: PreparedSet, data: dict[str, object]
) -> None:
    with open_source(config_of(**data), images, torch.device("cuda"), start_step=2) as source:
        batches = []
        for _ in range(20):
            torch.cuda._sleep(5_000_000)
            source.fetch()
            batches.append(source.reals().clone())
        for step, batch in enumerate(batches, start=2):
            torch.testing.assert_close(batch.cpu().double(), expected(images, step), rtol=0, atol=1e-6)


@pytest.mark.gpu
@MODES
def test_the_host_fetches_without_waiting_for_the_device(images: PreparedSet, data: dict[str, object]) -> None:
    with open_source(config_of(**data), images, torch.device("cuda"), start_step=0) as source:
        for _ in range(3):
            source.fetch()
        torch.cuda.synchronize()
        torch.cuda._sleep(1_000_000_000)  # about half a second
        busy = torch.cuda.Event()
        busy.record()
        source.fetch()
        assert not busy.query()
