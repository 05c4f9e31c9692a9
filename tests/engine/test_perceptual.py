"""LPIPS: where its weights come from, what is said where they are not, and that the network is the package's."""

import urllib.error
from pathlib import Path
from typing import Any

import lpips
import pytest
import torch
import torchvision
from torch import Tensor

from fastgan_engine.errors import UserError
from fastgan_engine.perceptual import as_rgb, build_lpips, find_trunk, load_trunk

VGG, SQUEEZE = "vgg16-397923af.pth", "squeezenet1_1-b8a52dc0.pth"  # torchvision's names of the files
SITE = "https://download.pytorch.org/models/"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty torch cache, and no network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))

    def offline(url: str, **settings: Any) -> dict[str, Tensor]:
        raise urllib.error.URLError("Temporary failure in name resolution")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def weights_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "weights"
    folder.mkdir()
    return folder


def write(folder: Path, value: float, file: str = VGG) -> None:
    torch.save({"features.0.weight": torch.tensor(value)}, folder / file)


def value_of(weights: dict[str, Tensor]) -> float:
    return weights["features.0.weight"].item()


def test_weights_dir_comes_before_the_cache(weights_dir: Path, cache: Path) -> None:
    write(cache, 2)
    assert value_of(load_trunk("vgg", weights_dir)) == 2  # the folder is empty
    write(weights_dir, 1)
    assert value_of(load_trunk("vgg", weights_dir)) == 1
    assert value_of(load_trunk("vgg", None)) == 2
    assert find_trunk("vgg", weights_dir) == weights_dir / VGG
    assert find_trunk("squeeze", weights_dir) is None


def test_each_trunk_has_its_own_file(weights_dir: Path) -> None:
    write(weights_dir, 3, SQUEEZE)
    assert value_of(load_trunk("squeeze", weights_dir)) == 3
    with pytest.raises(UserError, match=VGG):
        load_trunk("vgg", weights_dir)


@pytest.mark.parametrize(("trunk", "file"), [("vgg", VGG), ("squeeze", SQUEEZE)])
def test_download_is_checked_and_kept_in_the_cache(
    trunk: Any, file: str, weights_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def download(url: str, **settings: Any) -> dict[str, Tensor]:
        calls.append((url, settings))
        return {"features.0.weight": torch.tensor(4.0)}

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", download)
    assert value_of(load_trunk(trunk, weights_dir)) == 4
    ((url, settings),) = calls
    assert url == SITE + file
    assert settings["check_hash"]
    assert settings["weights_only"]
    assert "model_dir" not in settings  # torch's own cache


@pytest.mark.parametrize(("trunk", "file"), [("vgg", VGG), ("squeeze", SQUEEZE)])
def test_weights_that_are_nowhere_are_explained(trunk: Any, file: str, weights_dir: Path, cache: Path) -> None:
    with pytest.raises(UserError) as raised:
        load_trunk(trunk, weights_dir)
    message = str(raised.value)
    assert f"lpips-{trunk} needs the file {file}" in message
    assert f"    {weights_dir}\n    {cache}\n" in message
    assert "Temporary failure in name resolution" in message
    assert f"download {SITE}{file} on a machine with a connection" in message
    assert "--weights-dir" in message
    assert "--reconstruction l1" in message


def test_without_weights_dir_only_the_cache_is_named(cache: Path, weights_dir: Path) -> None:
    with pytest.raises(UserError) as raised:
        load_trunk("vgg", None)
    assert f"found in none of\n    {cache}\nand could not" in str(raised.value)
    assert str(weights_dir) not in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"PK\x03\x04cut"], ids=["empty", "page", "cut"])
def test_damaged_file_is_named(content: bytes, weights_dir: Path) -> None:
    (weights_dir / VGG).write_bytes(content)
    with pytest.raises(UserError) as raised:
        load_trunk("vgg", weights_dir)
    message = str(raised.value)
    assert f"{weights_dir / VGG} cannot be read" in message
    assert f"fetch it again from {SITE}{VGG}" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "content",
    [{}, {"features.0.weight": torch.zeros(3)}, {"state_dict": {}}],
    ids=["empty", "one key", "nested"],
)
def test_file_of_another_network_is_refused(content: Any) -> None:
    with pytest.raises(UserError) as raised:
        build_lpips("squeeze", content)
    message = str(raised.value)
    assert f"{SQUEEZE} does not hold torchvision's network" in message
    assert f"fetch it again from {SITE}{SQUEEZE}" in message
    assert "\n" not in message


