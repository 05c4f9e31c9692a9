"""Hinge losses of the discriminator with margins drawn per logit.

    real: mean(relu(m - logit))        fake: mean(relu(m + logit))        m ~ U[0.8, 1)

Both are mean(relu(m + sign * logit)), sign -1 or +1; the gradient of a logit is sign / n where its term is positive.
Where all margins are 1 this is the plain hinge loss.

Source: the training loop released with Liu et al., ICLR 2021 (arXiv 2101.04775).
Layout: reals and fakes go through D as one batch, so their logits are one tensor, image by image; the margins are in
the released order, those of the first scale for all images, then those of the next. A few thousand numbers: one
launch each way for both losses, one program a loss forward, no atomics.
Bytes moved: forward reads logits and margins; backward reads both and writes the logits' gradient.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fastgan_engine.kernels.arguments import check, check_device, check_shape
from fastgan_engine.kernels.dispatch import Impl, assert_near, self_test, use_triton
from fastgan_engine.kernels.launch import cdiv, jit, launch, tl

MARGIN_LOW, MARGIN_HIGH = 0.8, 1.0
BLOCK = 1024


def draw_margins(like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Margins ~ U[0.8, 1), float32, in the shape and on the device of the logits ``like``."""
    margins = torch.empty(like.shape, dtype=torch.float32, device=like.device)
    return margins.uniform_(MARGIN_LOW, MARGIN_HIGH, generator=generator)


def hinge_real(logits: Tensor, margins: Tensor) -> Tensor:
    """Loss of logits of real images, a scalar: mean(relu(margin - logit)) over all of them, in plain PyTorch.

    logits, margins: one shape; float32 arithmetic (float64 for float64 logits).

    Raises:
        ValueError: no logits, or margins of another shape or device.
    """
    return _mean(logits, margins, -1)


def hinge_fake(logits: Tensor, margins: Tensor) -> Tensor:
    """Loss of logits of generated images: mean(relu(margin + logit)) over all of them. Else as ``hinge_real``."""
    return _mean(logits, margins, 1)


def _mean(logits: Tensor, margins: Tensor, sign: int) -> Tensor:
    check(logits.numel() > 0, "logits", f"the empty shape {tuple(logits.shape)}", "at least one logit")
    check_shape("margins", margins, logits.shape)
    check_device("margins", margins, logits)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return torch.relu(torch.add(margins.to(logits.dtype), logits, alpha=sign)).mean()


def hinge_reference(logits: Tensor, margins_real: Tensor, margins_fake: Tensor, scales: int = 1) -> Tensor:
    """``hinge`` in plain PyTorch."""
    real, fake = (part.unflatten(1, (scales, -1)).transpose(0, 1).flatten() for part in logits.chunk(2))
    return torch.stack([hinge_real(real, margins_real), hinge_fake(fake, margins_fake)])


