"""Corrections for selection restore the coverage that selecting by a prediction takes away, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy.stats import t as student

from latency_models.selection import Correction, bounded_selection, jackknife_draws, replay_selection
from nas.core.cost import Interval
from nas.core.errors import ProfileError

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIGMA = 0.05
HALF_WIDTH = 1.645 * SIGMA  # holds 90 % of errors of SIGMA


def fastest(count: int) -> Any:
    return lambda predicted: np.argsort(predicted)[:count]


def everyone(predicted: NDArray[np.float64]) -> NDArray[np.intp]:
    return np.arange(len(predicted))


def replay(predicted: Any, select: Any, generator: np.random.Generator, **changes: Any) -> Correction:
    options: dict[str, Any] = {"half_width": HALF_WIDTH, "coverage": 0.9, "rng": generator, "replays": 100}
    residuals = changes.pop("residuals", SIGMA * generator.standard_normal(60))
    return replay_selection(predicted, select, residuals, **(options | changes))


def inside(errors: NDArray[np.float64], correction: Correction) -> float:
    found = correction.interval(1.0, Interval(low=np.exp(-HALF_WIDTH), high=np.exp(HALF_WIDTH), coverage=0.9))
    return float(np.mean((np.exp(errors) >= found.low) & (np.exp(errors) <= found.high)))


def test_selected_by_a_noisy_prediction_are_covered_again() -> None:
    generator = np.random.default_rng(0)
    before, after, shifts = [], [], []
    for _ in range(40):
        truth = 0.1 * generator.standard_normal(400)
        errors = SIGMA * generator.standard_normal(400)  # independent of the truth: the prediction is what is off
        predicted = truth - errors
        chosen = fastest(20)(predicted)
        draws = SIGMA * generator.standard_normal((200, 400))
        correction = replay(np.exp(predicted), fastest(20), generator, estimation_errors=draws)
        before.append(np.mean(np.abs(errors[chosen]) <= HALF_WIDTH))
        after.append(inside(errors[chosen], correction))
        shifts.append(np.log(correction.high_shift_ratio) - errors[chosen].mean())
    # 40 fronts of 20: two binomial errors are 0.021.
    assert np.mean(before) < 0.85
    assert 0.88 <= np.mean(after) <= 0.95
    # The replay takes predictions, which spread by a quarter more in variance, for the truth: it finds a little less.
    assert np.mean(shifts) == pytest.approx(0.0, abs=0.012)


def test_without_draws_the_correction_is_an_upper_bound() -> None:
    generator = np.random.default_rng(1)
    truth = 0.1 * generator.standard_normal(400)
    errors = SIGMA * generator.standard_normal(400)
    correction = replay(np.exp(truth - errors), fastest(20), generator)
    assert correction.low_shift_ratio == 1.0
    assert correction.high_shift_ratio > 1.01
    assert inside(errors[fastest(20)(truth - errors)], correction) >= 0.9


@pytest.mark.parametrize("select", [everyone, fastest(20)])
def test_errors_that_no_prediction_knows_need_no_correction(select: Any) -> None:
    generator = np.random.default_rng(2)
    correction = replay(
        np.exp(0.1 * generator.standard_normal(400)), select, generator, estimation_errors=np.zeros((4, 400))
    )
    assert correction.high_shift_ratio == pytest.approx(1.0, abs=0.003)
    assert correction.widening_ratio == pytest.approx(1.0, abs=0.06)
    assert correction.seen_before == pytest.approx(correction.seen_random, abs=0.03)


def test_selecting_everyone_changes_nothing() -> None:
    generator = np.random.default_rng(3)
    draws = SIGMA * generator.standard_normal((64, 300))
    correction = replay(np.exp(generator.standard_normal(300)), everyone, generator, estimation_errors=draws)
    assert correction.high_shift_ratio == pytest.approx(1.0, abs=0.004)
    assert correction.widening_ratio == pytest.approx(1.0, abs=0.01)
    assert correction.selected == 300.0
    assert correction.seen_random == pytest.approx(0.9, abs=0.03)


def test_an_error_common_to_all_candidates_is_no_optimism() -> None:
    generator = np.random.default_rng(4)
    draws = np.repeat(SIGMA * generator.standard_normal((64, 1)), 200, axis=1)
    correction = replay(np.exp(generator.standard_normal(200)), fastest(5), generator, estimation_errors=draws)
    # One number a replay: of 100 replays the median is known to 1.25 / 10 of SIGMA.
    assert np.log(correction.high_shift_ratio) == pytest.approx(0.0, abs=4 * 0.125 * SIGMA)


def test_corrected_interval_shifts_and_widens_around_the_prediction() -> None:
    correction = Correction(
        coverage=0.9,
        low_shift_ratio=1.0,
        high_shift_ratio=1.02,
        widening_ratio=2.0,
        seen_before=None,
        seen_after=None,
        seen_random=None,
        replays=0,
        pool=10,
        selected=2.0,
    )
    found = correction.interval(100.0, Interval(low=80.0, high=110.0, coverage=0.9))
    assert (found.low, found.high) == pytest.approx((64.0, 1.02 * 121.0))


def test_bound_for_all_candidates_is_the_plain_interval() -> None:
    residuals = np.linspace(-0.1, 0.1, 24)
    assert bounded_selection(residuals, selected=7, pool=7, coverage=0.9).widening_ratio == 1.0


def test_bound_for_one_of_five_is_the_quantile_of_a_fifth_of_the_misses() -> None:
    residuals = [0.01 * value for value in range(1, 100)]  # 99 scores: 0.9 is the 90th, 0.98 the 98th
    found = bounded_selection(residuals, selected=1, pool=5, coverage=0.9)
    assert found.widening_ratio == pytest.approx(0.98 / 0.90)


def test_bound_beyond_the_residuals_goes_on_as_students_distribution() -> None:
    found = bounded_selection([0.01 * value for value in range(1, 21)], selected=10, pool=1000, coverage=0.9)
    assert found.widening_ratio == pytest.approx(student.ppf(0.9995, 19) / student.ppf(0.95, 19))


def test_bound_covers_the_selected() -> None:
    generator = np.random.default_rng(5)
    shares = []
    for _ in range(60):
        residuals = SIGMA * generator.standard_normal(24)
        errors = SIGMA * generator.standard_normal(300)
        found = bounded_selection(residuals, selected=10, pool=300, coverage=0.9)
        plain = float(np.sort(np.abs(residuals))[22])  # ceil(25 * 0.9) = 23rd of 24
        chosen = np.argsort(-errors)[:10]
        shares.append(np.mean(np.abs(errors[chosen]) <= found.widening_ratio * plain))
    assert np.mean(shares) >= 0.9


def test_refits_on_parts_are_inflated_by_what_they_lack() -> None:
    generator = np.random.default_rng(6)
    data = generator.normal(size=(3000, 30))
    refits = np.array([np.exp(data[:, generator.permutation(30)[:20]].mean(axis=1)) for _ in range(100)])
    draws = jackknife_draws(refits, np.exp(data.mean(axis=1)), inflation=2.0)
    # The standard error of a mean of 30.
    assert np.sqrt((draws**2).mean()) == pytest.approx(1 / np.sqrt(30), rel=0.03)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"residuals": [0.1]}, "at least 2 residuals"),
        ({"half_width": 0.0}, "half-width above 0"),
        ({"estimation_errors": np.zeros((3, 4))}, r"must be \(R, 5\)"),
    ],
)
def test_senseless_replays_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replay(np.ones(5), everyone, np.random.default_rng(0), **changes)


def test_senseless_bounds_are_refused() -> None:
    with pytest.raises(ValueError, match="selected must lie in 1 to 5"):
        bounded_selection([0.1] * 20, selected=6, pool=5, coverage=0.9)
    with pytest.raises(ProfileError, match="needs at least 9 held-out networks, got 5"):
        bounded_selection([0.1] * 5, selected=1, pool=5, coverage=0.9)
    with pytest.raises(ValueError, match="numbers above 0"):
        replay(np.array([1.0, 0.0]), everyone, np.random.default_rng(0))
    with pytest.raises(ValueError, match="selected nothing"):
        replay(np.ones(5), lambda _: np.zeros(0, dtype=int), np.random.default_rng(0))
