"""The Triton side of ``adam_ema``: one launch over chunks of all tensors (two where some are not of whole 16 bytes),
after a small one that moves their step counts.

Which chunk of which tensor a program works on, and where the tensors lie, stands in tables on the device.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fastgan_engine.kernels.launch import cdiv, jit, launch, tl
from fastgan_engine.kernels.tables import (
    MovingAddresses,
    address_table,
    addresses,
    begins_aligned,
    pointer_at,
    split_by_alignment,
    table,
)

# Elements that one program works on.
CHUNK = 1024
# Tensors whose step counts one program moves at once.
TENSORS = 256
# Elements of float32 in a wide memory access.
WIDE = 4


@jit
def _adam_chunk(chunks_ptr, sizes_ptr, ALIGNED: tl.constexpr, CHUNK: tl.constexpr):
    """Of this program's chunk: its tensor, offsets in it, and mask."""
    tensor, chunk = tl.load(chunks_ptr + tl.program_id(0) * 2), tl.load(chunks_ptr + tl.program_id(0) * 2 + 1)
    size = tl.load(sizes_ptr + tensor)
    if ALIGNED:
        size = tl.multiple_of(size, 4)
    index = chunk.to(tl.int64) * CHUNK + tl.arange(0, CHUNK)
    return tensor, index, index < size


@jit
def _adam_advance_kernel(
    grads_ptr, found_inf_ptr, steps_ptr, corrections_ptr, count, log_beta1, log_beta2, BLOCK: tl.constexpr
):  # fmt: skip
    """One program: step counts of the tensors that are to move, and 1 - beta1^t and 1 - beta2^t of all."""
    for start in range(0, count, BLOCK):
        tensor = start + tl.arange(0, BLOCK)
        mask = tensor < count
        moved = tl.where(tl.load(grads_ptr + tensor, mask=mask, other=0) != 0, 1.0, 0.0)
        if found_inf_ptr is not None:
            moved = tl.where(tl.load(found_inf_ptr) == 0.0, moved, 0.0)
        step = tl.load(steps_ptr + tensor, mask=mask, other=1.0) + moved
        tl.store(steps_ptr + tensor, step, mask=mask)
        # In float64: in float32 the difference of 1 and beta^t would lose its digits.
        for moment in tl.static_range(2):
            log_beta = log_beta1 if moment == 0 else log_beta2
            correction = 1.0 - tl.exp(step.to(tl.float64) * log_beta)
            tl.store(corrections_ptr + tensor * 2 + moment, correction.to(tl.float32), mask=mask)


