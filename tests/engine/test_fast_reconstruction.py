"""The decoders' loss in two passes of the trunk against the released sum of three distances."""

import copy

import pytest
import torch
from torch import Tensor

from fastgan_engine.fast.reconstruction import FastReconstruction
from fastgan_engine.kernels import conv_relu, conv_tap
from fastgan_engine.kernels.dispatch import Impl
from fastgan_engine.networks import Reconstructions
from fastgan_engine.reconstruction import ReconstructionLoss

SIDE, HALF, BATCH = 64, 32, 2


@pytest.fixture(autouse=True)
def _large_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer programs: the time of Triton's interpreter goes by them, not by elements."""
    for module, of_constants in ((conv_relu, "BIASES_A_TILE"), (conv_tap, "WEIGHTS_A_TILE")):
        monkeypatch.setattr(module, "TILE", 1 << 13)
        monkeypatch.setattr(module, of_constants, 1 << 13)


def numbers(*shape: int, seed: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def decoded(nc: int = 3) -> list[Tensor]:
    """What the decoders made: big, small, part."""
    return [
        numbers(BATCH, nc, HALF, HALF, seed=seed).contiguous(memory_format=torch.channels_last).requires_grad_()
        for seed in (1, 2, 3)
    ]


def reals_of(nc: int = 3) -> Tensor:
    return numbers(BATCH, nc, SIDE, SIDE, seed=4).contiguous(memory_format=torch.channels_last)


def released(loss: ReconstructionLoss, part: int, nc: int = 3) -> tuple[Tensor, list[Tensor]]:
    """Value and gradients."""
    images = decoded(nc)
    value = loss.released(Reconstructions(*images), reals_of(nc), part)
    return value.detach(), list(torch.autograd.grad(value, images))


def fast(
    loss: ReconstructionLoss, dtype: torch.dtype, part: int, nc: int = 3, impl: Impl = "auto"
) -> tuple[Tensor, list[Tensor]]:
    images = decoded(nc)
    value = FastReconstruction(copy.deepcopy(loss), dtype=dtype, impl=impl)(images, reals_of(nc), torch.tensor(part))
    assert value.dtype == torch.float32
    return value.detach(), list(torch.autograd.grad(value, images))


def assert_equal(got: tuple[Tensor, list[Tensor]], wanted: tuple[Tensor, list[Tensor]]) -> None:
    assert got[0].item() == pytest.approx(wanted[0].item(), rel=1e-5)
    for mine, theirs in zip(got[1], wanted[1], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4 * theirs.abs().max().item())


@pytest.fixture(scope="module")
def squeeze() -> ReconstructionLoss:
    torch.manual_seed(0)
    return ReconstructionLoss("lpips-squeeze", random_weights=True)


@pytest.mark.parametrize("impl", ["reference", "triton"])
def test_vgg_in_fp32_is_the_released_loss(vgg_loss: ReconstructionLoss, impl: Impl) -> None:
    assert_equal(fast(vgg_loss, torch.float32, 1, impl=impl), released(vgg_loss, 1))


def test_vgg_in_half_precision_on_the_kernels_errs_no_more_than_on_plain_pytorch(vgg_loss: ReconstructionLoss) -> None:
    exact_value, exact = fast(vgg_loss, torch.float32, 1)
    errors = []
    for impl in ("reference", "triton"):
        value, gradients = fast(vgg_loss, torch.bfloat16, 1, impl=impl)  # type: ignore[arg-type]
        assert value.item() == pytest.approx(exact_value.item(), rel=0.01)
        errors.append(max(float((a - b).norm() / b.norm()) for a, b in zip(gradients, exact, strict=True)))
    assert errors[1] < 1.5 * errors[0]


@pytest.mark.parametrize("part", range(4))
def test_every_quadrant(part: int, squeeze: ReconstructionLoss) -> None:
    assert_equal(fast(squeeze, torch.float32, part), released(squeeze, part))


@pytest.mark.parametrize("nc", [1, 4])
def test_other_channels(nc: int, squeeze: ReconstructionLoss) -> None:
    assert_equal(fast(squeeze, torch.float32, 2, nc), released(squeeze, 2, nc))


@pytest.mark.parametrize("part", range(4))
def test_l1(part: int) -> None:
    loss = ReconstructionLoss("l1")
    assert_equal(fast(loss, torch.float32, part), released(loss, part))


def test_parts_of_the_value_belong_to_their_images(squeeze: ReconstructionLoss) -> None:
    """Perfect reconstructions: of all three there is no loss, and each that is not perfect adds its own."""
    reals = reals_of()
    whole, quarter = reals[:, :, ::2, ::2].contiguous(), reals[:, :, :HALF, HALF:].contiguous()
    perfect = [whole, whole, quarter]
    step = FastReconstruction(copy.deepcopy(squeeze), dtype=torch.float32)
    assert step(perfect, reals, torch.tensor(1)).item() == pytest.approx(0, abs=1e-6)
    for index, wrong in enumerate(decoded()):
        images = [wrong.detach() if i == index else x for i, x in enumerate(perfect)]
        wanted = squeeze.lpips(wrong, perfect[index]).sum().item()
        assert step(images, reals, torch.tensor(1)).item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_errs_no_more_than_twice_what_the_package_does(dtype: torch.dtype) -> None:
    """The package under autocast, whose distances are in fp32, is the measure."""
    torch.manual_seed(0)
    loss = ReconstructionLoss("lpips-squeeze", random_weights=True)
    value, gradients = released(loss, 1)
    with torch.autocast("cpu", dtype):
        eager_value, eager_gradients = released(loss, 1)
    fast_value, fast_gradients = fast(loss, dtype, 1)

    def error(got: list[Tensor], wanted: list[Tensor]) -> float:
        a, b = torch.cat([g.flatten() for g in got]), torch.cat([g.flatten() for g in wanted])
        return ((a - b).norm() / b.norm()).item()

    assert error([fast_value], [value]) < max(2 * error([eager_value], [value]), torch.finfo(dtype).eps)
    assert error(fast_gradients, gradients) < 2 * error(eager_gradients, gradients)


def test_features_that_are_all_zero_have_a_finite_gradient(vgg_loss: ReconstructionLoss) -> None:
    """The norm over channels is not differentiable at zero."""
    loss = copy.deepcopy(vgg_loss)
    for module in loss.lpips.net.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.bias.data.fill_(-1e3)
    value, gradients = fast(loss, torch.float32, 0)
    assert value == 0
    assert all(torch.equal(gradient, torch.zeros_like(gradient)) for gradient in gradients)


def test_no_gradient_goes_to_the_reals(squeeze: ReconstructionLoss) -> None:
    reals = reals_of().requires_grad_()
    images = decoded()
    FastReconstruction(copy.deepcopy(squeeze), dtype=torch.float32)(images, reals, torch.tensor(0)).backward()
    assert reals.grad is None
    assert all(image.grad is not None for image in images)
