"""Bytes of kernels that find their tensors in tables, counted on fake tensors, against closed forms."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from fastgan_engine.kernels import traffic as traffic_module
from fastgan_engine.kernels.adam_ema import AdamEma
from fastgan_engine.kernels.launch import jit, launch, record_launches, tl
from fastgan_engine.kernels.spectral import SpectralBatch, SpectralLayer
from fastgan_engine.kernels.tables import address_table, addresses, contents, split_by_alignment, table
from fastgan_engine.kernels.traffic import traffic

CPU = torch.device("cpu")
# Several tiles each way, ragged ones, a layer of a few rows, rows that are not of whole 16 bytes, one transposed.
LAYERS = [((160, 40, 3, 3), 0), ((3, 64, 3, 3), 0), ((64, 3, 4, 4), 0), ((100, 128, 4, 4), 1)]
SIZES = (5000, 70001, 12, 40000)


def spectral_launches(dtype=torch.bfloat16):
    with FakeTensorMode(), record_launches() as launches:
        layers = []
        for shape, dim in LAYERS:
            weight = torch.empty(shape).contiguous(memory_format=torch.channels_last).requires_grad_()
            layers.append(
                SpectralLayer(weight, torch.empty(shape[dim]), torch.empty(weight.numel() // shape[dim]), dim)
            )
        batch = SpectralBatch(layers, impl="triton")
        weights = batch.normalised(batch.step(), dtype)
        torch.autograd.backward(weights, [torch.empty_like(weight) for weight in weights])
    return launches


def adam_launches():
    """The last weight has no gradient."""
    with FakeTensorMode(), record_launches() as launches:
        weights = [torch.empty(size, requires_grad=True) for size in SIZES]
        optimizer = AdamEma(weights, 0.01, emas=[torch.empty(size) for size in SIZES], impl="triton")
        for weight in weights[:-1]:
            weight.grad = torch.empty_like(weight)
        optimizer.step(found_inf=optimizer.find_inf())
    return launches


def bytes_by_kernel(launches):
    moved, minimum = {}, {}
    for launched in launches:
        counted = traffic(launched)
        moved[launched.name] = moved.get(launched.name, 0) + counted.moved
        minimum[launched.name] = minimum.get(launched.name, 0) + counted.minimum
    return moved, minimum


def test_spectral_kernels_move_each_weight_as_often_as_they_say():
    elements = sum(torch.Size(shape).numel() for shape, _ in LAYERS)
    moved, minimum = bytes_by_kernel(spectral_launches())
    expected = {
        "spectral_product_kernel": 2 * 4,  # two products, each reads W
        "spectral_normalise_kernel": 4 + 2,
        "spectral_dot_kernel": 4 + 2,
        "spectral_grad_kernel": 2 + 4,
    }
    for kernel, width in expected.items():
        assert width * elements < minimum[kernel] <= moved[kernel] < 1.1 * width * elements, kernel
    for kernel, size in minimum.items():
        assert moved[kernel] <= 1.1 * size or moved[kernel] - size < 10_000, kernel


def test_adam_moves_every_element_once_and_of_weights_without_gradient_only_the_average():
    live = sum(SIZES[:-1])
    moved, minimum = bytes_by_kernel(adam_launches())
    expected = {"adam_ema_kernel": live * 9 * 4 + SIZES[-1] * 3 * 4, "adam_nonfinite_kernel": live * 4}
    for kernel, size in expected.items():
        assert size < minimum[kernel] <= moved[kernel] < 1.05 * size, kernel


@pytest.mark.parametrize("launches", [adam_launches, spectral_launches])
def test_programs_that_are_not_run_move_what_their_like_do(launches, monkeypatch):
    recorded = launches()
    counted = [traffic(launched) for launched in recorded]
    monkeypatch.setattr(traffic_module, "_kinds", lambda entries: [[program] for program in range(len(entries))])
    assert counted == [traffic(launched) for launched in recorded]


@jit
def _fill_kernel(entries_ptr, tensors_ptr, sizes_ptr, x_ptr, BLOCK: tl.constexpr):
    tensor, chunk = tl.load(entries_ptr + tl.program_id(0) * 2), tl.load(entries_ptr + tl.program_id(0) * 2 + 1)
    index = chunk * BLOCK + tl.arange(0, BLOCK)
    pointer = tl.load(tensors_ptr + tensor).to(tl.pointer_type(tl.float32))
    tl.store(pointer + index, 0.0, mask=index < tl.load(sizes_ptr + tensor))


@pytest.mark.parametrize(("claimed", "fits"), [(7, True), (8, False)])
def test_a_table_that_leads_out_of_its_tensor_is_noticed(claimed, fits):
    with FakeTensorMode(), record_launches() as launches:
        ((_, entries),) = split_by_alignment([True], [[(0, 0)]], CPU)
        tensors = address_table([torch.empty(7)], CPU)
        launch(_fill_kernel, (1,), entries, tensors, table([claimed], torch.int64, CPU), torch.empty(1), BLOCK=16)
    if fits:
        assert traffic(launches[0]).moved == 7 * 4 + 2 * 4 + 8 + 8
    else:
        with pytest.raises(IndexError, match="a store goes outside its tensor"):
            traffic(launches[0])


def test_fake_tables_know_their_values_and_real_ones_are_plain():
    with FakeTensorMode():
        fake = table([[1, 2]], torch.int32, CPU)
        assert isinstance(fake, FakeTensor)
        held = contents(fake.detach())
    assert held.values.tolist() == [[1, 2]]
    assert type(held.values) is torch.Tensor
    real = table([[1, 2]], torch.int32, CPU)
    assert contents(real) is None
    assert real.tolist() == [[1, 2]]


def test_made_up_addresses_stay_and_lie_apart():
    with FakeTensorMode():
        a, b = torch.empty(10), torch.empty(10)
        (of_a, of_b), again = addresses([a, b]), addresses([a.detach(), None])
        assert addresses([a[4:]]) == [of_a + 16]
    assert again == [of_a, 0]
    assert abs(of_a - of_b) >= 40
    assert of_a % 16 == 0
