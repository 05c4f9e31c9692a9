"""From resident or streamed uint8 images to a training batch: gather by index, flip, scale to [-1, 1].

    y[b, c, i, j] = cache[index_b, i, j or W - 1 - j, c] / 127.5 - 1

Layout: the cache [N, H, W, C] as decoded; the batch [B, C, H, W] channels-last, which is the same order of elements.
Bytes moved: the images of the batch read once as uint8, written once in the dtype asked for.
"""

import torch
from torch import Tensor

from fastgan_engine.kernels.arguments import KERNEL_DTYPES, check, check_device, check_shape
from fastgan_engine.kernels.dispatch import Impl, assert_near, self_test, use_triton
from fastgan_engine.kernels.launch import cdiv, jit, launch, tl

HALF_RANGE = 127.5
# Elements of one program.
BLOCK = 2048


def gather_batch_reference(cache: Tensor, indices: Tensor, flips: Tensor, dtype: torch.dtype) -> Tensor:
    """The batch in plain PyTorch: float32 arithmetic (float64 for float64)."""
    images = cache.index_select(0, indices)
    return to_float(torch.where(flips[:, None, None, None], images.flip(2), images), dtype)


def to_float(images: Tensor, dtype: torch.dtype) -> Tensor:
    """uint8 images [B, H, W, C] -> [B, C, H, W], channels-last, in [-1, 1]: float32 arithmetic, rounded to ``dtype``.

    Raises:
        ValueError: wrong shape or dtype.
    """
    check_shape("images", images, (None,) * 4)
    check(images.dtype == torch.uint8, "images", images.dtype, "uint8")
    check(dtype in (*KERNEL_DTYPES, torch.float64), "dtype", dtype, "float32, float16, bfloat16 or float64")
    wide = images.to(torch.promote_types(dtype, torch.float32), memory_format=torch.contiguous_format)
    return wide.div_(HALF_RANGE).sub_(1).to(dtype).permute(0, 3, 1, 2)


@jit
def _gather_batch_kernel(
    cache_ptr, indices_ptr, flips_ptr, out_ptr, size, width, channels, HALF_RANGE: tl.constexpr, BLOCK: tl.constexpr
):
    """A block of elements of one image; ``size`` is their number in an image."""
    image = tl.program_id(0)
    element = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = element < size
    channel, column = element % channels, element // channels % width
    mirrored = element - channel + (width - 1 - 2 * column) * channels + channel
    source = tl.where(tl.load(flips_ptr + image) != 0, mirrored, element)
    x = tl.load(cache_ptr + tl.load(indices_ptr + image).to(tl.int64) * size + source, mask=mask, other=0)
    y = tl.div_rn(x.to(tl.float32), tl.full([BLOCK], HALF_RANGE, tl.float32)) - 1.0
    tl.store(out_ptr + image.to(tl.int64) * size + element, y.to(out_ptr.dtype.element_ty), mask=mask)


def _launch(cache: Tensor, indices: Tensor, flips: Tensor, dtype: torch.dtype) -> Tensor:
    _, height, width, channels = cache.shape
    size = height * width * channels
    out = torch.empty(len(indices), height, width, channels, dtype=dtype, device=cache.device)
    launch(
        _gather_batch_kernel, (len(indices), cdiv(size, BLOCK)), cache, indices, flips, out, size, width, channels,
        HALF_RANGE=HALF_RANGE, BLOCK=BLOCK,
    )  # fmt: skip
    return out.permute(0, 3, 1, 2)


def gather_batch(cache: Tensor, indices: Tensor, flips: Tensor, dtype: torch.dtype, *, impl: Impl = "auto") -> Tensor:
    """The images ``indices`` of a resident cache as a batch [B, C, H, W], channels-last, in [-1, 1].

    cache: [N, H, W, C], uint8, contiguous; indices: [B], int32 or int64, each in [0, N), which the kernel does not
    check, since that would need a host wait; flips: [B], bool: mirrored left to right. ``dtype``: float32, float16 or
    bfloat16 (the reference also float64).

    Raises:
        ValueError: wrong shape, dtype, device or layout.
        RuntimeError: ``impl="triton"`` cannot run here.
    """
    check_shape("cache", cache, (None,) * 4)
    check(cache.numel() > 0, "cache", f"the empty shape {tuple(cache.shape)}", "at least one image")
    check(cache.dtype == torch.uint8, "cache", cache.dtype, "uint8")
    check(cache.is_contiguous(), "cache", f"strides {cache.stride()}", "a contiguous tensor")
    check_shape("indices", indices, (None,))
    check(indices.dtype in (torch.int32, torch.int64), "indices", indices.dtype, "int32 or int64")
    check_shape("flips", flips, (len(indices),))
    check(flips.dtype == torch.bool, "flips", flips.dtype, "bool")
    for name, tensor in (("indices", indices), ("flips", flips)):
        check_device(name, tensor, cache)
        check(tensor.is_contiguous(), name, f"strides {tensor.stride()}", "a contiguous tensor")
    like = torch.empty(0, dtype=dtype, device=cache.device)
    if use_triton("batch", impl, like):
        return _launch(cache, indices, flips, dtype)
    return gather_batch_reference(cache, indices, flips, dtype)


@self_test("batch")
def _self_test(device: torch.device, dtype: torch.dtype) -> None:
    generator = torch.Generator(device).manual_seed(0)
    cache = torch.randint(0, 256, (5, 31, 29, 3), generator=generator, device=device, dtype=torch.uint8)
    indices, flips = torch.tensor([4, 0, 4], device=device), torch.tensor([True, False, False], device=device)
    got, expected = _launch(cache, indices, flips, dtype), gather_batch_reference(cache, indices, flips, torch.float64)
    assert_near("batch", [got], [expected])
