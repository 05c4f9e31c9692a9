"""Which metrics there are: what each looks at, how many images it needs, and which direction is better."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from fastgan_engine.errors import UserError
from fastgan_engine.evaluation.extractors import View
from fastgan_engine.evaluation.frechet import frechet_distance
from fastgan_engine.evaluation.kernel import kernel_distance
from fastgan_engine.evaluation.manifold import DENSITY_K, PRECISION_K, density_coverage, precision_recall
from fastgan_engine.evaluation.wasserstein import sliced_wasserstein

FEATURES = 2_048  # of InceptionV3


@dataclass(frozen=True, kw_only=True)
class Metric:
    """How a metric is shown.

    title: its column. better: the direction. factor: on the number shown, for those that are very small.
    """

    title: str
    better: str
    decimals: int = 3
    factor: int = 1

    def text(self, value: float) -> str:
        return f"{value * self.factor:.{self.decimals}f}"

    def improves(self, value: float, best: float) -> bool:
        return value < best if self.better == "lower" else value > best


METRICS = {
    "fid": Metric(title="FID", better="lower", decimals=2),
    "kid": Metric(title="KID·10³", better="lower", decimals=2, factor=1_000),
    "precision": Metric(title="prec.", better="higher"),
    "recall": Metric(title="recall", better="higher"),
    "density": Metric(title="dens.", better="higher"),
    "coverage": Metric(title="cover.", better="higher"),
    "lpips": Metric(title="LPIPS", better="higher"),
    "swd": Metric(title="SWD", better="lower", decimals=4),
}


@dataclass(frozen=True)
class Measure:
    """Metrics that are computed together from what was seen of samples and reals.

    least: images that each of the two sets must have.
    """

    names: tuple[str, ...]
    view: View
    least: int
    compute: Callable[[Tensor, Tensor], tuple[float, ...]]


MEASURES = (
    Measure(("fid",), "inception", 2, lambda samples, reals: (frechet_distance(samples, reals),)),
    Measure(("kid",), "inception", 2, lambda samples, reals: (kernel_distance(samples, reals),)),
    Measure(("precision", "recall"), "inception", PRECISION_K + 1, precision_recall),
    Measure(("density", "coverage"), "inception", DENSITY_K + 1, density_coverage),
    Measure(("lpips",), "lpips", 2, lambda samples, reals: (samples.double().mean().item(),)),
    Measure(("swd",), "thumbnails", 1, lambda samples, reals: (sliced_wasserstein(samples, reals),)),
)


def measures_of(metrics: Sequence[str]) -> list[Measure]:
    """Those that compute any of the metrics."""
    return [measure for measure in MEASURES if not set(measure.names).isdisjoint(metrics)]


def check_samples(metrics: Sequence[str], count: int) -> None:
    """Raises UserError where these are too few samples for one of the metrics."""
    for names, least in _too_few(metrics, count):
        raise UserError(f"{names}: needs {least} samples or more, got {count}; raise the count, or leave it out")


def check_reals(metrics: Sequence[str], count: int) -> None:
    """Raises UserError where these are too few training images for one of the metrics."""
    for names, least in _too_few(metrics, count):
        raise UserError(
            f"{names}: needs {least} training images or more, there are {count}; leave it out of the metrics"
        )


def _too_few(metrics: Sequence[str], count: int) -> Iterator[tuple[str, int]]:
    for measure in measures_of(metrics):
        if count < measure.least:
            yield " and ".join(name for name in measure.names if name in metrics), measure.least
