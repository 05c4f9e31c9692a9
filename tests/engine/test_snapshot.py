"""Snapshots: what is saved comes back, and what is no snapshot is refused in the user's words."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors import safe_open

from fastgan_engine.errors import UserError
from fastgan_engine.networks import Generator
from fastgan_engine.snapshot import load_snapshot, save_snapshot
from tests.engine.weights import assert_same_state


@pytest.fixture
def generator() -> Generator:
    torch.manual_seed(0)
    generator = Generator(64, nz=8, ngf=8)
    generator(torch.randn(4, 8))  # running statistics and singular vectors of its own
    return generator


@pytest.fixture
def file(tmp_path: Path, generator: Generator) -> Path:
    save_snapshot(tmp_path / "step-0000007.safetensors", generator, step=1234)
    return tmp_path / "step-0000007.safetensors"


def rewrite(file: Path, **changes: str) -> None:
    """The same tensors under changed metadata."""
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata() | changes
    safetensors.torch.save_file(safetensors.torch.load_file(file), file, metadata)


def test_round_trip(file: Path, generator: Generator) -> None:
    snapshot = load_snapshot(file)
    assert_same_state(snapshot.generator.state_dict(), generator.state_dict())
    assert not snapshot.generator.training
    assert snapshot.step == 1234  # not that of the name


def test_any_reader_of_safetensors_gets_the_weights(file: Path, generator: Generator) -> None:
    tensors = safetensors.torch.load_file(file)
    assert set(tensors) == set(generator.state_dict())
    assert torch.equal(tensors["to_big.weight_orig"], generator.state_dict()["to_big.weight_orig"])


@pytest.mark.parametrize(
    "arguments",
    [
        {"im_size": 64, "nz": 5, "ngf": 16, "nc": 1, "skip": False, "tanh": "always"},
        {"im_size": 128, "nz": 8, "ngf": 8, "nc": 4, "skip": True, "tanh": "never"},
    ],
)
def test_the_network_is_rebuilt_as_it_was(tmp_path: Path, arguments: dict) -> None:
    original = Generator(**arguments).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    z = torch.randn(4, arguments["nz"])
    for _ in range(10):
        original(z)
    save_snapshot(tmp_path / "x.safetensors", original, step=0)
    loaded = load_snapshot(tmp_path / "x.safetensors").generator
    assert {name: getattr(loaded, name) for name in arguments} == arguments
    noise = {size: (torch.zeros(4, 1, size, size),) * 2 for size in loaded.noise_sizes()}
    with torch.no_grad():
        torch.testing.assert_close(loaded(z, noise), original.eval()(z, noise), rtol=1e-4, atol=1e-4)


def test_loading_leaves_the_global_random_state_alone(file: Path) -> None:
    state = torch.get_rng_state()
    load_snapshot(file)
    assert torch.equal(torch.get_rng_state(), state)


class TestErrors:
    def test_cut_short(self, file: Path) -> None:
        file.write_bytes(file.read_bytes()[:-100])
        with pytest.raises(UserError, match=r"step-0000007\.safetensors is no whole safetensors file .* copy it again"):
            load_snapshot(file)

    @pytest.mark.parametrize("content", [b"", b"something else altogether"])
    def test_no_safetensors(self, file: Path, content: bytes) -> None:
        file.write_bytes(content)
        with pytest.raises(UserError, match="is no whole safetensors file"):
            load_snapshot(file)

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"cannot read the snapshot .*none\.safetensors: No such file"):
            load_snapshot(tmp_path / "none.safetensors")

    def test_tensors_of_something_else(self, file: Path) -> None:
        safetensors.torch.save_file({"x": torch.ones(1)}, file)
        with pytest.raises(UserError, match="is a safetensors file, but not a snapshot"):
            load_snapshot(file)

    def test_another_version(self, file: Path) -> None:
        rewrite(file, version="2")
        with pytest.raises(UserError, match="has format version 2, this engine reads 1; install"):
            load_snapshot(file)

    @pytest.mark.parametrize(
        "changes",
        [{"step": "many"}, {"generator": "{"}, {"generator": json.dumps({"im_size": 128})}, {"generator": "{}"}],
    )
    def test_contradictory_metadata(self, file: Path, changes: dict[str, str]) -> None:
        rewrite(file, **changes)
        with pytest.raises(UserError, match=r"the snapshot .* is damaged"):
            load_snapshot(file)

    def test_sizes_that_no_memory_holds_are_refused_before_any_is_taken(self, file: Path) -> None:
        arguments = {"im_size": 64, "nz": 16, "ngf": 10**5, "nc": 3, "skip": True, "tanh": "auto"}
        rewrite(file, generator=json.dumps(arguments))
        with pytest.raises(UserError, match="damaged: its weights are not those of the generator that it names") as e:
            load_snapshot(file)
        assert "\n" not in str(e.value)

    def test_weights_that_are_not_finite(self, file: Path, generator: Generator) -> None:
        with torch.no_grad():
            generator.to_big.weight_orig[0, 0, 0, 0] = torch.nan
        save_snapshot(file, generator, step=1)
        with pytest.raises(UserError, match="damaged: some of its weights are not finite"):
            load_snapshot(file)

    def test_an_interrupted_save_keeps_the_old_one(
        self, file: Path, generator: Generator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(self: Path, data: bytes) -> int:
            with self.open("wb") as opened:
                opened.write(data[:100])
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space left"):
            save_snapshot(file, generator, step=5678)
        assert load_snapshot(file).step == 1234
        assert list(file.parent.iterdir()) == [file]
