"""Intervals of stated coverage from held-out residuals."""

from __future__ import annotations

from math import ceil, exp
from typing import TYPE_CHECKING

import numpy as np

from nas.core.errors import ProfileError

if TYPE_CHECKING:
    from collections.abc import Sequence


def needed(coverage: float) -> int:
    """Return how many held-out residuals an interval of ``coverage`` needs: 9 for 0.9."""
    return ceil(coverage / (1.0 - coverage) - 1e-9)


def conformal_quantile(scores: Sequence[float], coverage: float) -> float:
    """Return the ``ceil((n + 1) * coverage)``-th smallest of ``n`` scores.

    A fresh score exchangeable with them does not exceed it with at least that probability.

    Raises:
        ProfileError: Too few scores for the coverage; says how many are needed.

    Source:
        Lei et al., "Distribution-free predictive inference for regression" (JASA 2018), split-conformal quantile;
        with cross-validated residuals it is the CV+ interval of Barber et al. (AoS 2021) around one refitted centre.
    """
    if not 0.0 < coverage < 1.0:
        raise ValueError(f"coverage must lie in (0, 1), got {coverage}")
    rank = ceil((len(scores) + 1) * coverage - 1e-9)
    if rank > len(scores):
        raise ProfileError(
            f"an interval of coverage {coverage} needs at least {needed(coverage)} held-out networks, "
            f"got {len(scores)}",
            hint="measure more whole networks, or state a lower coverage",
        )
    return float(np.sort(np.asarray(scores, dtype=float))[rank - 1])


def log_score(measured: Sequence[float], predicted: float) -> float:
    """Return the largest ``|log(measured / predicted)|`` over the repeats of one item; all values above 0."""
    return float(np.max(np.abs(np.log(np.asarray(measured, dtype=float) / predicted))))


def ratio_interval(scores: Sequence[float], coverage: float) -> tuple[float, float]:
    """Return the ends of a relative interval, symmetric in the logarithm: ``(1 / r, r)``.

    Args:
        scores: ``log_score`` of held-out items.
        coverage: Stated share of truths inside.
    """
    width = exp(conformal_quantile(scores, coverage))
    return 1.0 / width, width


def held_out_coverage(residuals: Sequence[float], scores: Sequence[float], coverage: float) -> float | None:
    """Return the share of items whose residual is inside the interval made from the scores of all the others.

    None when leaving one out leaves too few.

    Args:
        residuals: ``log_score`` of the figure that is to be covered.
        scores: What intervals are made from; at least the residuals.
        coverage: Stated share of truths inside.
    """
    if len(scores) - 1 < needed(coverage):
        return None
    array = np.asarray(scores, dtype=float)
    inside = [
        residual <= conformal_quantile(list(np.delete(array, index)), coverage)
        for index, residual in enumerate(residuals)
    ]
    return float(np.mean(inside))
