"""DiffAugment: differentiable augmentation of reals and fakes, image by image.

    color        x + b;  (x - mean_c x) s + mean_c x;  (x - mean_chw x) c + mean_chw x
    translation  y[i, j] = x[i + shift_y, j + shift_x], zero outside
    cutout       zero in a window of half the side about a centre, clipped at the border

always in this order, nothing clamped. The three colour steps are one affine map of a pixel and two means:

    A x = c s x + c (1 - s) mean_c x + (1 - c) mean_chw x        color(x) = A x + b

A is symmetric, so the gradient is A of the masked, shifted-back output gradient: the same two passes, reduce and apply.

Source: Zhao et al., "Differentiable Augmentation for Data-Efficient GAN Training", NeurIPS 2020 (arXiv 2006.10738).
Layout: any strides; the output keeps channels-last where x is channels-last, else it is contiguous.
Bytes moved, each way: color reads the image twice and writes it once, the other policies read and write it once.
"""

import difflib
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fastgan_engine.kernels.arguments import MAP_DTYPES, check, check_device, check_shape
from fastgan_engine.kernels.diffaug_kernels import _diffaug_apply_kernel, _diffaug_reduce_kernel
from fastgan_engine.kernels.dispatch import Impl, assert_near, self_test, use_triton
from fastgan_engine.kernels.launch import cdiv, launch, next_power_of_2

POLICIES = ("color", "translation", "cutout")
TRANSLATION_RATIO, CUTOUT_RATIO = 0.125, 0.5
MAX_CHANNELS = 4
# Pixels of one program, and the most partial sums of one image.
BLOCK, MAX_CHUNKS = 256, 32


class DiffAugParams(NamedTuple):
    """One draw for a batch: tensors [B], None where the policy leaves the step out.

    brightness, saturation, contrast: float32. shift_y, shift_x: int64, pixels. cutout_y, cutout_x: int64, the window's
    centre.
    """

    brightness: Tensor | None = None
    saturation: Tensor | None = None
    contrast: Tensor | None = None
    shift_y: Tensor | None = None
    shift_x: Tensor | None = None
    cutout_y: Tensor | None = None
    cutout_x: Tensor | None = None

    def of(self, images: slice) -> "DiffAugParams":
        """The draw of a part of the batch."""
        return DiffAugParams(*(None if value is None else value[images] for value in self))


def parse_policy(policy: str) -> frozenset[str]:
    """The steps that a policy string names, such as "color,translation"; empty: none.

    Raises:
        ValueError: a name is unknown.
    """
    names = [name.strip() for name in policy.split(",")] if policy.strip() else []
    for name in names:
        if name not in POLICIES:
            near = difflib.get_close_matches(name, POLICIES, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"policy: got {name!r} in {policy!r}, expected names from {', '.join(POLICIES)}{hint}")
    return frozenset(names)


