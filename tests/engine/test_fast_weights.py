"""Ready-made convolution weights against PyTorch's own spectral norm, whose hook makes them anew in every forward."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import spectral_norm

from fastgan_engine.fast.weights import SpectralWeights


class Network(nn.Module):
    """A transposed convolution, a 3x3 and a 1x1 one, and one that the loss does not use."""

    def __init__(self) -> None:
        super().__init__()
        self.first = spectral_norm(nn.ConvTranspose2d(5, 6, 4, bias=False))
        self.second = nn.Sequential(spectral_norm(nn.Conv2d(6, 7, 3, padding=1, bias=False)), nn.BatchNorm2d(7))
        self.third = spectral_norm(nn.Conv2d(7, 2, 1, bias=False))
        self.unused = spectral_norm(nn.Conv2d(3, 4, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.third(torch.tanh(self.second[0](torch.tanh(self.first(x)))))


NAMES = ["first", "second.0", "third", "unused"]


def with_weights(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    x = torch.tanh(F.conv_transpose2d(x, weights["first"]))
    x = torch.tanh(F.conv2d(x, weights["second.0"], padding=1))
    return F.conv2d(x, weights["third"])


@pytest.fixture(params=[torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels-last"])
def network(request: pytest.FixtureRequest) -> Network:
    torch.manual_seed(0)
    return Network().double().to(memory_format=request.param)  # type: ignore[call-overload]


def batches(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(3, 5, 2, 2, generator=generator, dtype=torch.float64) for _ in range(count)]


def hooked_weights(network: Network) -> dict[str, Tensor]:
    return {name: network.get_submodule(name).weight.detach() for name in NAMES}  # type: ignore[misc]


def vectors(network: Network) -> dict[str, Tensor]:
    return {name: value for name, value in network.named_buffers() if name.endswith(("weight_u", "weight_v"))}


def test_each_pass_sees_the_weights_that_the_hook_would_have_made(network: Network) -> None:
    hooked = copy.deepcopy(network)
    weights = SpectralWeights(network, dtype=torch.float64)
    for grad in (True, False, True):
        ready = weights.ready(grad=grad)
        hooked(batches(1)[0])
        hooked.unused(torch.zeros(1, 3, 1, 1, dtype=torch.float64))
        assert list(ready) == NAMES
        torch.testing.assert_close(
            {name: value.detach() for name, value in ready.items()}, hooked_weights(hooked), rtol=1e-12, atol=1e-13
        )
        torch.testing.assert_close(vectors(network), vectors(hooked), rtol=1e-12, atol=1e-13)
        assert all(value.requires_grad is grad and value.is_leaf for value in ready.values())


def test_gradients_of_two_micro_batches_reach_the_weights_through_the_division(network: Network) -> None:
    hooked = copy.deepcopy(network)
    first, second = batches(2)
    hooked.train()(first).square().mean().backward()
    hooked.eval()(second).square().mean().backward()  # the same vectors: no further power iteration

    weights = SpectralWeights(network, dtype=torch.float64)
    ready = weights.ready(grad=True)
    for x in (first, second):
        with_weights(ready, x).square().mean().backward()
    assert all(p.grad is None for name, p in network.named_parameters() if "weight_orig" in name)
    weights.collect()
    for name in NAMES[:3]:
        got, wanted = (net.get_submodule(name).weight_orig.grad for net in (network, hooked))
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-13, msg=name)
    unused = network.unused.weight_orig.grad
    assert unused is None or not unused.any()


def test_collecting_adds_to_what_is_there(network: Network) -> None:
    weights = SpectralWeights(network, dtype=torch.float64)

    def collect() -> None:
        with_weights(weights.ready(grad=True), batches(1)[0]).square().mean().backward()
        weights.collect()

    alone = copy.deepcopy(network)
    collect()
    gradient = network.third.weight_orig.grad.clone()
    other = torch.ones_like(gradient)
    network.load_state_dict(alone.state_dict())  # the same vectors again
    network.third.weight_orig.grad = other.clone()
    collect()
    torch.testing.assert_close(network.third.weight_orig.grad, gradient + other)


def test_fp32_is_within_roundings_of_fp64(network: Network) -> None:
    narrow = copy.deepcopy(network).float()
    x = batches(1)[0]
    results = []
    for net, dtype in ((narrow, torch.float32), (network, torch.float64)):
        weights = SpectralWeights(net, dtype=dtype)
        ready = weights.ready(grad=True)
        with_weights(ready, x.to(dtype)).square().mean().backward()
        weights.collect()
        results.append([*(w.detach().double() for w in ready.values()), *(
            net.get_submodule(name).weight_orig.grad.double() for name in NAMES[:3]
        )])  # fmt: skip
    for got, wanted in zip(*results, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5 * wanted.abs().max().item())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_weights_are_rounded_once_and_their_gradients_arrive_in_fp32(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    network = Network().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    exact = copy.deepcopy(network).double()
    exact(batches(1)[0])
    weights = SpectralWeights(network, dtype=dtype)
    ready = weights.ready(grad=True)
    for name in NAMES[:3]:
        wanted = exact.get_submodule(name).weight.detach()
        assert ready[name].dtype == dtype
        assert ready[name].is_contiguous(memory_format=torch.channels_last)
        half_ulp = torch.finfo(dtype).eps / 2
        torch.testing.assert_close(ready[name].detach().double(), wanted, rtol=1.01 * half_ulp, atol=1e-6)
    with_weights(ready, batches(1)[0].to(dtype)).float().square().mean().backward()
    weights.collect()
    for name in NAMES[:3]:
        assert network.get_submodule(name).weight_orig.grad.dtype == torch.float32
