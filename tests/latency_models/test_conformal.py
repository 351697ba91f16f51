"""Conformal intervals keep their stated coverage on fresh data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latency_models.conformal import conformal_quantile, held_out_coverage, log_score, needed, ratio_interval
from nas.core.errors import ProfileError


@pytest.mark.parametrize(("coverage", "count"), [(0.5, 1), (0.8, 4), (0.9, 9), (0.95, 19), (0.99, 99)])
def test_needed_is_the_least_count_that_works(coverage: float, count: int) -> None:
    assert needed(coverage) == count
    assert conformal_quantile([1.0] * count, coverage) == 1.0
    with pytest.raises(ProfileError, match=f"needs at least {count} held-out networks, got {count - 1}"):
        conformal_quantile([1.0] * (count - 1), coverage)


def test_quantile_of_a_worked_example() -> None:
    # ceil(11 * 0.8) = 9: the ninth smallest of ten.
    assert conformal_quantile([float(value) for value in range(10)], 0.8) == 8.0


def test_fresh_values_fall_inside_with_the_stated_probability() -> None:
    generator = np.random.default_rng(0)
    hits = []
    for _ in range(2000):
        ratios = np.exp(generator.standard_t(3, 21) * 0.1)
        low, high = ratio_interval([log_score([ratio], 1.0) for ratio in ratios[:20]], 0.9)
        hits.append(low <= ratios[20] <= high)
    # The exact probability is ceil(21 * 0.9) / 21 = 0.905; four standard errors are 0.026.
    assert np.mean(hits) == pytest.approx(19 / 21, abs=0.027)


def test_held_out_coverage_counts_a_lone_outlier() -> None:
    scores = [0.01 * index for index in range(19)] + [2.0]
    assert held_out_coverage(scores, scores, 0.9) == pytest.approx(0.9)  # ranks 19 and 20 of 20 miss


def test_score_is_that_of_the_worst_repeat_in_either_direction() -> None:
    assert log_score([2.0, 0.25, 1.0], 1.0) == pytest.approx(np.log(4.0))


def test_held_out_coverage_is_unknown_with_too_few() -> None:
    assert held_out_coverage([1.0] * 9, [1.0] * 9, 0.9) is None


@given(st.lists(st.floats(0.1, 10.0), min_size=9, max_size=40))
def test_interval_holds_the_prediction_itself(measured: list[float]) -> None:
    low, high = ratio_interval([log_score([value], 1.0) for value in measured], 0.9)
    assert low <= 1.0 <= high
    assert low * high == pytest.approx(1.0)
