"""Hinge loss of the discriminator with margins drawn per logit.

    real: mean(relu(m - logit))        fake: mean(relu(m + logit))        m ~ U[0.8, 1)

Both are mean(relu(m + sign * logit)), sign -1 or +1; the gradient of a logit is sign / n where its term is positive.
Where all margins are 1 this is the plain hinge loss.

Source: the training loop released with Liu et al., ICLR 2021 (arXiv 2101.04775).
Layout: any shape, one margin a logit. A few thousand numbers: one program, one launch each way, no atomics.
Bytes moved: forward reads logits and margins; backward reads both and writes the logits' gradient.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fastgan_engine.kernels.arguments import check_device, check_shape
from fastgan_engine.kernels.dispatch import Impl, assert_near, self_test, use_triton
from fastgan_engine.kernels.launch import jit, launch, tl

MARGIN_LOW, MARGIN_HIGH = 0.8, 1.0
BLOCK = 1024


def draw_margins(like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Margins ~ U[0.8, 1), float32, in the shape and on the device of the logits ``like``."""
    margins = torch.empty(like.shape, dtype=torch.float32, device=like.device)
    return margins.uniform_(MARGIN_LOW, MARGIN_HIGH, generator=generator)


def hinge_reference(logits: Tensor, margins: Tensor, sign: int) -> Tensor:
    """Mean of relu(m + sign * logit), a scalar, in float32 (float64 for float64 logits)."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return torch.relu(torch.add(margins.to(logits.dtype), logits, alpha=sign)).mean()


@jit
def _hinge_fwd_kernel(logits_ptr, margins_ptr, loss_ptr, n, SIGN: tl.constexpr, BLOCK: tl.constexpr):
    total = tl.zeros([BLOCK], dtype=tl.float32)
    for start in range(0, n, BLOCK):
        index = start + tl.arange(0, BLOCK)
        mask = index < n
        logits = tl.load(logits_ptr + index, mask=mask, other=0.0).to(tl.float32)
        margins = tl.load(margins_ptr + index, mask=mask, other=0.0)
        total += tl.maximum(margins + SIGN * logits, 0.0, propagate_nan=tl.PropagateNan.ALL)
    tl.store(loss_ptr, tl.sum(total) / n)


@jit
def _hinge_bwd_kernel(
    grad_loss_ptr, logits_ptr, margins_ptr, grad_logits_ptr, n, SIGN: tl.constexpr, BLOCK: tl.constexpr
):
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = index < n
    logits = tl.load(logits_ptr + index, mask=mask, other=0.0).to(tl.float32)
    margins = tl.load(margins_ptr + index, mask=mask, other=0.0)
    grad = tl.load(grad_loss_ptr).to(tl.float32) * SIGN / n
    grad = tl.where(margins + SIGN * logits <= 0.0, 0.0, grad)
    tl.store(grad_logits_ptr + index, grad.to(grad_logits_ptr.dtype.element_ty), mask=mask)


class _HingeFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, margins: Tensor, sign: int) -> Tensor:
        logits, margins = logits.contiguous(), margins.contiguous()
        loss = torch.empty((), dtype=torch.float32, device=logits.device)
        launch(_hinge_fwd_kernel, (1,), logits, margins, loss, logits.numel(), SIGN=sign, BLOCK=BLOCK)
        ctx.save_for_backward(logits, margins)
        ctx.sign = sign
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor, None, None]:
        logits, margins = ctx.saved_tensors
        grad_logits = torch.empty_like(logits)
        n = logits.numel()
        grid = (-(-n // BLOCK),)
        launch(_hinge_bwd_kernel, grid, grad_loss, logits, margins, grad_logits, n, SIGN=ctx.sign, BLOCK=BLOCK)
        return grad_logits, None, None


def hinge_real(logits: Tensor, margins: Tensor, *, impl: Impl = "auto") -> Tensor:
    """Loss of logits of real images: mean(relu(margin - logit)) over all of them.

    logits: any shape, float32, float16 or bfloat16; margins: the same shape, float32 (``draw_margins``).
    Returns a float32 scalar.

    Raises:
        ValueError: no logits, or margins of another shape or device.
        RuntimeError: ``impl="triton"`` cannot run here.
    """
    return _hinge(logits, margins, -1, impl)


def hinge_fake(logits: Tensor, margins: Tensor, *, impl: Impl = "auto") -> Tensor:
    """Loss of logits of generated images: mean(relu(margin + logit)) over all of them. Else as ``hinge_real``."""
    return _hinge(logits, margins, 1, impl)


def _hinge(logits: Tensor, margins: Tensor, sign: int, impl: Impl) -> Tensor:
    if logits.numel() == 0:
        raise ValueError(f"logits: got the empty shape {tuple(logits.shape)}, expected at least one logit")
    check_shape("margins", margins, logits.shape)
    check_device("margins", margins, logits)
    if use_triton("hinge", impl, logits):
        return _HingeFunction.apply(logits, margins.float(), sign)
    return hinge_reference(logits, margins, sign)


@self_test("hinge", dtype=torch.float32)
def _self_test(device: torch.device, dtype: torch.dtype) -> None:
    generator = torch.Generator(device).manual_seed(0)
    logits = torch.randn(1111, generator=generator, device=device).to(dtype)
    margins = draw_margins(logits, generator)
    for sign in (-1, 1):
        results = []
        for function, x in ((_HingeFunction.apply, logits.clone()), (hinge_reference, logits.double())):
            x.requires_grad_()
            loss = function(x, margins, sign)
            loss.backward()
            results.append((loss.detach(), x.grad))
        assert_near("hinge", *results)
