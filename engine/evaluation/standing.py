"""How the metric that decides stands: the best value so far, and for how many evaluations it has been the best.

Nothing of it is stored: it is read from the run's log, so that a resumed run knows what the uninterrupted one would.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fastgan_engine.evaluation.metrics import METRICS
from fastgan_engine.run_log import read_records

PREFIX = "eval_"  # of the values in the log
COUNT = f"{PREFIX}count"


@dataclass(frozen=True, kw_only=True)
class Standing:
    """After an evaluation. since_best: later evaluations that did not improve on the best; 0: this is the best."""

    metric: str
    step: int
    value: float
    best_step: int
    best_value: float
    since_best: int

    def text(self) -> str:
        """Such as "31.20 at step 2,000; best 30.10 at step 1,000"."""
        show = METRICS[self.metric].text
        best = "the best so far" if not self.since_best else f"best {show(self.best_value)} at step {self.best_step:,}"
        return f"{show(self.value)} at step {self.step:,}; {best}"


def standing(metric: str, history: Sequence[tuple[int, float]]) -> Standing:
    """history: (step, value) of all evaluations, in their order, at least one."""
    best = 0
    for index, (_, value) in enumerate(history):
        if METRICS[metric].improves(value, history[best][1]):
            best = index
    (step, value), (best_step, best_value) = history[-1], history[best]
    return Standing(
        metric=metric,
        step=step,
        value=value,
        best_step=best_step,
        best_value=best_value,
        since_best=len(history) - 1 - best,
    )


def log_record(values: dict[str, float], count: int) -> dict[str, float]:
    """An evaluation as the log holds it."""
    return {f"{PREFIX}{name}": value for name, value in values.items()} | {COUNT: count}


def read_history(log: Path, metric: str, *, count: int, until: int) -> list[tuple[int, float]]:
    """(step, value) of the evaluations in a run's log up to a step, of those with as many samples."""
    return [
        (record["step"], record[f"{PREFIX}{metric}"])
        for record in read_records(log)
        if record.get(COUNT) == count and f"{PREFIX}{metric}" in record and record["step"] <= until
    ]
