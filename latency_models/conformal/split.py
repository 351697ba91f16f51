"""Quantiles of held-out scores: plain, weighted, and grouped where one item has several scores."""

from __future__ import annotations

from math import ceil, exp
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from nas.core.errors import ProfileError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    FloatArray = NDArray[np.float64]


def needed(coverage: float) -> int:
    """Return how many held-out residuals an interval of ``coverage`` needs: 9 for 0.9."""
    check_coverage(coverage)
    return ceil(coverage / (1.0 - coverage) - 1e-9)


def check_coverage(coverage: float) -> None:
    """Raise ``ValueError`` unless ``coverage`` lies inside (0, 1)."""
    if not 0.0 < coverage < 1.0:
        raise ValueError(f"coverage must lie in (0, 1), got {coverage}")


def refuse_too_few(count: int, coverage: float, *, items: str = "held-out networks") -> NoReturn:
    """Raise ``ProfileError`` that says how many ``items`` an interval of ``coverage`` needs."""
    raise ProfileError(
        f"an interval of coverage {coverage} needs at least {needed(coverage)} {items}, got {count}",
        hint="measure more of them, or state a lower coverage",
    )


def conformal_quantile(
    scores: ArrayLike, coverage: float, *, items: str = "held-out networks", interpolated: bool = False
) -> float:
    """Return the ``ceil((n + 1) * coverage)``-th smallest of ``n`` scores.

    A fresh score exchangeable with them does not exceed it with at least that probability. With signed scores it is a
    one-sided bound, with absolute ones half the width of a two-sided interval.

    Args:
        scores: One score of each held-out item.
        coverage: Stated probability, inside (0, 1).
        items: What the scores are of, for the message.
        interpolated: Take the place ``(n + 1) * coverage`` between two scores instead of the next higher one: 0.9 of
            24 scores then covers 0.9 and not 0.92. It holds wherever large scores are no denser than smaller ones.

    Raises:
        ProfileError: Too few scores for the coverage; says how many are needed.

    Source:
        Lei et al., "Distribution-free predictive inference for regression" (JASA 2018), split-conformal quantile.
    """
    check_coverage(coverage)
    array = np.asarray(scores, dtype=float)
    rank = ceil((len(array) + 1) * coverage - 1e-9)
    if rank > len(array):
        refuse_too_few(len(array), coverage, items=items)
    if interpolated:
        return float(weighted_quantile(array, np.ones(len(array)), coverage, interpolated=True))
    return float(np.partition(array, rank - 1)[rank - 1])


def weighted_quantile(
    scores: ArrayLike,
    weights: ArrayLike,
    coverage: float,
    *,
    own_weight: ArrayLike = 1.0,
    interpolated: bool = False,
) -> FloatArray:
    """Return the smallest score that with all below it holds the share ``coverage`` of the weights, own one included.

    Infinite where the scores' weights together are too light: nothing can be promised there.

    Args:
        scores: Scores of the held-out items, shape (n,).
        weights: Their weights, not negative: how likely each is where the new item is from, shape (n,).
        coverage: Stated probability, inside (0, 1).
        own_weight: Weight of the new item; an array asks for several at once.
        interpolated: Interpolate between the last score that holds less and the first that holds enough.

    Returns:
        Quantiles in the shape of ``own_weight``.

    Raises:
        ValueError: A weight is negative or not finite, or the shapes differ.

    Source:
        Tibshirani et al., "Conformal prediction under covariate shift" (NeurIPS 2019), equation 7.
    """
    check_coverage(coverage)
    values, masses, own = (np.asarray(item, dtype=float) for item in (scores, weights, own_weight))
    if values.ndim != 1 or masses.shape != values.shape:
        raise ValueError(f"scores and weights must be (n,) alike, got {values.shape} and {masses.shape}")
    if not (np.isfinite(masses).all() and np.isfinite(own).all()) or (masses < 0).any() or (own < 0).any():
        raise ValueError("weights must be finite and not negative")
    order = np.argsort(values, kind="stable")
    sums = np.cumsum(masses[order])
    total = sums[-1] if len(sums) else 0.0
    # The slack keeps a share that equals the coverage up to rounding on the inside.
    index = np.searchsorted(sums, coverage * (total + own) - 1e-12 * max(total, 1e-300), side="left")
    ranked = np.append(values[order], np.inf)
    quantiles: FloatArray = ranked[index]
    if not interpolated:
        return quantiles
    below = np.maximum(index - 1, 0)
    step = np.append(masses[order], 0.0)[index]
    part = np.divide(
        coverage * (total + own) - np.append(0.0, sums)[index], step, where=step > 0, out=np.ones(own.shape)
    )
    # Between a score and infinity, and below the smallest score, there is nothing to interpolate.
    between = np.isfinite(quantiles) & (index > 0)
    start = np.where(between, ranked[below], 0.0)
    return np.where(between, start + np.clip(part, 0.0, 1.0) * (np.where(between, quantiles, 0.0) - start), quantiles)


