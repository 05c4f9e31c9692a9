"""Adam, the moving average of the weights and their low-precision copy: one pass over memory for all tensors.

    g = grad / scale,   m = m + (1 - beta1) (g - m),   v = beta2 v + (1 - beta2) g^2
    p = p - lr / (1 - beta1^t) m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
    ema = ema + (1 - decay) (p - ema),   copy = p in its dtype

The scale of the loss and the flag of a non-finite gradient are tensors on the device, so that nothing waits for them.
Where the flag is set, weights, moments and step counts stay as they are; the average still moves towards the weights,
as it does in the released loop, which averages after every iteration.

Source: Kingma and Ba, "Adam", ICLR 2015 (arXiv 1412.6980), in the arithmetic of ``torch.optim.Adam``; the average: the
training loop released with Liu et al., ICLR 2021 (arXiv 2101.04775).
Layout: any dense layout; moments, averages and copies are laid out as their weights, so that memory order is all.
Bytes moved: an element of p, m, v (and ema) is read and written once, grad read, copy written; the check for non-finite
gradients reads them once.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.adam import adam

from fastgan_engine.kernels import adam_ema_kernels
from fastgan_engine.kernels.arguments import check, check_device, check_shape
from fastgan_engine.kernels.dispatch import Impl, assert_near, self_test, use_triton
from fastgan_engine.kernels.tables import begins_aligned, same_strides


class AdamEma(torch.optim.Adam):
    """``torch.optim.Adam`` that also keeps an average and a low-precision copy of its weights.

    Its state dict loads into ``torch.optim.Adam`` and the reverse (``exp_avg``, ``exp_avg_sq``, ``step``). No weight
    decay, AMSGrad or maximising. Follows the protocol of ``torch.amp.GradScaler`` for fused optimizers.

    Args:
        params: the weights, float32 (float64 for the reference), all on one device.
        lr, betas, eps: as in Adam.
        emas: for each weight its average, moved by every step; None: none are kept.
        decay: of the averages.
        copies: for each weight a float16 or bfloat16 tensor that every step fills; None: none are kept.

    Raises:
        ValueError: an average or copy of another number, shape, dtype, device or layout, or an unsupported state.
        RuntimeError: ``impl="triton"`` cannot run here.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        *,
        emas: Iterable[Tensor] | None = None,
        decay: float = 0.999,
        copies: Iterable[Tensor] | None = None,
        impl: Impl = "auto",
    ) -> None:
        self.weights = list(params)
        super().__init__(self.weights, lr=lr, betas=betas, eps=eps, fused=True)
        self.decay = decay
        self.emas, self.copies = None if emas is None else list(emas), None if copies is None else list(copies)
        first = self.weights[0]
        for index, weight in enumerate(self.weights):
            name = f"params[{index}]"
            check(weight.dtype in (torch.float32, torch.float64), name, weight.dtype, "float32 (or float64)")
            check(_same_layout(weight, torch.empty_like(weight)), name, f"strides {weight.stride()}", "a dense tensor")
            check(weight.dtype == first.dtype, name, weight.dtype, first.dtype)
            check_device(name, weight, first)
        _check_partners("emas", self.emas, self.weights, (first.dtype,))
        _check_partners("copies", self.copies, self.weights, (torch.float16, torch.bfloat16))
        self.triton = use_triton("adam_ema", impl, first)
        self._adopt()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over the state of a ``torch.optim.Adam`` or ``AdamEma`` over the same weights."""
        check(len(state_dict["param_groups"]) == 1, "param_groups", len(state_dict["param_groups"]), "one group")
        for name, expected in (("weight_decay", 0), ("amsgrad", False), ("maximize", False)):
            got = state_dict["param_groups"][0].get(name, expected)
            check(got == expected, name, got, expected)
        super().load_state_dict(state_dict)
        self._adopt()

    def _adopt(self) -> None:
        """Makes the state that the kernels work on: moments laid out as the weights, step counts in one tensor."""
        first = self.weights[0]
        self.param_groups[0].update(fused=True, foreach=None, capturable=first.device.type == "cuda")
        self._steps = torch.zeros(len(self.weights), dtype=torch.float32, device=first.device)
        for weight, step in zip(self.weights, self._steps.unbind(), strict=True):
            state = self.state[weight]
            if state:
                step.copy_(state["step"])
            state["step"] = step
            for name in ("exp_avg", "exp_avg_sq"):
                value = state.get(name)
                if value is None or not _fits(value, weight):
                    moment = torch.zeros_like(weight)
                    state[name] = moment if value is None else moment.copy_(value)
        self._plan: adam_ema_kernels.Plan | None = None

    @torch.no_grad()
    def find_inf(self) -> Tensor:
        """1.0 if any gradient holds an inf or a NaN, else 0.0: a float32 scalar on the device, as ``step`` takes it."""
        grads = self._grads()
        if self.triton:
            return self._kernels().find_inf(grads)
        # The smallest and the largest value, since a NaN is both: one fast pass over the memory of each.
        flat = [grad.as_strided((grad.numel(),), (1,)) for grad in grads if grad is not None]
        extremes = [value for grad in flat for value in torch.aminmax(grad)]
        return torch.stack(extremes).isfinite().all().logical_not().float()

    @torch.no_grad()
    def step(
        self,
        closure: Callable[[], Any] | None = None,
        *,
        grad_scale: Tensor | None = None,
        found_inf: Tensor | None = None,
    ) -> Any:
        """One update.

        grad_scale: float32 scalar on the device that the gradients are divided by. found_inf: the same, not 0 where
        the update is to be skipped. A ``GradScaler`` sets both as attributes.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        grad_scale = getattr(self, "grad_scale", None) if grad_scale is None else grad_scale
        found_inf = getattr(self, "found_inf", None) if found_inf is None else found_inf
        if self.triton:
            group = self.param_groups[0]
            beta1, beta2 = group["betas"]
            rates = adam_ema_kernels.Rates(group["lr"], beta1, beta2, group["eps"], self.decay)
            self._kernels().step(self._grads(), rates, grad_scale, found_inf)
        else:
            self._step_reference(self._grads(), grad_scale, found_inf)
        return loss

    def _grads(self) -> list[Tensor | None]:
        """The gradients, laid out as the weights."""
        return [
            g if g is None or _fits(g, p) else torch.empty_like(p).copy_(g)
            for p, g in ((weight, weight.grad) for weight in self.weights)
        ]

    def _moments(self, name: str) -> list[Tensor]:
        return [self.state[weight][name] for weight in self.weights]

    def _kernels(self) -> adam_ema_kernels.Plan:
        if self._plan is None or not self._plan.is_current():
            exp_avgs, exp_avg_sqs = self._moments("exp_avg"), self._moments("exp_avg_sq")
            state = adam_ema_kernels.State(self.weights, exp_avgs, exp_avg_sqs, self.emas, self.copies, self._steps)
            self._plan = adam_ema_kernels.Plan(state)
        return self._plan

    def _step_reference(self, grads: list[Tensor | None], grad_scale: Tensor | None, found_inf: Tensor | None) -> None:
        group = self.param_groups[0]
        live = [index for index, grad in enumerate(grads) if grad is not None]
        columns = (self.weights, grads, self._moments("exp_avg"), self._moments("exp_avg_sq"), self._moments("step"))
        params, live_grads, exp_avgs, exp_avg_sqs, steps = ([column[i] for i in live] for column in columns)
        adam(
            params, live_grads, exp_avgs, exp_avg_sqs, [], steps,  # type: ignore[arg-type]
            fused=True, grad_scale=grad_scale, found_inf=found_inf, amsgrad=False, beta1=group["betas"][0],
            beta2=group["betas"][1], lr=group["lr"], weight_decay=0.0, eps=group["eps"], maximize=False,
        )  # fmt: skip
        if self.emas is not None:
            torch._foreach_lerp_(self.emas, self.weights, 1 - self.decay)
        if self.copies is not None:
            torch._foreach_copy_(self.copies, self.weights)