def test_file_without_a_state_dict_is_refused(weights_dir: Path) -> None:
    torch.save([1, 2], weights_dir / VGG)
    with pytest.raises(UserError, match="cannot be read \\(it holds a list, not a state dict\\)"):
        load_trunk("vgg", weights_dir)


def test_weights_of_another_shape_are_refused() -> None:
    weights = torchvision.models.squeezenet1_1(weights=None).state_dict()
    weights["features.0.weight"] = weights["features.0.weight"][:5]
    with pytest.raises(UserError, match="does not hold torchvision's network"):
        build_lpips("squeeze", weights)


def pairs(count: int, size: int = 33) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.rand(count, 3, size, size, generator=generator) * 2 - 1 for _ in range(2))
    return first, second


@pytest.fixture
def torchvision_net(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """State dict of a random torchvision network, which the ``lpips`` package then takes for the pretrained one."""
    names = {"squeeze": "squeezenet1_1", "vgg": "vgg16"}
    make = getattr(torchvision.models, names[request.param])
    torch.manual_seed(3)
    settings = {"init_weights": False} if request.param == "vgg" else {}
    network = make(weights=None, **settings)

    def pretrained_or_not(pretrained: bool) -> torch.nn.Module:
        return network if pretrained else make(weights=None, **settings)

    monkeypatch.setattr(torchvision.models, names[request.param], pretrained_or_not)
    return network.state_dict()


@pytest.mark.parametrize(
    ("trunk", "torchvision_net"), [("squeeze", "squeeze"), ("vgg", "vgg")], indirect=["torchvision_net"]
)
def test_distance_is_that_of_the_package_with_the_same_weights(
    trunk: Any, torchvision_net: dict[str, Tensor], weights_dir: Path
) -> None:
    package = lpips.LPIPS(net=trunk, verbose=False)
    torch.save({k: v for k, v in torchvision_net.items() if k.startswith("features.")}, weights_dir / SQUEEZE)
    (weights_dir / SQUEEZE).rename(weights_dir / {"squeeze": SQUEEZE, "vgg": VGG}[trunk])
    ours = build_lpips(trunk, load_trunk(trunk, weights_dir))
    first, second = pairs(2)
    expected = package(first, second)
    assert expected.min() > 0
    torch.testing.assert_close(ours(first, second), expected, rtol=0, atol=0)


def test_network_is_frozen_and_repeatable() -> None:
    network = build_lpips("squeeze", None)
    assert not any(p.requires_grad for p in network.parameters())
    first, second = pairs(1)
    assert torch.equal(network(first, second), network(first, second))  # no dropout


def test_linear_layers_are_the_published_ones() -> None:
    """Their weights come with the package; the distance is a metric only where they are not negative."""
    network = build_lpips("squeeze", None)
    file = Path(lpips.__file__).parent / "weights" / "v0.1" / "squeeze.pth"
    published = torch.load(file, map_location="cpu", weights_only=True)
    for index in range(7):
        weight = network.state_dict()[f"lin{index}.model.1.weight"]
        assert torch.equal(weight, published[f"lin{index}.model.1.weight"])
        assert weight.min() >= 0


def test_grey_is_seen_as_colour() -> None:
    grey = torch.rand(2, 1, 4, 4)
    rgb = as_rgb(grey)
    assert rgb.shape == (2, 3, 4, 4)
    assert all(torch.equal(rgb[:, c], grey[:, 0]) for c in range(3))


def test_colour_is_left_alone() -> None:
    x = torch.rand(2, 3, 4, 4)
    assert as_rgb(x) is x


def test_transparent_is_mid_grey_and_opaque_is_its_colour() -> None:
    colour = torch.rand(2, 3, 4, 4) * 2 - 1
    for alpha, expected in ((1.0, colour), (-1.0, 0 * colour), (0.0, colour / 2)):
        x = torch.cat([colour, torch.full((2, 1, 4, 4), alpha)], dim=1)
        torch.testing.assert_close(as_rgb(x), expected)


def test_both_colour_and_alpha_get_a_gradient() -> None:
    x = (torch.rand(1, 4, 4, 4) * 2 - 1).requires_grad_()
    as_rgb(x).square().sum().backward()
    assert x.grad.abs().amin(dim=(0, 2, 3)).min() > 0  # type: ignore[union-attr]
