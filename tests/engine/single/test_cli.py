"""Every command of `fastgan-engine single` from end to end on a small image, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from fastgan_engine.cli import app
from fastgan_engine.errors import UserError
from fastgan_engine.run_folder import RunFolder
from tests.engine.single.small import picture

SMALL = [
    "--max-size", "40", "--stages", "3", "--iterations", "2", "--device", "cpu", "--screen", "plain",
    "--set", "single.filters=4", "--set", "single.min_size=15", "--set", "log.tensorboard=false",
    "--set", "log.sample_count=1",
]  # fmt: skip


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A training image with an alpha channel, a composite of it, and the mask of what was changed."""
    folder = tmp_path_factory.mktemp("images")
    paths = {name: folder / f"{name}.png" for name in ("image", "naive", "mask")}
    image = picture(80, 56)
    image.convert("RGBA").save(paths["image"])
    image.paste((255, 0, 0), (10, 10, 20, 20))
    image.save(paths["naive"])
    mask = Image.new("L", (80, 56))
    mask.paste(255, (10, 10, 20, 20))
    mask.save(paths["mask"])
    return paths


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, images: dict[str, Path]) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    for mode in ("generate", "animate", "harmonize", "edit"):
        result = run("single", "train", images["image"], "--mode", mode, "--out", folder / mode, *SMALL)
        assert result.exit_code == 0, result.output
        assert "quality: patch-wise sliced Wasserstein distance" in result.output
        assert f"fastgan-engine single {mode}" in result.output.splitlines()[-1]
    return {mode.name: mode for mode in folder.iterdir()}


def size_of(path: Path) -> tuple[int, int]:
    return Image.open(path).size


def test_generate_writes_every_shape(runs: dict[str, Path]) -> None:
    run("single", "generate", runs["generate"], "--count", 2, "--device", "cpu")
    sizes = {"1x": (40, 28), "wide": (80, 28), "tall": (40, 56), "2x": (80, 56)}
    for name, size in sizes.items():
        files = sorted((runs["generate"] / "generated" / name).iterdir())
        assert [file.name for file in files] == ["000000.png", "000001.png"]
        assert {size_of(file) for file in files} == {size}
    with pytest.raises(UserError, match="exists; choose another path, or overwrite it with --force"):
        run("single", "generate", runs["generate"], "--device", "cpu")


def test_retarget(runs: dict[str, Path], tmp_path: Path) -> None:
    run("single", "retarget", runs["generate"], "--size", "61x23", "--count", 1, "--out", tmp_path / "wide")
    assert size_of(tmp_path / "wide" / "000000.png") == (61, 23)
    with pytest.raises(UserError, match=r"--size: got 'large', expected width x height"):
        run("single", "retarget", runs["generate"], "--size", "large")
    with pytest.raises(UserError, match="is too small: the coarsest stage would be"):
        run("single", "retarget", runs["generate"], "--size", "61x3", "--out", tmp_path / "small")


def test_animate(runs: dict[str, Path]) -> None:
    run("single", "animate", runs["animate"], "--frames", 3)
    clip = Image.open(runs["animate"] / "animation.gif")
    assert (clip.n_frames, clip.size) == (3, (40, 28))


@pytest.mark.parametrize(("use", "reach"), [("harmonize", 7 + 20), ("edit", 20 + 20)])
def test_harmonize_and_edit_change_the_image_around_the_mask_alone(
    runs: dict[str, Path], images: dict[str, Path], tmp_path: Path, use: str, reach: int
) -> None:
    mask = Image.new("L", (40, 28))
    mask.putpixel((0, 0), 255)
    mask.save(tmp_path / "corner.png")
    out = tmp_path / "out.png"
    run("single", use, runs[use], "--naive", images["naive"], "--mask", tmp_path / "corner.png", "--out", out)
    naive = Image.open(images["naive"]).resize((40, 28), Image.Resampling.BICUBIC)
    changed = np.abs(np.asarray(Image.open(out), dtype=int) - np.asarray(naive, dtype=int)).max(axis=2)
    rows, columns = np.nonzero(changed)
    assert changed[0, 0] > 0
    assert (rows**2 + columns**2).max() <= (reach * 2**0.5) ** 2  # the blur's kernel is square
    tuned = tmp_path / "tuned.png"
    run(
        "single", use, runs[use], "--naive", images["naive"], "--mask", images["mask"], "--fine-tune", 2, "--out", tuned
    )  # fmt: skip
    assert size_of(tuned) == (40, 28)


def test_an_unfinished_or_taken_folder(images: dict[str, Path], runs: dict[str, Path]) -> None:
    with pytest.raises(UserError, match=r"already holds a run .*add --resume auto"):
        run("single", "train", images["image"], "--out", runs["generate"], *SMALL)
    result = run("single", "train", images["image"], "--out", runs["generate"], "--resume", "auto", *SMALL)
    assert "resumed from" in result.output
    with pytest.raises(UserError, match="trained for generate, which does not serve animate"):
        run("single", "animate", runs["generate"])


def test_commands_for_runs_on_many_images_say_what_it_is(runs: dict[str, Path]) -> None:
    with pytest.raises(
        UserError, match="is a run on one image, which has no latents; use it with `fastgan-engine single"
    ):
        run("sample", runs["generate"])
    checkpoint = RunFolder(runs["generate"]).latest_checkpoint()
    for named in (runs["generate"], checkpoint):
        with pytest.raises(UserError, match="holds a run on one image; go on with it by `fastgan-engine single train`"):
            run("train", "--resume", named, "--device", "cpu")


def test_dry_run_shows_where_settings_come_from(images: dict[str, Path], tmp_path: Path) -> None:
    result = run(
        "single", "train", images["image"], "--profile", "rtx3070", "--stages", 4, "--out", tmp_path / "x", "--dry-run"
    )
    assert "stages = 4  # from flag" in result.output
    assert 'device = "cuda"  # from profile rtx3070' in result.output
    assert not (tmp_path / "x").exists()


def test_too_few_stages_and_too_small_an_image(images: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"single\.stages: got 2 \(flag\), expected at least 3"):
        run("single", "train", images["image"], "--stages", 2, "--out", tmp_path / "x")
    Image.new("RGB", (60, 20)).save(tmp_path / "flat.png")
    with pytest.raises(UserError, match="shorter side must be more than the 25 pixels of the coarsest stage"):
        run("single", "train", tmp_path / "flat.png", "--out", tmp_path / "x", "--device", "cpu")


def test_bench_compares_with_the_plain_loop(images: dict[str, Path], tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    result = run(
        "bench", "single", images["image"], "--compare", "--max-size", 40, "--iterations", 1, "--card", "rtx2070",
        "--device", "cpu", "--set", "single.stages=3", "--set", "single.filters=4", "--json", figures,
    )  # fmt: skip
    assert "times as fast as the plain loop" in result.output
    values = json.loads(figures.read_text())
    assert [row["stage"] for row in values["stages"]] == [1, 2, 3]
    for row in values["stages"]:
        assert 0 <= row["apart"] < 1e-6 < row["moved"]
        assert row["gflop"] > 0
        assert row["ms_card"] > 0
    assert values["speedup"] > 0