@jit
def _load_terms(
    logits_ptr, margins_real_ptr, margins_fake_ptr, half, index, images, per_scale,
    SCALES: tl.constexpr,
):  # fmt: skip
    """Of one half (0 real, 1 fake) the terms before the ReLU at these positions, in released order, and offsets."""
    count = images * SCALES * per_scale
    mask = index < count
    scale, image, logit = index // (images * per_scale), index // per_scale % images, index % per_scale
    offset = half * count + (image * SCALES + scale) * per_scale + logit
    logits = tl.load(logits_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    # Of the two one is masked, and 0.
    margins = tl.load(margins_real_ptr + index, mask=index < (1 - half) * count, other=0.0)
    margins += tl.load(margins_fake_ptr + index, mask=index < half * count, other=0.0)
    return margins + (half * 2 - 1) * logits, offset, mask


@jit
def _hinge_fwd_kernel(
    logits_ptr, margins_real_ptr, margins_fake_ptr, losses_ptr, images, per_scale,
    SCALES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    half = tl.program_id(0)
    count = images * SCALES * per_scale
    total = tl.zeros([BLOCK], dtype=tl.float32)
    for start in range(0, count, BLOCK):
        index = start + tl.arange(0, BLOCK)
        terms, _, mask = _load_terms(
            logits_ptr, margins_real_ptr, margins_fake_ptr, half, index, images, per_scale, SCALES
        )
        total += tl.where(mask, tl.maximum(terms, 0.0, propagate_nan=tl.PropagateNan.ALL), 0.0)
    tl.store(losses_ptr + half, tl.sum(total) / count)


@jit
def _hinge_bwd_kernel(
    grad_losses_ptr, grad_stride, logits_ptr, margins_real_ptr, margins_fake_ptr, grad_logits_ptr, images, per_scale,
    SCALES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    half = tl.program_id(0)
    index = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    terms, offset, mask = _load_terms(
        logits_ptr, margins_real_ptr, margins_fake_ptr, half, index, images, per_scale, SCALES
    )
    grad = tl.load(grad_losses_ptr + half * grad_stride).to(tl.float32) * (half * 2 - 1)
    grad = tl.where(terms <= 0.0, 0.0, grad / (images * SCALES * per_scale))
    tl.store(grad_logits_ptr + offset, grad.to(grad_logits_ptr.dtype.element_ty), mask=mask)


class _HingeFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, margins_real: Tensor, margins_fake: Tensor, scales: int) -> Tensor:
        logits = logits.contiguous()
        losses = torch.empty(2, dtype=torch.float32, device=logits.device)
        ctx.sizes = logits.shape[0] // 2, logits.shape[1] // scales
        ctx.scales = scales
        launch(
            _hinge_fwd_kernel, (2,), logits, margins_real, margins_fake, losses, *ctx.sizes, SCALES=scales, BLOCK=BLOCK
        )
        ctx.save_for_backward(logits, margins_real, margins_fake)
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        saved = ctx.saved_tensors
        grad_logits = torch.empty_like(saved[0])
        grid = (2, cdiv(saved[1].numel(), BLOCK))
        launch(
            _hinge_bwd_kernel, grid, grad, grad.stride(0), *saved, grad_logits, *ctx.sizes,
            SCALES=ctx.scales, BLOCK=BLOCK,
        )  # fmt: skip
        return grad_logits, None, None, None


def hinge(
    logits: Tensor, margins_real: Tensor, margins_fake: Tensor, *, scales: int = 1, impl: Impl = "auto"
) -> Tensor:
    """The losses [2], float32: ``hinge_real`` of the first half of the batch, ``hinge_fake`` of the second.

    logits: [2B, n], float32, float16 or bfloat16 (the reference also float64), of each image those of ``scales`` scales
    one after the other; margins: [B n] each, float32, contiguous: those of the first scale for all images, then those
    of the next.

    Raises:
        ValueError: no logits, an odd batch, a number of logits that ``scales`` does not divide, or margins of another
            shape, dtype, device or layout.
        RuntimeError: ``impl="triton"`` cannot run here.
    """
    check_shape("logits", logits, (None, None))
    check(logits.numel() > 0, "logits", f"the empty shape {tuple(logits.shape)}", "at least one logit")
    check(logits.shape[0] % 2 == 0, "logits", f"a batch of {logits.shape[0]}", "an even one, reals and fakes")
    check(logits.shape[1] % scales == 0, "scales", scales, f"a divisor of the {logits.shape[1]} logits of an image")
    for name, margins in (("margins_real", margins_real), ("margins_fake", margins_fake)):
        check_shape(name, margins, (logits.numel() // 2,))
        check_device(name, margins, logits)
    if not use_triton("hinge", impl, logits):
        return hinge_reference(logits, margins_real, margins_fake, scales)
    for name, margins in (("margins_real", margins_real), ("margins_fake", margins_fake)):
        check(margins.dtype == torch.float32, name, margins.dtype, "float32")
        check(margins.is_contiguous(), name, f"strides {margins.stride()}", "a contiguous tensor")
    return _HingeFunction.apply(logits, margins_real, margins_fake, scales)


@self_test("hinge")
def _self_test(device: torch.device, dtype: torch.dtype) -> None:
    generator = torch.Generator(device).manual_seed(0)
    logits = torch.randn(6, 1110, generator=generator, device=device).to(dtype)
    real, fake = draw_margins(torch.empty(2, 3 * 1110, device=device), generator)
    results = []
    for triton, x in ((True, logits.clone()), (False, logits.double())):
        x.requires_grad_()
        losses = _HingeFunction.apply(x, real, fake, 5) if triton else hinge_reference(x, real, fake, 5)
        losses.backward(torch.tensor([1.0, 3.0], device=device).to(losses.dtype))
        results.append((losses.detach(), x.grad))
    assert_near("hinge", *results)
