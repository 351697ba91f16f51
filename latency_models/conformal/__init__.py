"""Intervals of stated coverage around any predictor, from arrays of held-out errors alone.

Every function takes plain arrays. For positive quantities such as times, pass logarithms: an interval of the logarithm
is an interval of the ratio.
"""

from latency_models.conformal.jackknife import cv_plus, jackknife_plus
from latency_models.conformal.repeats import ErrorParts, error_parts, pass_shifts, session_errors, session_scores
from latency_models.conformal.shift import likelihood_ratio_weights
from latency_models.conformal.split import (
    conformal_quantile,
    group_held_out_coverage,
    group_quantile,
    held_out_coverage,
    log_score,
    needed,
    ratio_interval,
    weighted_quantile,
)

__all__ = [
    "ErrorParts",
    "conformal_quantile",
    "cv_plus",
    "error_parts",
    "group_held_out_coverage",
    "group_quantile",
    "held_out_coverage",
    "jackknife_plus",
    "likelihood_ratio_weights",
    "log_score",
    "needed",
    "pass_shifts",
    "ratio_interval",
    "session_errors",
    "session_scores",
    "weighted_quantile",
]
