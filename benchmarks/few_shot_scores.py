"""Scores of a latency predictor on networks it did not measure. scipy is imported where it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from few_shot_baselines import Prediction

BUDGET_QUANTILES = (0.1, 0.3, 0.5, 0.7, 0.9)  # of the true latency; what a search is asked to stay under
VIOLATION_RATIO = 1.05  # a budget exceeded by more counts as violated
CLOSE_RATIO = 0.1


def spearman(predicted: np.ndarray, true: np.ndarray) -> float:
    """Return the rank correlation, ties at their mean rank; 0 where one side is constant."""
    from scipy.stats import rankdata

    first, second = rankdata(predicted), rankdata(true)
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def accuracy(predicted_ms: np.ndarray, true_ms: np.ndarray) -> dict[str, float]:
    """Return rank correlation, mean absolute error in percent, and the share within 10 %."""
    errors = np.abs(predicted_ms / true_ms - 1.0)
    return {
        "spearman": spearman(predicted_ms, true_ms),
        "mape_percent": 100.0 * float(errors.mean()),
        "within_10_ratio": float(np.mean(errors <= CLOSE_RATIO)),
    }


def interval(prediction: Prediction, true_ms: np.ndarray) -> dict[str, float | None]:
    """Return coverage and median half-width (a ratio of the median) of the two-sided interval.

    All None where the predictor has no interval.
    """
    if prediction.low_ms is None or prediction.high_ms is None or prediction.upper_ms is None:
        return {"coverage_ratio": None, "half_width_ratio": None, "upper_coverage_ratio": None}
    inside = (prediction.low_ms <= true_ms) & (true_ms <= prediction.high_ms)
    width = (prediction.high_ms - prediction.low_ms) / 2.0 / prediction.median_ms
    return {
        "coverage_ratio": float(inside.mean()),
        "half_width_ratio": float(np.median(width)),
        "upper_coverage_ratio": float(np.mean(true_ms <= prediction.upper_ms)),
    }


def budget_choices(prediction: Prediction, true_ms: np.ndarray, quality: np.ndarray) -> dict[str, Any]:
    """Return the scores of a choice by the predicted median and of one by the upper bound, where there is one."""
    by_median = budget_choice(prediction.median_ms, true_ms, quality)
    if prediction.upper_ms is None:
        return {"choice_by_median": by_median, "choice_by_upper": by_median}
    return {"choice_by_median": by_median, "choice_by_upper": budget_choice(prediction.upper_ms, true_ms, quality)}


def budget_choice(bound_ms: np.ndarray, true_ms: np.ndarray, quality: np.ndarray) -> dict[str, float | None]:
    """Choose the best network under each of five budgets by ``bound_ms``; score what it truly costs.

    Where nothing is predicted to fit, the network of smallest bound is taken.

    Returns:
        ``violation_ratio``: share of budgets exceeded by more than 5 %. ``regret``: quality below that of the best
        network that truly fits, mean over the budgets that hold, at least 0 each; None where none holds.
    """
    violations, regrets = 0, []
    for budget_ms in np.quantile(true_ms, BUDGET_QUANTILES):
        fits = np.flatnonzero(bound_ms <= budget_ms)
        chosen = fits[np.argmax(quality[fits])] if len(fits) else np.argmin(bound_ms)
        if true_ms[chosen] > VIOLATION_RATIO * budget_ms:
            violations += 1
            continue
        best = quality[true_ms <= budget_ms].max()
        regrets.append(max(0.0, float(best - quality[chosen])))
    return {
        "violation_ratio": violations / len(BUDGET_QUANTILES),
        "regret": float(np.mean(regrets)) if regrets else None,
    }


def twin_ceiling(first_ms: np.ndarray, second_ms: np.ndarray) -> dict[str, float]:
    """Return what a predictor of the true mean could reach against single readings, from pairs of equal networks.

    Both readings are off by the same noise, so one of them is off by the difference over the root of two, and ranks of
    truth and reading correlate by the root of what ranks of two readings do (correction for attenuation).
    """
    off = np.exp(np.log(first_ms / second_ms) / np.sqrt(2.0)) - 1.0
    return {
        "pairs": len(first_ms),
        "spearman": float(np.sqrt(max(spearman(first_ms, second_ms), 0.0))),
        "mape_percent": 100.0 * float(np.abs(off).mean()),
        "within_10_ratio": float(np.mean(np.abs(off) <= CLOSE_RATIO)),
    }
