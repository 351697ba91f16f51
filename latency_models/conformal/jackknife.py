"""Jackknife+ and CV+: intervals from the very fits of a cross-validation, for few samples.

An interval around one refitted prediction trusts that leaving an item out moves no prediction much; with ten or twenty
items it does. These put each left-out fit's own prediction of the new item under its own residual instead.
"""

from __future__ import annotations

from math import ceil, floor
from typing import TYPE_CHECKING

import numpy as np

from latency_models.conformal.split import check_coverage, refuse_too_few

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    FloatArray = NDArray[np.float64]


def jackknife_plus(left_out: ArrayLike, residuals: ArrayLike, coverage: float) -> tuple[FloatArray, FloatArray]:
    """Return both ends of the jackknife+ intervals of new items.

    The low end is the ``floor((n + 1) * (1 - coverage))``-th smallest of ``left_out[i, j] - residuals[i]`` over ``i``,
    the high end the ``ceil((n + 1) * coverage)``-th smallest of ``left_out[i, j] + residuals[i]``. A fresh item is
    inside with a probability of at least ``2 * coverage - 1`` for any fit, and of about ``coverage`` for stable ones.

    Args:
        left_out: Shape (n, m): prediction of new item ``j`` by the fit without item ``i``.
        residuals: Shape (n,): absolute error of the fit without item ``i`` on item ``i``.
        coverage: Stated share of truths inside.

    Raises:
        ProfileError: Too few items for the coverage; says how many are needed.
        ValueError: The shapes do not fit.

    Source:
        Barber, Candès, Ramdas, Tibshirani, "Predictive inference with the jackknife+" (AoS 2021), equation 1.3.
    """
    centres, errors = np.asarray(left_out, dtype=float), np.asarray(residuals, dtype=float)
    if centres.ndim != 2 or errors.shape != (len(centres),):
        raise ValueError(f"left_out must be (n, m) and residuals (n,), got {centres.shape} and {errors.shape}")
    check_coverage(coverage)
    count = len(errors)
    high_rank = ceil((count + 1) * coverage - 1e-9)
    low_rank = floor((count + 1) * (1.0 - coverage) + 1e-9)
    if high_rank > count or low_rank < 1:
        refuse_too_few(count, coverage)
    low = np.partition(centres - errors[:, None], low_rank - 1, axis=0)[low_rank - 1]
    high = np.partition(centres + errors[:, None], high_rank - 1, axis=0)[high_rank - 1]
    return low, high


def cv_plus(
    fold_predictions: ArrayLike, folds: Sequence[int], residuals: ArrayLike, coverage: float
) -> tuple[FloatArray, FloatArray]:
    """Return both ends of the CV+ intervals of new items: jackknife+ where a fit leaves out a fold at a time.

    Args:
        fold_predictions: Shape (folds, m): prediction of new item ``j`` by the fit without fold ``k``.
        folds: Fold of each of the n items.
        residuals: Shape (n,): absolute error of item ``i`` under the fit without its fold.
        coverage: Stated share of truths inside.

    Raises:
        ProfileError: Too few items for the coverage; says how many are needed.
        ValueError: The shapes do not fit, or a fold has no predictions.

    Source:
        Barber et al. (AoS 2021), section 3.
    """
    predictions, index = np.asarray(fold_predictions, dtype=float), np.asarray(folds, dtype=int)
    if predictions.ndim != 2 or len(index) == 0 or index.min() < 0 or index.max() >= len(predictions):
        raise ValueError(f"fold_predictions must be (folds, m) for folds 0 to {max(folds, default=0)}")
    return jackknife_plus(predictions[index], residuals, coverage)
