"""Conformal intervals keep their stated coverage on fresh data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latency_models.conformal import (
    conformal_quantile,
    cv_plus,
    error_parts,
    group_held_out_coverage,
    group_quantile,
    held_out_coverage,
    jackknife_plus,
    likelihood_ratio_weights,
    log_score,
    needed,
    pass_shifts,
    ratio_interval,
    session_errors,
    session_scores,
    weighted_quantile,
)
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


def test_equal_weights_give_the_plain_quantile() -> None:
    scores = np.random.default_rng(0).exponential(size=37)
    for coverage in (0.5, 0.8, 0.9, 0.95):
        assert weighted_quantile(scores, np.full(37, 2.5), coverage, own_weight=2.5) == conformal_quantile(
            scores, coverage
        )


def test_weighted_quantile_of_a_worked_example() -> None:
    # Shares with an own weight of 1: 3/8, 1/8, 3/8, and 1/8 at infinity; sums in order of score: 1/8, 4/8, 7/8.
    found = weighted_quantile([2.0, 1.0, 3.0], [3.0, 1.0, 3.0], 0.5, own_weight=[1.0, 9.0, 0.0])
    assert found.tolist() == [2.0, np.inf, 2.0]
    assert weighted_quantile([2.0, 1.0, 3.0], [3.0, 1.0, 3.0], 0.875) == 3.0
    assert weighted_quantile([2.0, 1.0, 3.0], [3.0, 1.0, 3.0], 0.88) == np.inf


@pytest.mark.parametrize(
    ("weights", "message"),
    [([1.0, -1.0], "not negative"), ([1.0, float("nan")], "finite"), ([1.0], "must be \\(n,\\) alike")],
)
def test_senseless_weights_are_refused(weights: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        weighted_quantile([1.0, 2.0], weights, 0.9)


def test_groups_of_one_score_give_the_plain_quantile() -> None:
    scores = np.random.default_rng(1).exponential(size=25)
    assert group_quantile([[score] for score in scores], 0.9) == conformal_quantile(scores, 0.9)


def test_a_group_counts_once_however_many_scores_it_has() -> None:
    groups = [[0.1 * index] for index in range(18)] + [[5.0] * 1000]
    # 19 groups at 0.9: 18 groups of the 20 with the fresh one, so the crowded group stays outside.
    assert group_quantile(groups, 0.9) == pytest.approx(1.7)


def test_too_few_groups_say_how_many_are_needed() -> None:
    with pytest.raises(ProfileError, match="needs at least 9 held-out phones, got 8"):
        group_quantile([[1.0, 2.0]] * 8, 0.9, items="held-out phones")
    with pytest.raises(ValueError, match="at least one score"):
        group_quantile([[1.0]] * 9 + [[]], 0.9)


def test_group_quantile_covers_one_fresh_score_of_a_fresh_group() -> None:
    generator = np.random.default_rng(2)
    hits = []
    for _ in range(1500):
        effect, noise = generator.normal(size=20), generator.normal(size=(20, 3))
        scores = np.abs(effect[:, None] + noise)
        hits.append(scores[0, 0] <= group_quantile(list(scores[1:]), 0.9))
    # At least 0.9; above it by at most 2 of 20 (Lee et al., theorem 2), four standard errors of 1,500 are 0.031.
    assert 0.9 - 0.031 <= np.mean(hits) <= 0.9 + 2 / 20


def test_group_held_out_coverage_averages_the_shares_of_the_groups() -> None:
    groups = [[0.01 * index] for index in range(19)] + [[0.0, 9.0]]
    # Half of the last group lies beyond all others; the rank-18 group's limit is 0.18 (its own score left out).
    assert group_held_out_coverage(groups, 0.9) == pytest.approx((18 + 0.5) / 20, abs=0.051)
    assert group_held_out_coverage([[1.0]] * 9, 0.9) is None


def brute_jackknife_plus(x: np.ndarray, y: np.ndarray, fresh: float, coverage: float) -> tuple[float, float]:
    """Equation 1.3 of Barber et al. (2021) by loops, with the least-squares line as fit."""
    low, high = [], []
    for i in range(len(x)):
        slope, constant = np.polyfit(np.delete(x, i), np.delete(y, i), 1)
        error = abs(y[i] - (slope * x[i] + constant))
        low.append(slope * fresh + constant - error)
        high.append(slope * fresh + constant + error)
    # The coverage is a multiple of 1/(n+1) here, so ranks need no rounding.
    rank = round((len(x) + 1) * coverage)
    return sorted(low)[len(x) - rank], sorted(high)[rank - 1]


def left_out_lines(x: np.ndarray, y: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    fits = [np.polyfit(np.delete(x, i), np.delete(y, i), 1) for i in range(len(x))]
    residuals = np.array([abs(y[i] - np.polyval(fit, x[i])) for i, fit in enumerate(fits)])
    return np.array([np.polyval(fit, points) for fit in fits]), residuals


def test_jackknife_plus_equals_brute_force() -> None:
    generator = np.random.default_rng(3)
    x, y = generator.normal(size=19), generator.normal(size=19)
    points = np.array([-3.0, 0.0, 4.0])
    left_out, residuals = left_out_lines(x, y, points)
    low, high = jackknife_plus(left_out, residuals, 0.9)
    expected = [brute_jackknife_plus(x, y, point, 0.9) for point in points]
    assert np.column_stack([low, high]) == pytest.approx(np.array(expected))


def test_jackknife_plus_covers_where_few_samples_leave_the_fit_unstable() -> None:
    generator = np.random.default_rng(4)
    hits = []
    for _ in range(1000):
        x = generator.standard_t(3, size=12)
        y = 2.0 * x + generator.normal(size=12)
        left_out, residuals = left_out_lines(x[:11], y[:11], x[11:])
        low, high = jackknife_plus(left_out, residuals, 0.9)
        hits.append(low[0] <= y[11] <= high[0])
    # Guaranteed 0.8, near 0.9 for a stable fit; 11 items give 11/12 = 0.917; four standard errors are 0.038.
    assert 0.9 - 0.038 <= np.mean(hits) <= 0.917 + 0.038


def test_cv_plus_with_a_fold_per_item_is_jackknife_plus() -> None:
    generator = np.random.default_rng(5)
    left_out, residuals = generator.normal(size=(10, 4)), generator.exponential(size=10)
    for ours, theirs in zip(
        cv_plus(left_out, list(range(10)), residuals, 0.8), jackknife_plus(left_out, residuals, 0.8), strict=True
    ):
        assert ours.tolist() == theirs.tolist()


def test_cv_plus_of_a_worked_example() -> None:
    # Nine items in two folds that predict 10 and 20 with errors 0 to 8: the outermost ends at coverage 0.9.
    low, high = cv_plus([[10.0], [20.0]], [0, 0, 0, 0, 0, 1, 1, 1, 1], [0, 1, 2, 3, 4, 5, 6, 7, 8], 0.9)
    assert (low[0], high[0]) == (6.0, 28.0)


def test_jackknife_plus_refuses_too_few_and_shapes_that_do_not_fit() -> None:
    with pytest.raises(ProfileError, match="needs at least 9 held-out networks, got 8"):
        jackknife_plus(np.zeros((8, 1)), np.zeros(8), 0.9)
    with pytest.raises(ValueError, match="must be \\(n, m\\)"):
        jackknife_plus(np.zeros((9, 1)), np.zeros(8), 0.9)
    with pytest.raises(ValueError, match="for folds 0 to 2"):
        cv_plus(np.zeros((2, 1)), [0, 1, 2], np.zeros(3), 0.5)


def test_likelihood_ratio_weights_follow_the_ratio_of_densities() -> None:
    generator = np.random.default_rng(6)
    here, there = generator.normal(size=(1500, 1)), generator.normal(1.0, 1.0, size=(1500, 1))
    weights, own = likelihood_ratio_weights(here, there)
    # N(1, 1) over N(0, 1) is exp(x - 1/2).
    assert np.log(weights) == pytest.approx(here[:, 0] - 0.5, abs=0.25)
    assert np.log(own) == pytest.approx(there[:, 0] - 0.5, abs=0.25)


def test_weights_restore_the_coverage_that_a_shift_takes() -> None:
    generator = np.random.default_rng(7)
    plain, weighted = [], []
    for _ in range(100):
        here, there = generator.uniform(0, 1, size=(200, 1)), generator.beta(4, 1, size=(100, 1))
        scores = np.abs(generator.normal(size=200)) * (0.2 + here[:, 0])  # errors grow with x, targets crowd at high x
        truths = np.abs(generator.normal(size=100)) * (0.2 + there[:, 0])
        weights, own = likelihood_ratio_weights(here, there)
        plain.append(np.mean(truths <= conformal_quantile(scores, 0.9)))
        weighted.append(np.mean(truths <= weighted_quantile(scores, weights, 0.9, own_weight=own)))
    # 100 means of 100 with a spread of about 0.04 each: four standard errors are 0.016.
    assert np.mean(plain) < 0.85
    assert np.mean(weighted) == pytest.approx(0.9, abs=0.02)


def test_features_that_differ_in_number_are_refused() -> None:
    with pytest.raises(ValueError, match="features must be"):
        likelihood_ratio_weights([[0.0]], [[0.0, 1.0]])


def test_interpolated_quantile_of_a_worked_example() -> None:
    # (24 + 1) * 0.9 = 22.5: half way from the 22nd to the 23rd of 24.
    scores = [float(value) for value in range(1, 25)]
    assert conformal_quantile(scores, 0.9, interpolated=True) == pytest.approx(22.5)
    assert conformal_quantile(scores, 0.9) == 23.0
    assert conformal_quantile(scores[:19], 0.9, interpolated=True) == conformal_quantile(scores[:19], 0.9) == 18.0


def test_interpolated_groups_and_weights_take_the_place_between_two_scores() -> None:
    # Sums of shares of 3 are 0.5, 1, 2 and 3 with the fresh one; 0.6 * 3 = 1.8 is eight tenths of the way to the third.
    assert group_quantile([[1.0, 2.0], [3.0]], 0.6, interpolated=True) == pytest.approx(2.8)
    found = weighted_quantile([1.0, 2.0], [1.0, 1.0], 0.6, own_weight=[0.0, 1.0, 9.0], interpolated=True)
    assert found == pytest.approx([1.2, 1.8, np.inf])
    assert weighted_quantile([5.0], [1.0], 0.2, interpolated=True) == 5.0


def test_interpolated_quantile_covers_the_stated_share_of_falling_densities() -> None:
    generator = np.random.default_rng(10)
    scores = np.abs(generator.normal(size=(10000, 25)))
    hits = [row[24] <= conformal_quantile(row[:24], 0.9, interpolated=True) for row in scores]
    # At least 0.9 and at most 23/25 = 0.92; four standard errors are 0.012.
    assert 0.9 - 0.012 <= np.mean(hits) <= 0.92


def test_pass_shifts_are_what_items_have_in_common() -> None:
    assert pass_shifts([[0.0, 0.1, 0.3], [5.0, 5.1, 5.3], [1.0, 1.1]]).tolist() == pytest.approx([-0.1, 0.0, 0.2])


def test_session_scores_put_each_items_median_under_each_shift() -> None:
    scores = session_scores([[0.0, 0.1, 0.3], [-5.0, -4.9, -4.7], [1.0, 1.1, 1.3]])
    assert [row.tolist() for row in scores] == [
        pytest.approx([0.0, 0.1, 0.3]),
        pytest.approx([5.0, 4.9, 4.7]),
        pytest.approx([1.0, 1.1, 1.3]),
    ]


def test_session_scores_cover_the_median_of_a_fresh_item_in_a_shifted_session() -> None:
    generator = np.random.default_rng(11)
    hits, plain = [], []
    for _ in range(600):
        model, noise = generator.normal(size=31), 0.5 * generator.standard_t(3, size=(31, 5))
        shift = generator.normal(size=6)
        errors = model[:30, None] + noise[:30] + shift[:5]
        # The shift common to the whole first session is part of what its own centres say.
        errors -= np.median(shift[:5])
        fresh = abs(model[30] + np.median(noise[30]) + shift[5] - np.median(shift[:5]))
        hits.append(fresh <= group_quantile(session_scores(errors), 0.9, interpolated=True))
        plain.append(fresh <= conformal_quantile(np.abs(np.median(errors, axis=1)), 0.9, interpolated=True))
    # Four standard errors of 600 are 0.05.
    assert np.mean(hits) >= 0.9 - 0.05
    assert np.mean(plain) < 0.85


def test_stated_shift_covers_a_later_session_that_the_passes_do_not_show() -> None:
    generator = np.random.default_rng(13)
    hits, plain = [], []
    for _ in range(600):
        errors = generator.normal(size=(31, 1)) + 0.1 * generator.normal(size=(31, 3))
        fresh = abs(np.median(errors[30]) + 1.5 * generator.normal())
        hits.append(fresh <= group_quantile(session_scores(errors[:30], stated_shift=1.5), 0.9, interpolated=True))
        plain.append(fresh <= group_quantile(session_scores(errors[:30]), 0.9, interpolated=True))
    # Four standard errors of 600 are 0.05.
    assert 0.9 - 0.05 <= np.mean(hits) <= 0.9 + 0.05
    assert np.mean(plain) < 0.75


def test_stated_shift_adds_nothing_to_passes_that_show_as_much() -> None:
    errors = [[0.0, 0.1, 0.3], [-5.0, -4.9, -4.7], [1.0, 1.1, 1.3]]
    assert [row.tolist() for row in session_errors(errors, stated_shift=0.1)] == [
        row.tolist() for row in session_errors(errors)
    ]


@given(shift=st.floats(0.0, 0.5), errors=st.lists(st.lists(st.floats(-1, 1), min_size=3, max_size=3), min_size=2))
def test_shifts_of_a_session_have_at_least_the_stated_spread(shift: float, errors: list[list[float]]) -> None:
    (first, *_) = session_errors(errors, stated_shift=shift)
    assert np.mean((first - np.median(errors[0])) ** 2) >= 2 / 3 * shift**2 - 1e-12  # of 3 passes, 2 are free


def test_error_parts_are_found_again() -> None:
    generator = np.random.default_rng(12)
    model, shift = 0.04 * generator.normal(size=4000), 0.03 * generator.normal(size=40)
    errors = model[:, None] + shift + 0.02 * generator.normal(size=(4000, 40))
    found = error_parts(list(errors))
    assert found is not None
    assert found.repeat_ratio == pytest.approx(0.02, rel=0.02)
    assert found.model_ratio == pytest.approx(0.04, rel=0.06)
    assert found.shift_ratio == pytest.approx(0.03, rel=0.4)  # of 40 passes only
    assert error_parts([[0.1], [0.2, 0.3]]) is None
