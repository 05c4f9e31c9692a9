"""Batches: the same from every loader, from any step, and exactly the prepared pixels."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from fastgan_engine.pipelines import DataError, ImageStream, PreparedSet, Sampler, open_stream, prepare

from .bad_files import encode, photo

COUNT, SIZE, BATCH = 7, 24, 4

try:
    import nvidia.dali  # noqa: F401

    LOADERS = ["pillow", "dali"]
except ImportError:
    LOADERS = ["pillow"]

needs_dali = pytest.mark.skipif("dali" not in LOADERS, reason="DALI is not installed")


@pytest.fixture(scope="module", params=["grey", "rgb", "rgba", "mixed"])
def prepared(request, tmp_path_factory) -> PreparedSet:
    """Seven images of noise, packed as PNG with 1, 3 and 4 channels, and as PNG and JPEG of several kinds."""
    folder: Path = tmp_path_factory.mktemp("images")
    for index in range(COUNT):
        image = photo(SIZE, SIZE, seed=index)
        if request.param == "mixed" and index > 1:
            file = encode(image, "JPEG", quality=90, subsampling=index % 3, progressive=index > 4)
        else:
            image.putalpha(photo(SIZE, SIZE, seed=index + 100).convert("L"))
            file = encode(image, "PNG")
        (folder / f"{index}.image.png").write_bytes(file)  # what is in a file counts, not its name
    channels = {"grey": 1, "rgba": 4}.get(request.param, 3)
    made = prepare(folder, tmp_path_factory.mktemp("cache"), im_size=SIZE, channels=channels, warn=print)
    assert made.packing == ("5 JPEG and 2 PNG" if request.param == "mixed" else "7 PNG")
    return made


def batches(stream: ImageStream, steps: int) -> list[torch.Tensor]:
    """The next ``steps`` batches, copied; closes the stream."""
    with stream:
        return [stream.next().clone() for _ in range(steps)]


@pytest.mark.parametrize("loader", LOADERS)
def test_batches_are_the_prepared_pixels_in_the_samplers_order(prepared, loader):
    stream = open_stream(prepared, batch=BATCH, seed=1, flip=True, loader=loader)
    assert stream.name == loader
    sampler = Sampler(COUNT, BATCH, seed=1, flip=True)
    seen_flips = set()
    for step, batch in enumerate(batches(stream, 6)):
        indices, flips = sampler.batch(step)
        seen_flips.update(flips.tolist())
        want = [prepared.array(i)[:, ::-1] if f else prepared.array(i) for i, f in zip(indices, flips, strict=True)]
        assert batch.dtype == torch.uint8
        assert batch.shape == (BATCH, SIZE, SIZE, prepared.channels)
        assert batch.is_contiguous()
        assert np.array_equal(batch.numpy(), np.stack(want))
    assert seen_flips == {True, False}


@needs_dali
def test_both_loaders_give_equal_batches(prepared):
    one, other = (
        batches(open_stream(prepared, batch=BATCH, seed=5, loader=loader, workers=workers), 10)
        for loader, workers in (("dali", 2), ("pillow", 3))
    )
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("loader", LOADERS)
def test_a_stream_goes_on_from_any_step(prepared, loader):
    whole = batches(open_stream(prepared, batch=BATCH, seed=2, loader=loader), 6)
    first = open_stream(prepared, batch=BATCH, seed=2, loader=loader)
    start = batches(first, 3)
    rest = batches(open_stream(prepared, batch=BATCH, seed=2, loader=loader, start_step=first.step), 3)
    assert first.step == 3
    assert all(torch.equal(a, b) for a, b in zip(whole, start + rest, strict=True))


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("batch", [1, COUNT + 1, 3 * COUNT])
def test_any_batch_size_works(prepared, loader, batch):
    (got,) = batches(open_stream(prepared, batch=batch, seed=0, loader=loader, prefetch=1, workers=1), 1)
    assert len(got) == batch


@pytest.mark.parametrize("loader", LOADERS)
def test_prefetching_does_not_touch_the_batch_in_use(prepared, loader):
    with open_stream(prepared, batch=BATCH, seed=0, loader=loader, prefetch=4) as stream:
        for _ in range(3):
            held = stream.next()
            copy = held.clone()
            time.sleep(0.05)  # the threads fill every buffer they have meanwhile
            assert torch.equal(held, copy)


@needs_dali
def test_auto_takes_dali_and_says_why(prepared):
    with open_stream(prepared, batch=1, seed=0) as stream:
        assert stream.name == "dali"
        assert stream.reason


def test_auto_falls_back_and_explicit_does_not(prepared, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "nvidia.dali", None)  # as if it were not installed
    monkeypatch.delitem(__import__("sys").modules, "fastgan_engine.pipelines.dali_stream", raising=False)
    with open_stream(prepared, batch=1, seed=0) as stream:
        assert stream.name == "pillow"
        assert "DALI does not work here" in stream.reason
        stream.next()
    with pytest.raises(DataError, match="loader dali does not work"):
        open_stream(prepared, batch=1, seed=0, loader="dali")


@needs_dali
def test_auto_falls_back_where_dali_is_installed_and_cannot_run(prepared, monkeypatch):
    def fail(pipeline: object) -> None:
        raise RuntimeError("no driver\nand a long trace")

    monkeypatch.setattr("nvidia.dali.Pipeline.run", fail)
    with open_stream(prepared, batch=1, seed=0) as stream:
        assert stream.name == "pillow"
        assert stream.reason == "DALI does not work here (RuntimeError: no driver)"


@pytest.mark.parametrize("loader", LOADERS)
def test_closing_twice_is_fine(prepared, loader):
    stream = open_stream(prepared, batch=1, seed=0, loader=loader)
    stream.close()
    stream.close()


@pytest.mark.parametrize("wrong", ["workers", "prefetch", "batch", "seed", "start_step"])
def test_bad_numbers(prepared, wrong):
    with pytest.raises(DataError, match=wrong):
        open_stream(prepared, **{"batch": 1, "seed": 0, wrong: -1})


def test_bad_loader(prepared):
    with pytest.raises(DataError, match="expected one of auto, dali, pillow"):
        open_stream(prepared, batch=1, seed=0, loader="fast")


@needs_dali
@pytest.mark.parametrize(("decoder", "output"), [("cpu", "cpu"), ("cpu", "gpu"), ("mixed", "gpu")])
def test_the_pipeline_is_one_whatever_the_devices(decoder, output):
    """Built nowhere, so that a machine without a GPU can look at it: which operators, on what."""
    from fastgan_engine.pipelines.dali_stream import batches

    pipeline = batches(
        lambda _: ([], np.zeros(0, np.int32)), decoder, output, SIZE, 3,
        batch_size=BATCH, num_threads=1, device_id=None, prefetch_queue_depth=2,
    )  # fmt: skip
    text = pipeline.serialize()
    assert b"decoders__Image" in text
    assert (b"\x05mixed" in text) == (decoder == "mixed")  # as strings with their length: DALI keeps source lines too
    assert (b"\x03gpu" in text) == (output == "gpu")
    assert b"Resize" not in text  # prepared once, at the training size


def on_cuda(prepared: PreparedSet, loader: str, steps: int, start_step: int = 0) -> list[torch.Tensor]:
    """Batches as training takes them: copied into a fixed buffer, by a device that is far behind the host."""
    with open_stream(prepared, batch=BATCH, seed=0, loader=loader, device="cuda", start_step=start_step) as stream:
        static = torch.empty(BATCH, SIZE, SIZE, prepared.channels, dtype=torch.uint8, device="cuda")
        copies = []
        for _ in range(steps):
            torch.cuda._sleep(2_000_000)
            static.copy_(stream.next(), non_blocking=True)
            copies.append(static.clone())
        return [copy.cpu() for copy in copies]


@pytest.mark.gpu
@pytest.mark.parametrize("loader", LOADERS)
def test_batches_on_the_gpu_equal_those_on_the_cpu(prepared, loader):
    on_cpu = batches(open_stream(prepared, batch=BATCH, seed=0, loader="pillow"), 50)
    on_gpu = on_cuda(prepared, loader, 50)
    if loader == "pillow" or not prepared.formats["JPEG"]:
        assert all(torch.equal(a, b) for a, b in zip(on_cpu, on_gpu, strict=True))
        return
    # Y, Cb and Cr may each be rounded the other way, and then the sum: 1 + 1.772 + 1 levels at most, in blue.
    difference = torch.stack(on_cpu).int() - torch.stack(on_gpu).int()
    assert difference.abs().max() <= 3
    assert difference.abs().float().mean() < 0.5


@needs_dali
@pytest.mark.gpu
def test_a_stream_on_the_gpu_goes_on_from_any_step(prepared):
    whole = on_cuda(prepared, "dali", 8)
    rest = on_cuda(prepared, "dali", 5, start_step=3)
    assert all(torch.equal(a, b) for a, b in zip(whole[3:], rest, strict=True))


@needs_dali
@pytest.mark.gpu
def test_the_host_takes_a_batch_without_waiting_for_the_device(prepared):
    with open_stream(prepared, batch=BATCH, seed=0, loader="dali", device="cuda") as stream:
        for _ in range(3):
            stream.next()
        torch.cuda.synchronize()
        torch.cuda._sleep(1_000_000_000)  # about half a second
        busy = torch.cuda.Event()
        busy.record()
        for _ in range(2):
            stream.next()
        assert not busy.query()
        assert stream.reason.endswith("on the GPU") == (prepared.formats["JPEG"] > 0)
