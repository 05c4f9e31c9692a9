"""One generator's metrics against one set of training images."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from fastgan_engine.evaluation.cache import cached_features
from fastgan_engine.evaluation.extractors import Extractor, View, build_extractor
from fastgan_engine.evaluation.metrics import check_reals, check_samples, measures_of
from fastgan_engine.evaluation.spread import rgb_pixels
from fastgan_engine.networks import Generator
from fastgan_engine.pipelines import PreparedSet
from fastgan_engine.sampling import CHUNK, sample

Progress = Callable[[str, int, int], None]
"""Called with what is looked at, how many are done, and of how many."""


def silent(what: str, done: int, total: int) -> None: ...


class Evaluator:
    """``evaluator(generator, ...)`` -> metric name -> value.

    Builds the networks that the metrics look through, and looks at the training images (once: what it saw is cached).

    Args:
        images: the training images.
        metrics: names, see ``metrics.METRICS``.
        device: of those networks.
        weights_dir: folder searched for their weights before the torch cache and a download.
        cache_dir: None for the user's cache.

    Raises:
        UserError: weights are missing or damaged, or there are too few training images for a metric.
    """

    def __init__(
        self,
        images: PreparedSet,
        metrics: Sequence[str],
        device: torch.device,
        *,
        weights_dir: Path | None = None,
        cache_dir: Path | None = None,
        warn: Callable[[str], None] = lambda text: None,
        progress: Progress = silent,
    ) -> None:
        self.images, self.metrics, self.device = images, tuple(metrics), device
        self.measures = measures_of(metrics)
        check_reals(metrics, images.count)
        views = {measure.view for measure in self.measures}
        self.extractors = {view: build_extractor(view, weights_dir, device) for view in sorted(views)}
        self.reals = {
            view: cached_features(
                images,
                extractor.key,
                lambda extractor=extractor: self._look_at_reals(extractor, progress),  # type: ignore[misc]
                cache_dir=cache_dir,
                warn=warn,
            )
            for view, extractor in self.extractors.items()
        }

    def __call__(
        self,
        generator: Generator,
        *,
        count: int,
        seed: int,
        chunk: int = CHUNK,
        warn: Callable[[str], None] | None = None,
        progress: Progress = silent,
        stop: Callable[[], bool] = lambda: False,
    ) -> dict[str, float] | None:
        """The metrics of images 0 to ``count`` - 1 of a seed, which are made and looked at ``chunk`` at a time.

        The global random state is left alone. Returns None where ``stop`` asked to end.

        Raises:
            UserError: too few samples for a metric, or memory for not even one.
        """
        check_samples(self.metrics, count)
        done = 0
        for batch in sample(generator, count, seed=seed, chunk=chunk, device=self.device, warn=warn):
            for extractor in self.extractors.values():
                extractor.add(rgb_pixels(batch))
            done += len(batch)
            progress("samples", done, count)
            if stop():
                self._seen()
                return None
        return self._values(self._seen())

    @property
    def real_diversity(self) -> float | None:
        """Mean LPIPS of the training images' pairs, to compare ``lpips`` with; None where it is not asked for."""
        return self.reals["lpips"].double().mean().item() if "lpips" in self.reals else None

    def _seen(self) -> dict[View, Tensor]:
        return {view: extractor.take() for view, extractor in self.extractors.items()}

    def _values(self, seen: dict[View, Tensor]) -> dict[str, float]:
        values: dict[str, float] = {}
        for measure in self.measures:
            results = measure.compute(seen[measure.view], self.reals[measure.view])
            values |= dict(zip(measure.names, results, strict=True))
        return {name: values[name] for name in self.metrics}

    def _look_at_reals(self, extractor: Extractor, progress: Progress) -> Tensor:
        """In a random order, fixed, so that pairs are of any two images and not of neighbours in a folder."""
        order = torch.randperm(self.images.count, generator=torch.Generator().manual_seed(0)).tolist()
        for start in range(0, len(order), CHUNK):
            indices = order[start : start + CHUNK]
            batch = torch.stack([torch.from_numpy(self.images.array(index)) for index in indices])
            extractor.add(rgb_pixels(batch))
            progress("training images", start + len(indices), len(order))
        return extractor.take()
