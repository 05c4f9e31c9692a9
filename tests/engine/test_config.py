"""Configuration: precedence, sources, messages a user can act on."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fastgan_engine import hardware, profiles
from fastgan_engine.config import Config, resolve, resolve_with_sources, settings
from fastgan_engine.errors import UserError


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    return tmp_path / "run.toml"


def message(**arguments: Any) -> str:
    with pytest.raises(UserError) as caught:
        resolve(**arguments)
    return str(caught.value)


class TestPrecedence:
    """defaults < profile < file < flags < --set. The cpu profile sets im_size, ngf and steps, among others."""

    def test_each_source_wins_over_the_ones_before(self, config_file: Path) -> None:
        config_file.write_text("[model]\nngf = 40\nndf = 40\n[train]\nsteps = 7\nbatch = 2\nseed = 2\n")
        found = resolve_with_sources(
            "cpu",
            config_file,
            {"train.steps": 8, "train.batch": 4, "model.ndf": 48},
            ["train.batch=16", "train.lr=1e-3"],
        )
        expected = {
            "model.nz": (256, "default"),
            "model.im_size": (64, "profile cpu"),
            "model.ngf": (40, f"file {config_file}"),
            "train.seed": (2, f"file {config_file}"),
            "model.ndf": (48, "flag"),
            "train.steps": (8, "flag"),
            "train.batch": (16, "--set"),
            "train.lr": (1e-3, "--set"),
        }
        values = found.config.values()
        assert {key: (values[key], found.sources[key]) for key in expected} == expected

    def test_a_flag_that_was_not_given_changes_nothing(self) -> None:
        found = resolve_with_sources("cpu", flags={"train.steps": None})
        assert (found.config.train.steps, found.sources["train.steps"]) == (
            profiles.load("cpu")["train"]["steps"],
            "profile cpu",
        )

    def test_a_false_flag_counts_as_given(self) -> None:
        assert resolve(flags={"data.flip": False}).data.flip is False

    def test_the_last_of_several_sets_wins(self) -> None:
        assert resolve(sets=["train.batch=2", "train.batch=3"]).train.batch == 3

    def test_none_unsets_an_optional_setting(self, config_file: Path) -> None:
        config_file.write_text("[train]\nmicro_batch = 2\n")
        assert resolve(config_file=config_file).train.micro_batch == 2
        assert resolve(config_file=config_file, sets=["train.micro_batch=none"]).train.micro_batch is None
        config_file.write_text('[train]\nmicro_batch = "none"\n')
        assert resolve(config_file=config_file).train.micro_batch is None

    def test_every_setting_has_a_source(self) -> None:
        assert set(resolve_with_sources("rtx2070").sources) == set(settings())

    def test_a_copied_profile_works_as_a_config_file(self) -> None:
        copied = Path(__file__).parents[2] / "profiles" / "rtx2070.toml"
        assert resolve(config_file=copied) == resolve("rtx2070")

    def test_a_file_saved_with_a_byte_order_mark_is_read(self, config_file: Path) -> None:
        config_file.write_text("[train]\nbatch = 2\n", encoding="utf-8-sig")
        assert resolve(config_file=config_file).train.batch == 2


class TestAuto:
    """`--profile auto` asks the hardware, for the device that the upper layers ask for."""

    @pytest.mark.parametrize(
        ("flags", "sets", "asked"),
        [
            ({}, [], "auto"),
            ({"engine.device": "cpu"}, [], "cpu"),
            ({"engine.device": "cpu"}, ["engine.device=cuda:1"], "cuda:1"),
        ],
    )
    def test_the_chosen_profile_is_the_source_and_its_reason_a_note(
        self, monkeypatch: pytest.MonkeyPatch, flags: dict[str, str], sets: list[str], asked: str
    ) -> None:
        def choose(device: str) -> hardware.Choice:
            assert device == asked
            return hardware.Choice(profile="rtx3070", reason="because")

        monkeypatch.setattr(hardware, "choose_profile", choose)
        found = resolve_with_sources("auto", flags=flags, sets=sets)
        assert found.sources["precision.dtype"] == "profile rtx3070"
        assert "because" in found.notes
        assert found.config.engine.device == (asked if asked != "auto" else "cuda")


class TestUnknownNames:
    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            (
                "train.bacth=4",
                "unknown setting train.bacth (--set). Did you mean train.batch? train has: steps, batch,",
            ),
            ("trian.batch=4", "Did you mean train.batch? The sections are: data, model, loss, train,"),
            ("train.ngf=32", "Did you mean model.ngf?"),
            ("ngf=32", "unknown setting ngf (--set). Did you mean model.ngf?"),
            ("bacth=4", "Did you mean train.batch?"),
            ("xyzzy.plugh=1", "unknown section xyzzy (--set). The sections are: data,"),
            ("train=1", "train (--set) is a section, not a setting. train has: steps,"),
            ("train.batch", "expected section.key=value, for example --set train.batch=4"),
        ],
    )
    def test_set(self, given: str, expected: str) -> None:
        assert expected in message(sets=[given])

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("[trian]\nbatch = 4", "unknown section trian (file {path}). Did you mean train?"),
            ("[train]\nbacth = 4", "unknown setting train.bacth (file {path}). Did you mean train.batch?"),
            ("batch = 4", "unknown setting batch (file {path}). Did you mean train.batch?"),
            ("train = 4", "train (file {path}) is a section, not a setting."),
            ("[train]\nbatch = = 4\n", "the configuration {path} is not valid TOML: Invalid value (at line 2,"),
        ],
    )
    def test_file(self, config_file: Path, text: str, expected: str) -> None:
        config_file.write_text(text)
        assert expected.format(path=config_file) in message(config_file=config_file)

    def test_a_file_that_cannot_be_read(self, tmp_path: Path) -> None:
        assert message(config_file=tmp_path / "no.toml").endswith("no.toml: No such file or directory")
        assert message(config_file=tmp_path).startswith("cannot read the configuration")

    def test_flag(self) -> None:
        assert "unknown setting train.stps (flag). Did you mean train.steps?" in message(flags={"train.stps": 1})

    def test_profile(self) -> None:
        assert "Did you mean rtx2070? The profiles are: auto, cpu," in message(profile="rtx2080")


class TestWrongValues:
    """Each message names the key, what was got, where it came from and what was expected."""

    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            ("train.batch=eight", 'train.batch: got "eight" (--set), expected a whole number'),
            ("train.batch=true", "train.batch: got true (--set), expected a whole number"),
            ("train.batch=4.5", "train.batch: got 4.5 (--set), expected a whole number"),
            ("train.batch=0", "train.batch: got 0 (--set), expected at least 1"),
            ("train.lr=fast", 'train.lr: got "fast" (--set), expected a number'),
            ("train.lr=nan", "expected a finite number"),
            ("train.beta1=1", "expected less than 1"),
            ("model.skip=yes", 'model.skip: got "yes" (--set), expected true or false'),
            ("model.ngf=12", "expected a multiple of 8"),
            ("model.im_size=200", "model.im_size: got 200 (--set), expected 64, 128, 256, 512 or 1024"),
            ("data.fit=sqash", "expected 'squash', 'crop' or 'pad'; did you mean 'squash'?"),
            ("data.background=whiteish", "expected a colour such as white or #fff8e0"),
            ("engine.device=gpu", 'engine.device: got "gpu" (--set), expected auto, cpu, cuda or cuda:N'),
            ("loss.augment=color,blur", "unknown policy 'blur'; expected a comma list of color, translation, cutout"),
            ("loss.augment=color,color", "a policy is named twice"),
            ("data.path=3", "data.path: got 3 (--set), expected a path"),
            ("data.background=\udc80", 'got "\\udc80" (--set)'),
            ("data.path=\udc80", "the path is not valid Unicode"),
        ],
    )
    def test_message(self, given: str, expected: str) -> None:
        assert expected in message(sets=[given])

    def test_every_error_of_a_file_is_listed(self, config_file: Path) -> None:
        config_file.write_text('[train]\nbatch = "8"\nlr = "x"\n')
        assert message(config_file=config_file).splitlines() == [
            f'train.batch: got "8" (file {config_file}), expected a whole number',
            f'train.lr: got "x" (file {config_file}), expected a number',
        ]

    def test_micro_batch_must_divide_batch_and_the_sources_are_named(self, config_file: Path) -> None:
        config_file.write_text("[train]\nmicro_batch = 2\n")
        assert message(config_file=config_file, flags={"train.batch": 15}) == (
            "train.micro_batch = 2 does not divide train.batch = 15; take one of 1, 3, 5, 15 "
            f"(train.micro_batch: file {config_file}, train.batch: flag)"
        )

    def test_apex_on_a_cpu(self) -> None:
        assert "needs CUDA" in message(flags={"engine.optimizer": "apex", "engine.device": "cpu"})


class TestSet:
    @pytest.mark.parametrize(
        ("given", "key", "value"),
        [
            ("train.batch=4", "train.batch", 4),
            (" train.batch = 4 ", "train.batch", 4),
            ("train.lr=1", "train.lr", 1.0),
            ("data.flip=false", "data.flip", False),
            ("loss.reconstruction=l1", "loss.reconstruction", "l1"),
            ("loss.augment=", "loss.augment", ""),
            ("loss.augment= cutout , color", "loss.augment", "cutout,color"),
            ("data.background=#ffF8e0", "data.background", "#ffF8e0"),
            ("data.path=my shells/a=b", "data.path", Path("my shells/a=b")),
            ('data.path="3"', "data.path", Path("3")),
            ("data.cache_dir=2026-11-22", "data.cache_dir", Path("2026-11-22")),
            ("data.cache_dir=./none", "data.cache_dir", Path("none")),
        ],
    )
    def test_value(self, given: str, key: str, value: object) -> None:
        found = resolve(sets=[given]).values()[key]
        assert found == value
        assert type(found) is type(value)

    @given(st.lists(st.text(), max_size=3))
    def test_any_text_resolves_or_is_a_user_error(self, sets: list[str]) -> None:
        try:
            resolve(sets=sets)
        except UserError as error:
            assert "--set" in str(error)  # noqa: PT017 - both outcomes are right

    @given(st.sampled_from(sorted(settings())), st.text())
    def test_any_value_of_any_setting_resolves_or_is_a_user_error(self, key: str, value: str) -> None:
        try:
            resolve(sets=[f"{key}={value}"])
        except UserError as error:
            assert key in str(error)  # noqa: PT017


class TestConfig:
    def test_every_setting_is_documented(self) -> None:
        assert [key for key, field in settings().items() if not field.description] == []

    def test_every_default_is_valid(self) -> None:
        assert Config.model_validate(Config().model_dump()) == Config()

    def test_it_cannot_be_changed(self) -> None:
        with pytest.raises(ValidationError, match="frozen"):
            Config().train.batch = 4

    @pytest.mark.parametrize(("batch", "micro", "expected"), [(8, None, 1), (8, 8, 1), (8, 2, 4)])
    def test_accumulation(self, batch: int, micro: int | None, expected: int) -> None:
        assert resolve(flags={"train.batch": batch, "train.micro_batch": micro}).train.accumulation == expected

    @pytest.mark.parametrize(
        ("flags", "expected"),
        [
            ({}, []),
            ({"loss.reconstruction": "none", "model.decode": False}, []),
            ({"loss.reconstruction": "none"}, ["model.decode is on but"]),
            ({"model.decode": False}, ['loss.reconstruction = "lpips-vgg" has no effect']),
            ({"engine.device": "cpu", "precision.dtype": "fp16"}, ['"fp16" is slow on a CPU']),
        ],
    )
    def test_warnings_are_notes_of_the_resolution(self, flags: dict[str, Any], expected: list[str]) -> None:
        notes = resolve_with_sources(flags=flags).notes
        assert len(notes) == len(expected)
        assert all(text in note for text, note in zip(expected, notes, strict=True))

    def test_importing_it_does_not_load_torch(self) -> None:
        code = "import sys; from fastgan_engine.config import resolve; resolve('cpu'); print('torch' in sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout == "False\n"
