"""A configuration written as TOML reads back equal."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgan_engine.config import Config, resolve, resolve_with_sources, settings


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    return tmp_path / "run.toml"


PATHS = st.none() | st.text(st.characters(exclude_categories=["Cs"]), min_size=1).map(Path)
FRACTIONS = st.floats(0, 1, exclude_max=True)
METRICS = st.lists(st.sampled_from(["fid", "recall", "swd"]), unique=True, min_size=1).map(",".join)


@st.composite
def configurations(draw: st.DrawFn) -> dict[str, Any]:
    """Valid values for every setting, by dotted key."""
    batch = draw(st.integers(1, 64))
    policies = st.lists(st.sampled_from(["color", "translation", "cutout"]), unique=True).map(",".join)
    decode = draw(st.booleans())
    return {
        "data.path": draw(PATHS),
        "data.fit": draw(st.sampled_from(["squash", "crop", "pad"])),
        "data.background": draw(st.sampled_from(["white", "black", "#fff8e0", "RebeccaPurple"])),
        "data.encoding": draw(st.sampled_from(["lossless", "jpeg"])),
        "data.flip": draw(st.booleans()),
        "data.loader": draw(st.sampled_from(["auto", "resident", "dali", "pillow"])),
        "data.resident_gib": draw(st.floats(0, 1e6)),
        "data.host_gib": draw(st.floats(0, 1e6)),
        "data.workers": draw(st.integers(1, 64)),
        "data.prefetch": draw(st.integers(1, 64)),
        "data.strict": draw(st.booleans()),
        "data.cache_dir": draw(PATHS),
        "model.im_size": draw(st.sampled_from([64, 128, 256, 512, 1024])),
        "model.nz": draw(st.integers(1, 2**40)),
        "model.ngf": 8 * draw(st.integers(1, 64)),
        "model.ndf": 8 * draw(st.integers(1, 64)),
        "model.nc": draw(st.sampled_from([1, 3, 4])),
        "model.skip": draw(st.booleans()),
        "model.decode": decode,
        "model.tanh": draw(st.sampled_from(["auto", "always", "never"])),
        "loss.self_supervision": draw(st.sampled_from(["reconstruction", "rotation", "none"])),
        "loss.reconstruction": draw(st.sampled_from(["lpips-vgg", "lpips-squeeze", "l1", "none"])),
        "loss.augment": draw(policies),
        "loss.weights_dir": draw(PATHS),
        "train.steps": draw(st.integers(1, 2**63 - 1)),
        "train.batch": batch,
        "train.micro_batch": draw(st.sampled_from([None, *(n for n in range(1, batch + 1) if batch % n == 0)])),
        "train.lr": draw(st.floats(0, exclude_min=True, allow_infinity=False)),
        "train.beta1": draw(FRACTIONS),
        "train.beta2": draw(FRACTIONS),
        "train.ema_decay": draw(FRACTIONS),
        "train.seed": draw(st.integers(0, 2**32 - 1)),
        "precision.dtype": draw(st.sampled_from(["auto", "fp32", "bf16", "fp16"])),
        "precision.channels_last": draw(st.booleans()),
        "precision.tf32": draw(st.booleans()),
        "engine.device": draw(st.sampled_from(["auto", "cpu", "cuda", "cuda:0", "cuda:12"])),
        "engine.step": draw(st.sampled_from(["auto", "graph", "eager"])),
        "engine.kernels": draw(st.sampled_from(["auto", "triton", "reference"])),
        "engine.optimizer": "adam",
        "engine.transposed_from": draw(st.none() | st.integers(1, 2**40)),
        "engine.recompute": draw(st.booleans()),
        "engine.expandable_segments": draw(st.booleans()),
        "engine.budget_gib": draw(st.none() | st.floats(0, 1e6, exclude_min=True)),
        "engine.threads": draw(st.none() | st.integers(1, 256)),
        "log.tick": draw(st.integers(1, 10_000)),
        "log.sample_every": draw(st.integers(0, 10_000)),
        "log.sample_count": draw(st.integers(1, 10_000)),
        "log.checkpoint_every": draw(st.integers(0, 10_000)),
        "log.keep": draw(st.integers(1, 100)),
        "log.tensorboard": draw(st.booleans()),
        "log.report": draw(st.booleans()),
        "log.screen": draw(st.sampled_from(["auto", "live", "plain", "quiet"])),
        "eval.every": draw(st.integers(0, 10_000)),
        "eval.metrics": draw(st.just("auto") | METRICS),
        "eval.count": draw(st.integers(2, 100_000)),
        "eval.patience": draw(st.integers(0, 100)),
        "eval.keep_best": draw(st.booleans()),
        "eval.alarm": draw(st.floats(0, 1)),
    }


class TestRoundTrip:
    @given(values=configurations(), source=st.text())
    def test_to_toml_reads_back_equal(self, values: dict[str, Any], source: str) -> None:
        config = resolve(flags=values)
        assert config.values() == values  # so the strategy covers every setting
        text = config.to_toml(dict.fromkeys(settings(), source))
        assert resolve(flags=_flat(text)) == config

    @pytest.mark.parametrize("path", ["none", "a\\b", 'quo"te', "néon/日本", "tab\tand\x7f", "#no comment"])
    def test_awkward_paths_survive_the_file(self, config_file: Path, path: str) -> None:
        config = resolve(flags={"data.path": Path(path)})
        config_file.write_text(config.to_toml(), encoding="utf-8")
        assert resolve(config_file=config_file) == config
        assert config.data.path == Path(path)

    def test_a_saved_configuration_wins_over_a_profile_in_every_setting(self, config_file: Path) -> None:
        saved = Config()
        config_file.write_text(saved.to_toml())
        assert resolve("gtx1050ti", config_file) == saved

    def test_the_text_explains_each_setting_and_names_sources(self) -> None:
        found = resolve_with_sources("rtx2070", flags={"train.steps": 5})
        lines = found.config.to_toml(found.sources).splitlines()
        assert "steps = 5  # from flag" in lines
        assert 'dtype = "fp16"  # from profile rtx2070' in lines
        assert "nz = 256" in lines
        assert lines[lines.index("nz = 256") - 1] == "# length of the latent vector"


def _flat(text: str) -> dict[str, Any]:
    return {f"{section}.{key}": v for section, table in tomllib.loads(text).items() for key, v in table.items()}
