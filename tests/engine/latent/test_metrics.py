"""Distances: LPIPS against the lpips package, pixels against their formula."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fastgan_engine.errors import UserError
from fastgan_engine.latent.metrics import Lpips, Metric, Pixels, build_metric
from fastgan_engine.perceptual import build_lpips
from fastgan_engine.reconstruction import ReconstructionLoss


@pytest.fixture(scope="module")
def squeeze() -> object:
    """LPIPS on a random SqueezeNet."""
    torch.manual_seed(0)
    return build_lpips("squeeze", None)


def images(count: int, size: int, channels: int = 3) -> Tensor:
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(size)) * 2 - 1


def between(metric: Metric, a: Tensor, b: Tensor) -> Tensor:
    return metric.distance((metric.points(a) - metric.points(b)).square().sum(1))


@pytest.mark.parametrize("trunk", ["vgg", "squeeze"])
@torch.no_grad()
def test_lpips_is_that_of_the_package(trunk: str, squeeze: object, vgg_loss: ReconstructionLoss) -> None:
    network = squeeze if trunk == "squeeze" else vgg_loss.lpips
    a, b = images(2, 64), images(2, 64).flip(0)
    expected = network(a, b).flatten()  # type: ignore[operator]
    torch.testing.assert_close(between(Lpips(network, 64), a, b), expected, rtol=1e-4, atol=0)
    pooled = network(F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)).flatten()  # type: ignore[operator]
    torch.testing.assert_close(between(Lpips(network, 32), a, b), pooled, rtol=1e-4, atol=0)
    torch.testing.assert_close(between(Lpips(network, 256), a, b), expected, rtol=1e-4, atol=0)  # nothing is enlarged


def test_lpips_of_any_channels_and_its_gradient(squeeze: object) -> None:
    metric = Lpips(squeeze, 64)
    grey, clear = images(1, 64, 1), images(1, 64, 4)
    torch.testing.assert_close(metric.points(grey), metric.points(grey.expand(-1, 3, -1, -1)))
    assert metric.points(clear).shape == metric.points(grey).shape
    black = torch.full((1, 3, 64, 64), -1.0, requires_grad=True)  # flat areas have features that are all 0
    (metric.points(black) - metric.points(images(1, 64))).square().sum().backward()
    assert black.grad is not None
    assert black.grad.isfinite().all()


def test_pixels() -> None:
    a, b = images(3, 64), images(3, 64).flip(0)
    expected = ((a - b).double() / 2).square().mean(dim=(1, 2, 3)).sqrt()
    torch.testing.assert_close(between(Pixels(64), a, b).double(), expected, rtol=1e-5, atol=0)
    pooled = (F.avg_pool2d(a - b, 2).double() / 2).square().mean(dim=(1, 2, 3)).sqrt()
    torch.testing.assert_close(between(Pixels(32), a, b).double(), pooled, rtol=1e-5, atol=1e-6)
    black, white = -torch.ones(1, 3, 8, 8), torch.ones(1, 3, 8, 8)
    assert between(Pixels(8), black, white).item() == pytest.approx(1)
    assert between(Pixels(8), black, black).item() == 0


def test_weights_from_a_folder(squeeze: object, tmp_path: Path) -> None:
    state = {"features." + key.split(".", 1)[1]: value for key, value in squeeze.net.state_dict().items()}  # type: ignore[attr-defined]
    torch.save(state, tmp_path / "squeezenet1_1-b8a52dc0.pth")
    metric = build_metric("lpips-squeeze", size=64, weights_dir=tmp_path)
    assert metric.words == "LPIPS (squeeze, at 64 x 64)"
    torch.testing.assert_close(metric.points(images(1, 64)), Lpips(squeeze, 64).points(images(1, 64)))


def test_missing_weights_name_the_metric_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(url: str, **settings: object) -> None:
        raise OSError("no connection")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    with pytest.raises(UserError, match=r"(?s)^--metric lpips needs the file vgg16-.*\.pth.*--weights-dir.*pixels$"):
        build_metric("lpips", size=64)