def _same_layout(a: Tensor, b: Tensor) -> bool:
    return same_strides(a.shape, a.stride(), b.stride())


def _fits(tensor: Tensor, weight: Tensor) -> bool:
    """Whether the kernels can walk through ``tensor`` as through ``weight``."""
    return tensor.dtype == weight.dtype and _same_layout(tensor, weight) and begins_aligned(tensor)


def _check_partners(
    name: str, partners: Sequence[Tensor] | None, weights: Sequence[Tensor], dtypes: Sequence[torch.dtype]
) -> None:
    """One partner a weight, of its shape, layout and device and of one of ``dtypes``."""
    if partners is None:
        return
    check(len(partners) == len(weights), name, f"{len(partners)} tensors", f"{len(weights)}, as params")
    for index, (partner, weight) in enumerate(zip(partners, weights, strict=True)):
        check_shape(f"{name}[{index}]", partner, weight.shape)
        check_device(f"{name}[{index}]", partner, weight)
        check(partner.dtype in dtypes, f"{name}[{index}]", partner.dtype, " or ".join(map(str, dtypes)))
        check(
            partner.dtype == partners[0].dtype, f"{name}[{index}]", partner.dtype, f"{partners[0].dtype}, as the first"
        )
        check(_same_layout(partner, weight), f"{name}[{index}]", partner.stride(), f"strides {weight.stride()}")


@self_test("adam_ema", dtype=torch.float32)
def _self_test(device: torch.device, dtype: torch.dtype) -> None:
    generator = torch.Generator(device).manual_seed(0)
    shapes = ((40, 30, 3, 3), (7, 5), (1,))
    start = [torch.randn(shape, generator=generator, device=device, dtype=torch.float64) for shape in shapes]
    results = []
    optimizers = []
    for wanted in (dtype, torch.float64):
        weights = [weight.to(wanted, copy=True).requires_grad_() for weight in start]
        emas = [torch.zeros_like(weight, requires_grad=False) for weight in weights]
        optimizers.append(AdamEma(weights, 0.01, (0.5, 0.999), emas=emas, decay=0.9, impl="reference"))
    optimizers[0].triton = True
    for flag in (0.0, 1.0, 0.0):
        grads = [torch.randn(shape, generator=generator, device=device) for shape in shapes]
        for optimizer in optimizers:
            for weight, grad in zip(optimizer.weights, grads, strict=True):
                weight.grad = grad.to(weight.dtype)
            flags = torch.full((2,), flag, device=device)
            optimizer.step(grad_scale=flags[0] + 4, found_inf=flags[1])
    for optimizer in optimizers:
        assert optimizer.emas is not None
        state = (optimizer._moments("exp_avg"), optimizer._moments("exp_avg_sq"), optimizer._moments("step"))
        results.append([t.detach() for kind in (optimizer.weights, optimizer.emas, *state) for t in kind])
        optimizer.weights[1].grad[3] = float("nan")  # type: ignore[index]
        results[-1].append(optimizer.find_inf())
    assert_near("adam_ema", *results)