@jit
def _adam_ema_kernel(
    chunks_ptr, sizes_ptr, params_ptr, grads_ptr, exp_avgs_ptr, exp_avg_sqs_ptr, emas_ptr, copies_ptr,
    corrections_ptr, scale_ptr, found_inf_ptr, lr, rate1, beta2, rate2, eps, ema_rate,
    BF16: tl.constexpr, ALIGNED: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """rate1, rate2, ema_rate: one minus beta1, beta2, decay. Corrections: 1 - beta1^t and 1 - beta2^t by tensor."""
    tensor, index, mask = _adam_chunk(chunks_ptr, sizes_ptr, ALIGNED, CHUNK)
    param_ptr = pointer_at(params_ptr, tensor, tl.float32, ALIGNED)
    param = tl.load(param_ptr + index, mask=mask, other=0.0)
    live = tl.load(grads_ptr + tensor) != 0
    if found_inf_ptr is not None:
        live &= tl.load(found_inf_ptr) == 0.0
    if live:
        grad_ptr = pointer_at(grads_ptr, tensor, tl.float32, ALIGNED)
        exp_avg_ptr = pointer_at(exp_avgs_ptr, tensor, tl.float32, ALIGNED)
        exp_avg_sq_ptr = pointer_at(exp_avg_sqs_ptr, tensor, tl.float32, ALIGNED)
        grad = tl.load(grad_ptr + index, mask=mask, other=0.0)
        if scale_ptr is not None:
            grad /= tl.load(scale_ptr)
        exp_avg = tl.load(exp_avg_ptr + index, mask=mask, other=0.0)
        exp_avg_sq = tl.load(exp_avg_sq_ptr + index, mask=mask, other=0.0)
        exp_avg += rate1 * (grad - exp_avg)
        exp_avg_sq = beta2 * exp_avg_sq + rate2 * grad * grad
        correction1, correction2 = tl.load(corrections_ptr + tensor * 2), tl.load(corrections_ptr + tensor * 2 + 1)
        param -= lr / correction1 * exp_avg / (tl.sqrt(exp_avg_sq) / tl.sqrt(correction2) + eps)
        tl.store(exp_avg_ptr + index, exp_avg, mask=mask)
        tl.store(exp_avg_sq_ptr + index, exp_avg_sq, mask=mask)
        tl.store(param_ptr + index, param, mask=mask)
        if copies_ptr is not None:
            COPY: tl.constexpr = tl.bfloat16 if BF16 else tl.float16
            tl.store(pointer_at(copies_ptr, tensor, COPY, ALIGNED) + index, param.to(COPY), mask=mask)
    if emas_ptr is not None:
        ema_ptr = pointer_at(emas_ptr, tensor, tl.float32, ALIGNED)
        ema = tl.load(ema_ptr + index, mask=mask, other=0.0)
        tl.store(ema_ptr + index, ema + ema_rate * (param - ema), mask=mask)


@jit
def _adam_nonfinite_kernel(
    chunks_ptr, sizes_ptr, grads_ptr, partial_ptr, first, ALIGNED: tl.constexpr, CHUNK: tl.constexpr
):
    """1 where a chunk of a gradient holds an inf or a NaN, else 0."""
    tensor, index, mask = _adam_chunk(chunks_ptr, sizes_ptr, ALIGNED, CHUNK)
    found = 0.0
    if tl.load(grads_ptr + tensor) != 0:
        grad = tl.load(pointer_at(grads_ptr, tensor, tl.float32, ALIGNED) + index, mask=mask, other=0.0)
        found = tl.max(tl.where(tl.abs(grad) < float("inf"), 0.0, 1.0), axis=0)
    tl.store(partial_ptr + first + tl.program_id(0), found)


class State(NamedTuple):
    """All tensors of an optimizer, one of each kind a weight; averages and copies only where they are kept."""

    weights: list[Tensor]
    exp_avgs: list[Tensor]
    exp_avg_sqs: list[Tensor]
    emas: list[Tensor] | None
    copies: list[Tensor] | None
    steps: Tensor


class Rates(NamedTuple):
    """The numbers of one step; ``decay`` is that of the averages."""

    lr: float
    beta1: float
    beta2: float
    eps: float
    decay: float


class Plan:
    """Tables of the tensors of one optimizer on their device, and the launches over them."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.device = state.weights[0].device
        self.grads_at = MovingAddresses(self.device)
        self._now = addresses(state.weights)
        kinds = (state.weights, state.exp_avgs, state.exp_avg_sqs, state.emas, state.copies)
        self.at = [None if kind is None else address_table(kind, self.device) for kind in kinds]
        sizes = [weight.numel() for weight in state.weights]
        aligned = [
            size % WIDE == 0 and all(begins_aligned(kind[index]) for kind in kinds if kind is not None)
            for index, size in enumerate(sizes)
        ]
        self.sizes = table(sizes, torch.int64, self.device)
        self.chunks = split_by_alignment(
            aligned,
            [[(index, chunk) for chunk in range(cdiv(size, CHUNK))] for index, size in enumerate(sizes)],
            self.device,
        )
        self.bf16 = state.copies is not None and state.copies[0].dtype == torch.bfloat16

    def is_current(self) -> bool:
        """Whether the weights still lie where they did."""
        return addresses(self.state.weights) == self._now

    def step(
        self, grads: Sequence[Tensor | None], rates: Rates, grad_scale: Tensor | None, found_inf: Tensor | None
    ) -> None:
        grads_at = self.grads_at.table(grads)
        steps = self.state.steps
        corrections = torch.empty(len(steps), 2, dtype=torch.float32, device=self.device)
        launch(
            _adam_advance_kernel, (1,), grads_at, found_inf, steps, corrections, len(steps),
            *(math.log(beta) if beta else -math.inf for beta in (rates.beta1, rates.beta2)), BLOCK=TENSORS,
        )  # fmt: skip
        for aligned, chunks in self.chunks:
            launch(
                _adam_ema_kernel, (len(chunks),), chunks, self.sizes, self.at[0], grads_at, *self.at[1:], corrections,
                grad_scale, found_inf,
                rates.lr, 1 - rates.beta1, rates.beta2, 1 - rates.beta2, rates.eps, 1 - rates.decay,
                BF16=self.bf16, ALIGNED=aligned, CHUNK=CHUNK,
            )  # fmt: skip

    def find_inf(self, grads: Sequence[Tensor | None]) -> Tensor:
        grads_at = self.grads_at.table(grads)
        count, first = sum(len(chunks) for _, chunks in self.chunks), 0
        partial = torch.empty(count, dtype=torch.float32, device=self.device)
        for aligned, chunks in self.chunks:
            launch(
                _adam_nonfinite_kernel, (len(chunks),), chunks, self.sizes, grads_at, partial, first,
                ALIGNED=aligned, CHUNK=CHUNK,
            )  # fmt: skip
            first += len(chunks)
        return partial.amax()
