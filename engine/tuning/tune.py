"""The search: one axis after the other, each tried with what was chosen before it.

Each axis has an equal share of the time that is left when it begins. What is compared with, the configuration as it is
by then, is timed once, and again before anything replaces it.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch

from fastgan_engine.bench.data import GOAL, deliver
from fastgan_engine.config import Config
from fastgan_engine.hardware import dtype_for, pick_device
from fastgan_engine.pipelines import PreparedSet
from fastgan_engine.tuning import up_convs
from fastgan_engine.tuning.trials import Effort, Trial, changed, try_step

# A choice replaces the profile's only where it is faster by this factor: timings scatter.
MARGIN = 1.03
# Beside the profile's own batch. It stays whatever they give: the batch belongs to the recipe.
BATCHES = (4, 16)
NO_TIME = "not tried: no time left"

Told = Callable[[Trial], None]


@dataclass
class Tuned:
    """What the search found.

    Attributes:
        settings: by dotted key, the values that differ from the start.
        reasons: for them, and for what stayed after being measured.
        trials: everything tried, in order.
        layers: the up-convolutions, timed.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    trials: list[Trial] = field(default_factory=list)
    layers: list[up_convs.Layer] = field(default_factory=list)


class Search:
    """Tunes ``config`` on this machine with the images ``images``; ``run`` returns what it found.

    told: called with every trial as it ends.
    """

    def __init__(self, config: Config, images: PreparedSet, effort: Effort, told: Told) -> None:
        self.config, self.images, self.effort, self.told = config, images, effort, told
        self.device = pick_device(config.engine.device)
        self.end = self.share_end = time.perf_counter() + effort.seconds
        self.found = Tuned()
        self._rate: float | None = None

    def run(self) -> Tuned:
        threads = torch.get_num_threads()
        try:
            self._measure("start")
            axes: list[Callable[[], None]] = [
                *(partial(self._choose, axis, choices) for axis, choices in self._axes()),
                self._choose_up_conv,
                self._try_batches,
                self._choose_workers,
            ]
            for index, search in enumerate(axes):
                now = time.perf_counter()
                self.share_end = now + (self.end - now) / (len(axes) - index)
                search()
        finally:
            torch.set_num_threads(threads)
        return self.found

    def _measure(self, axis: str) -> float | None:
        """Images/s of the configuration as it is, timed unless that is known; None where it cannot be."""
        if self._rate is None:
            self._rate = self._try(axis, "as it is", {}).images_per_second
        return self._rate

    def _axes(self) -> Iterator[tuple[str, Sequence[Mapping[str, Any]]]]:
        """By axis its choices, what matters most first; the profile's own need not be among them."""
        if self.device.type == "cuda":
            half = dtype_for(torch.cuda.get_device_capability(self.device))
            yield "precision", [{"precision.dtype": name} for name in dict.fromkeys(("fp32", half))]
            yield "step", [{"engine.step": name} for name in ("graph", "eager")]
            yield "kernels", [{"engine.kernels": name} for name in ("auto", "reference")]
        else:
            cores = os.cpu_count() or 1
            yield "threads", [{"engine.threads": n} for n in sorted({1, max(1, cores // 2), cores})]
            yield "precision", [{"precision.dtype": name} for name in ("fp32", "bf16")]

    def _choose(self, axis: str, choices: Sequence[Mapping[str, Any]]) -> None:
        """Tries the values of one setting; takes the fastest where it beats the present one by the margin."""
        (key,) = choices[0]
        present = self.config.values()[key]
        own = Trial(axis, _word(present), {key: present}, self._measure(axis))
        others = [self._try(axis, _word(choice[key]), choice) for choice in choices if choice[key] != present]
        rated = [trial for trial in (own, *others) if trial.images_per_second is not None]
        if not others or rated in ([], [own]):
            return  # nothing to compare
        best = max(rated, key=_rate)
        if own in rated and _rate(best) >= MARGIN * _rate(own) and not self._is_over():
            # Timed again: the machine may have been busy the first time.
            again = self._try(axis, own.choice, own.settings)
            own = max((trial for trial in (own, again) if trial.images_per_second is not None), key=_rate)
            rated[0] = own
        if own in rated and _rate(best) < MARGIN * _rate(own):
            best = own
        self._take(dict(best.settings), f"images/s: {_rates(rated)}")
        self._rate = best.images_per_second

    def _try(self, axis: str, choice: str, settings: Mapping[str, Any]) -> Trial:
        left = self.share_end - time.perf_counter()
        if left < 0:
            return self._tell(Trial(axis, choice, settings, note=NO_TIME))
        effort = replace(self.effort, trial_seconds=min(left, self.effort.trial_seconds))
        return self._tell(try_step(axis, choice, settings, changed(self.config, settings), effort))

    def _is_over(self) -> bool:
        return time.perf_counter() > self.share_end

    def _tell(self, trial: Trial) -> Trial:
        self.found.trials.append(trial)
        self.told(trial)
        return trial

    def _take(self, settings: Mapping[str, Any], reason: str) -> None:
        self.config = changed(self.config, settings)
        self.found.settings.update(settings)
        self.found.reasons.update(dict.fromkeys(settings, reason))

    def _choose_up_conv(self) -> None:
        if self._is_over():
            self._tell(Trial("up_conv", "transposed from", {}, note=NO_TIME))
            return
        layers = self.found.layers = up_convs.measure(self.config, self.effort.iterations)
        own = up_convs.own_rule(self.config)
        rule = up_convs.best_rule(layers, own)
        own_ms, best_ms = (sum(layer.ms(r) for layer in layers) for r in (own, rule))
        if own_ms < MARGIN * best_ms:
            rule, best_ms = own, own_ms
        told = f"{best_ms:.4g} ms a step; by the rule {own_ms:.4g}"
        self._tell(Trial("up_conv", f"from {rule} pixels", {}, note=told))
        if rule != own:
            self._take(
                {"engine.transposed_from": rule},
                f"up-convolutions of a step: {best_ms:.4g} ms, with the kernels' own rule ({own}) {own_ms:.4g}",
            )
            self._rate = None

    def _try_batches(self) -> None:
        own = self.config.train.batch
        trials = [Trial("batch", str(own), {}, self._measure("batch"))]
        trials += [
            self._try("batch", str(size), {"train.batch": size, "train.micro_batch": None})
            for size in BATCHES
            if size != own
        ]
        self.found.reasons["train.batch"] = f"the recipe's, kept; images/s by batch: {_rates(trials)}"
        self.found.settings["train.batch"] = own

    def _choose_workers(self) -> None:
        """The fewest decoding threads with which a streamed set makes the step wait for less than the goal."""
        rate = self._measure("workers")
        if rate is None:
            return
        step = self.config.train.batch / rate * 1e3
        waits = {}
        for workers in sorted({1, self.config.data.workers, min(8, os.cpu_count() or 1)}):
            settings = {"data.workers": workers}
            if self._is_over():
                self._tell(Trial("workers", str(workers), settings, note=NO_TIME))
                continue
            found = deliver(changed(self.config, settings), self.images, "pillow", step)
            assert found.wait_ms is not None
            note = f"streamed by pillow; waits {found.wait_ms:.2f} ms, {found.wait_ms / step:.2%} of a step"
            self._tell(Trial("workers", str(workers), settings, found.images_per_second, note))
            waits[workers] = found.wait_ms
        if not waits:
            return
        quick = [workers for workers, wait in waits.items() if wait <= GOAL * step]
        verdict = "the fewest that keep" if quick else "waits least, but no number of threads keeps"
        reason = f"{verdict} the wait under {GOAL:.0%} of a step where the set is streamed"
        self._take({"data.workers": min(quick) if quick else min(waits, key=waits.__getitem__)}, reason)


def _rate(trial: Trial) -> float:
    assert trial.images_per_second is not None
    return trial.images_per_second


def _rates(trials: Sequence[Trial]) -> str:
    return ", ".join(f"{t.choice} {_rate(t):.4g}" for t in trials if t.images_per_second is not None) or "not measured"


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