def group_quantile(
    groups: Sequence[ArrayLike], coverage: float, *, items: str = "held-out networks", interpolated: bool = False
) -> float:
    """Return the quantile of scores that come in groups, each group counting once.

    A group holds the scores of one item measured several times. One fresh score of a fresh group, exchangeable with
    these, does not exceed the quantile with at least the probability ``coverage``: between the spread of one item's
    median and that of its worst repeat.

    Args:
        groups: Scores of each held-out item, at least one each.
        coverage: Stated probability, inside (0, 1).
        items: What the groups are, for the message.
        interpolated: See ``conformal_quantile``.

    Raises:
        ProfileError: Too few groups for the coverage; says how many are needed.
        ValueError: A group is empty.

    Source:
        Dunn, Wasserman, Ramdas, "Distribution-free prediction sets for two-layer hierarchical models" (JASA 2022);
        Lee, Barber, Willett, "Distribution-free inference with hierarchical data" (2023), HCP, equation 5.
    """
    if len(groups) < needed(coverage):
        refuse_too_few(len(groups), coverage, items=items)
    scores, weights = _by_group(groups)
    return float(weighted_quantile(scores, weights, coverage, interpolated=interpolated))


def group_held_out_coverage(
    groups: Sequence[ArrayLike],
    coverage: float,
    *,
    judged: Sequence[ArrayLike] | None = None,
    interpolated: bool = False,
) -> float | None:
    """Return the mean share of a group's scores inside the quantile of all the other groups.

    None when leaving one out leaves too few.

    Args:
        groups: What quantiles are made from.
        coverage: Stated probability, inside (0, 1).
        judged: Scores of each group that are to be covered; the group's own when left out.
        interpolated: See ``conformal_quantile``.
    """
    if len(groups) - 1 < needed(coverage):
        return None
    shares = []
    for index, own in enumerate(groups if judged is None else judged):
        others = [*groups[:index], *groups[index + 1 :]]
        limit = group_quantile(others, coverage, interpolated=interpolated)
        shares.append(float(np.mean(np.asarray(own, dtype=float) <= limit)))
    return float(np.mean(shares))


def log_score(measured: ArrayLike, predicted: float) -> float:
    """Return the largest ``|log(measured / predicted)|`` over the repeats of one item; all values above 0."""
    return float(np.max(np.abs(np.log(np.asarray(measured, dtype=float) / predicted))))


def ratio_interval(scores: ArrayLike, coverage: float) -> tuple[float, float]:
    """Return the ends of a relative interval, symmetric in the logarithm: ``(1 / r, r)``.

    Args:
        scores: ``log_score`` of held-out items.
        coverage: Stated share of truths inside.
    """
    width = exp(conformal_quantile(scores, coverage))
    return 1.0 / width, width


def held_out_coverage(residuals: ArrayLike, scores: ArrayLike, coverage: float) -> float | None:
    """Return the share of items whose residual is inside the interval made from the scores of all the others.

    None when leaving one out leaves too few.

    Args:
        residuals: ``log_score`` of the figure that is to be covered.
        scores: What intervals are made from; at least the residuals.
        coverage: Stated share of truths inside.
    """
    errors, array = np.asarray(residuals, dtype=float), np.asarray(scores, dtype=float)
    if len(array) - 1 < needed(coverage):
        return None
    inside = [
        residual <= conformal_quantile(np.delete(array, index), coverage) for index, residual in enumerate(errors)
    ]
    return float(np.mean(inside))


def _by_group(groups: Sequence[ArrayLike]) -> tuple[FloatArray, FloatArray]:
    arrays = [np.asarray(group, dtype=float) for group in groups]
    if any(array.ndim != 1 or len(array) == 0 for array in arrays):
        raise ValueError("every group needs at least one score")
    weights = np.repeat([1.0 / len(array) for array in arrays], [len(array) for array in arrays])
    return np.concatenate(arrays), weights
