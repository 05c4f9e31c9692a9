"""Metrics that take the k-nearest-neighbour balls around a set's features for the region it fills."""

import torch
from torch import Tensor

from fastgan_engine.extras import require

PRECISION_K = 3
DENSITY_K = 5
BLOCK = 4_096  # centres whose distances are held at once


def precision_recall(samples: Tensor, reals: Tensor) -> tuple[float, float]:
    """Share of samples within the region of the reals, and of reals within that of the samples; k = 3.

    samples: [n, d], reals: [m, d], more than 3 of each; computed in fp64 by torch-fidelity.

    Source: Kynkäänniemi et al., "Improved Precision and Recall Metric for Assessing Generative Models", 2019 (which
    looks at VGG16's features, not Inception's).
    """
    prc = require("torch_fidelity.metric_prc", extra="metrics")
    values = prc.prc_features_to_metric(
        samples.double(),
        reals.double(),
        prc_neighborhood=PRECISION_K,
        prc_batch_size=BLOCK,
        save_cpu_ram=True,
        verbose=False,
    )
    return values[prc.KEY_METRIC_PRECISION], values[prc.KEY_METRIC_RECALL]


def density_coverage(samples: Tensor, reals: Tensor, *, k: int = DENSITY_K) -> tuple[float, float]:
    """How often the reals' balls hold a sample, over its expectation for equal sets; and the share of balls that do.

    samples: [n, d], reals: [m, d], m greater than k; computed in fp64. A ball reaches to its centre's k-th nearest
    other real, which it excludes (the authors' code). Density is not bounded by 1; coverage is.

    Source: Naeem et al., "Reliable Fidelity and Diversity Metrics for Generative Models", 2020.
    """
    samples, reals = samples.double(), reals.double()
    held = torch.cat([_held(block, reals, samples, k) for block in reals.split(BLOCK)])
    return (held.sum() / (k * len(samples))).item(), (held > 0).double().mean().item()


def _held(centres: Tensor, reals: Tensor, samples: Tensor, k: int) -> Tensor:
    """How many samples lie in the ball around each centre, float64 [centres]."""
    radii = torch.cdist(centres, reals).kthvalue(k + 1, dim=1).values  # the first is the centre itself
    return (torch.cdist(centres, samples) < radii[:, None]).double().sum(1)