def draw_diffaug(
    batch: int,
    height: int,
    width: int,
    policy: str,
    *,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> DiffAugParams:
    """Draws the random numbers of one batch of images, on ``device`` and without a host wait.

    brightness ~ U(-.5, .5), saturation ~ U(0, 2), contrast ~ U(.5, 1.5); shifts are uniform over the integers up to an
    eighth of the side; the centre of the cutout over the pixels, and one past the last where the window's side is even.

    Raises:
        ValueError: the policy names an unknown step.
    """
    steps = parse_policy(policy)

    def uniform(low: float, high: float) -> Tensor:
        return torch.empty(batch, device=device).uniform_(low, high, generator=generator)

    def integers(y: tuple[int, int], x: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Two draws from low to high; of the same bounds, as of a square image, at once."""
        if y != x:
            return integers(y, y)[0], integers(x, x)[0]
        first, second = torch.randint(y[0], y[1] + 1, (2, batch), device=device, generator=generator)
        return first, second

    params = DiffAugParams()
    if "color" in steps:
        params = params._replace(brightness=uniform(-0.5, 0.5), saturation=uniform(0, 2), contrast=uniform(0.5, 1.5))
    if "translation" in steps:
        rows, columns = _part(height, TRANSLATION_RATIO), _part(width, TRANSLATION_RATIO)
        shift_y, shift_x = integers((-rows, rows), (-columns, columns))
        params = params._replace(shift_y=shift_y, shift_x=shift_x)
    if "cutout" in steps:
        rows, columns = _part(height, CUTOUT_RATIO), _part(width, CUTOUT_RATIO)
        cutout_y, cutout_x = integers((0, height - rows % 2), (0, width - columns % 2))
        params = params._replace(cutout_y=cutout_y, cutout_x=cutout_x)
    return params


def _part(side: int, ratio: float) -> int:
    return int(side * ratio + 0.5)


def diffaug_reference(x: Tensor, params: DiffAugParams) -> Tensor:
    """The augmented batch in plain PyTorch: float32 arithmetic (float64 for float64), result in the dtype of x."""
    return _ReferenceFunction.apply(x, params)


class _ReferenceFunction(torch.autograd.Function):
    """Its own backward, because autograd's gradient of an indexed read is a slow scatter."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, params: DiffAugParams) -> Tensor:
        ctx.params, ctx.memory_format = params, _memory_format(x)
        y = x if params.contrast is None else _color(x, params, params.brightness)
        return _move(y, params, 1).contiguous(memory_format=_memory_format(x))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        g = _move(grad, ctx.params, -1)
        g = g if ctx.params.contrast is None else _color(g, ctx.params, None)
        return g.contiguous(memory_format=ctx.memory_format), None


def _memory_format(x: Tensor) -> torch.memory_format:
    return torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format


def _color(x: Tensor, params: DiffAugParams, brightness: Tensor | None) -> Tensor:
    """A x, plus the brightness where there is one, in the dtype of x."""
    assert params.saturation is not None
    assert params.contrast is not None
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    s, c = (value.to(wide.dtype).view(-1, 1, 1, 1) for value in (params.saturation, params.contrast))
    pixel = sum(wide.split(1, dim=1)) / wide.shape[1]
    constant = (1 - c) * pixel.mean((2, 3), keepdim=True)
    if brightness is not None:
        constant = constant + brightness.to(wide.dtype).view(-1, 1, 1, 1)
    return torch.addcmul(pixel.mul_(c * (1 - s)).add_(constant), wide, c * s).to(x.dtype)


def _move(x: Tensor, params: DiffAugParams, direction: int) -> Tensor:
    """Translation and cutout (direction 1) or their adjoint (-1): each pixel is one pixel of x, or zero."""
    if params.shift_y is None and params.cutout_y is None:
        return x
    rows, inside_y, cut_y = _axis(x.shape[2], params.shift_y, params.cutout_y, direction, x.device)
    columns, inside_x, cut_x = _axis(x.shape[3], params.shift_x, params.cutout_x, direction, x.device)
    zero = ~(inside_y[:, :, None] & inside_x[:, None, :])
    if params.cutout_y is not None:
        zero = zero | (cut_y[:, :, None] & cut_x[:, None, :])
    y = x.permute(0, 2, 3, 1)
    if params.shift_y is not None:
        batch, height, width, channels = y.shape
        first_row = torch.arange(0, batch * height, height, device=x.device)[:, None]
        row = (first_row + rows.clamp(0, height - 1))[:, :, None]
        pixel = row * width + columns.clamp(0, width - 1)[:, None, :]
        # Whole pixels by one index: several times faster on the CPU than an index an axis.
        y = y.reshape(-1, channels).index_select(0, pixel.flatten()).view_as(y)
    return y.masked_fill(zero[..., None], 0).permute(0, 3, 1, 2)


def _axis(
    side: int, shift: Tensor | None, centre: Tensor | None, direction: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Along one axis, per image and position: where it reads, whether that is inside, whether it is cut out."""
    position = torch.arange(side, device=device)[None]
    source = position if shift is None else position + direction * shift[:, None]
    # The window lies in the output of the augmentation, which the adjoint reads.
    seen = position if direction > 0 else source
    size = _part(side, CUTOUT_RATIO)
    start = seen if centre is None else centre[:, None] - size // 2
    return source, (source >= 0) & (source < side), (seen >= start) & (seen < start + size)


def _launch(x: Tensor, params: DiffAugParams, memory_format: torch.memory_format, *, adjoint: bool) -> Tensor:
    """Both passes over the images ``x``: [B, C, H, W], or over their gradients."""
    batch, channels, height, width = x.shape
    y = torch.empty_like(x, memory_format=memory_format)
    meta = {
        "CHANNELS": channels, "PADDED": next_power_of_2(channels), "BLOCK": BLOCK,
        "CUT_Y": _part(height, CUTOUT_RATIO), "CUT_X": _part(width, CUTOUT_RATIO),
    }  # fmt: skip
    geometry = params[3:]
    partial, chunks = None, 0
    if params.contrast is not None:
        steps = cdiv(height * width, BLOCK * MAX_CHUNKS)
        chunks = cdiv(height * width, BLOCK * steps)
        partial = torch.empty(batch, chunks, dtype=torch.float32, device=x.device)
        launch(
            _diffaug_reduce_kernel, (batch, chunks), x, partial, *geometry, height, width, *x.stride(), steps,
            MASKED=adjoint, **meta,
        )  # fmt: skip
    launch(
        _diffaug_apply_kernel, (batch, cdiv(height * width, BLOCK)), x, y, partial, *params[:3], *geometry,
        height, width, *x.stride(), *y.stride(), chunks,
        ADJOINT=adjoint, CHUNKS=next_power_of_2(max(chunks, 1)), **meta,
    )  # fmt: skip
    return y


class _DiffAugFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, params: DiffAugParams) -> Tensor:
        ctx.params, ctx.memory_format = params, _memory_format(x)
        return _launch(x, params, ctx.memory_format, adjoint=False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _launch(grad, ctx.params, ctx.memory_format, adjoint=True), None


def diffaug(x: Tensor, params: DiffAugParams, *, impl: Impl = "auto") -> Tensor:
    """The batch of images ``x``: [B, C, H, W] with C in 1..4, augmented by ``params`` (``draw_diffaug``).

    float32, float16 or bfloat16 (the reference also float64); arithmetic in float32. Differentiable in x. The same
    draw may be applied to several tensors.

    Raises:
        ValueError: wrong shape or dtype of x, or params of another batch size or device.
        RuntimeError: ``impl="triton"`` cannot run here.
    """
    check_shape("x", x, (None,) * 4)
    check(1 <= x.shape[1] <= MAX_CHANNELS, "x", f"{x.shape[1]} channels", f"1 to {MAX_CHANNELS}")
    check(x.numel() > 0, "x", f"the empty shape {tuple(x.shape)}", "at least one element")
    check(x.dtype in MAP_DTYPES, "x", x.dtype, "float32, float16 or bfloat16 (float64 for the reference)")
    for name, value in params._asdict().items():
        if value is not None:
            check_shape(f"params.{name}", value, (x.shape[0],))
            check_device(f"params.{name}", value, x)
    if all(value is None for value in params):
        return x
    if use_triton("diffaug", impl, x):
        return _DiffAugFunction.apply(x, params)
    return diffaug_reference(x, params)


@self_test("diffaug")
def _self_test(device: torch.device, dtype: torch.dtype) -> None:
    generator = torch.Generator(device).manual_seed(0)
    x = torch.randn(3, 3, 33, 41, generator=generator, device=device).to(dtype)
    grad = torch.randn(x.shape, generator=generator, device=device).to(dtype)
    params = draw_diffaug(3, 33, 41, ",".join(POLICIES), generator=generator, device=device)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        results = []
        for function, wanted in ((_DiffAugFunction, dtype), (_ReferenceFunction, torch.float64)):
            leaf = x.detach().to(wanted, memory_format=memory_format).requires_grad_()
            y = function.apply(leaf, params)
            y.backward(grad.to(wanted))
            results.append((y.detach(), leaf.grad))
        assert_near("diffaug", *results)
