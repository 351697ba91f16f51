"""Scores, baselines and the Gaussian process of the few-shot comparison, against closed forms and other libraries."""

from __future__ import annotations

import numpy as np
import pytest
from few_shot_baselines import BASELINES, Background, Prediction, source_curve
from few_shot_gp import choose_by_variance, factor_block, fit_process, scaled_block
from few_shot_scores import accuracy, budget_choice, budget_choices, interval, spearman, twin_ceiling
from scipy import stats

MEASURED = np.arange(12)
ASKED = np.arange(12, 40)


def background(seed: int = 0) -> Background:
    generator = np.random.default_rng(seed)
    one_hot = np.eye(4)[generator.integers(0, 4, (40, 3))].reshape(40, -1)
    work = generator.uniform(1.0, 9.0, 40)
    sources = np.log(np.column_stack([work + 2.0, generator.uniform(1, 9, 40), generator.uniform(1, 9, 40)]))
    blocks = (scaled_block(one_hot), scaled_block(work[:, None]), factor_block(sources, np.log(work)))
    features = np.column_stack([one_hot, work])
    return Background(features=features, one_hot=one_hot, work=work, source_log_ms=sources, blocks=blocks)


def error(method: str, known: Background, latency_ms: np.ndarray) -> float:
    predict = BASELINES[method](known, MEASURED, latency_ms[MEASURED], seed=0)
    return float(np.max(np.abs(predict(ASKED).median_ms / latency_ms[ASKED] - 1.0)))


def test_spearman_agrees_with_scipy_on_ties() -> None:
    generator = np.random.default_rng(0)
    first, second = generator.integers(0, 9, (2, 60)).astype(float)
    assert spearman(first, second) == pytest.approx(float(stats.spearmanr(first, second)[0]))


def test_constant_prediction_has_no_rank_correlation() -> None:
    assert spearman(np.ones(5), np.arange(5.0)) == 0.0


def test_accuracy_counts_less_than_ten_percent_as_close() -> None:
    scores = accuracy(np.array([109.9, 90.1, 111.0, 100.0]), np.full(4, 100.0))
    assert scores["within_10_ratio"] == 0.75
    assert scores["mape_percent"] == pytest.approx(7.7)


def test_interval_scores_count_both_ends() -> None:
    prediction = Prediction(
        median_ms=np.full(4, 10.0), low_ms=np.full(4, 9.0), high_ms=np.full(4, 12.0), upper_ms=np.full(4, 11.0)
    )
    scores = interval(prediction, np.array([9.0, 12.0, 8.9, 11.0]))
    assert scores == {"coverage_ratio": 0.75, "half_width_ratio": 0.15, "upper_coverage_ratio": 0.75}


def test_prediction_without_interval_has_no_coverage() -> None:
    assert set(interval(Prediction(median_ms=np.ones(2)), np.ones(2)).values()) == {None}


def test_perfect_prediction_keeps_every_budget_without_regret() -> None:
    generator = np.random.default_rng(1)
    true_ms, quality = generator.uniform(1, 10, 200), generator.uniform(50, 90, 200)
    assert budget_choice(true_ms, true_ms, quality) == {"violation_ratio": 0.0, "regret": 0.0}


def test_underestimate_of_the_best_network_breaks_every_budget_but_its_own() -> None:
    true_ms = np.linspace(1.0, 10.0, 101)
    quality = np.linspace(0.0, 100.0, 101)
    bound_ms = np.append(true_ms[:-1], 0.5)  # the slowest, most accurate one is thought to be the fastest
    assert budget_choice(bound_ms, true_ms, quality) == {"violation_ratio": 1.0, "regret": None}


def test_careful_bound_costs_quality_not_budgets() -> None:
    true_ms = np.linspace(1.0, 10.0, 101)
    scores = budget_choice(true_ms * 1.1, true_ms, true_ms)
    # Budgets are 1.9, 3.7, 5.5, 7.3, 9.1; the choice is the grid value below budget / 1.1.
    lost = [budget - np.floor((budget / 1.1 - 1.0) / 0.09 + 1e-9) * 0.09 - 1.0 for budget in (1.9, 3.7, 5.5, 7.3, 9.1)]
    assert scores["violation_ratio"] == 0.0
    assert scores["regret"] == pytest.approx(np.mean(lost))


def test_choice_by_upper_bound_is_more_careful_than_by_median() -> None:
    true_ms = np.linspace(1.0, 10.0, 101)
    prediction = Prediction(median_ms=0.9 * true_ms, low_ms=true_ms, high_ms=true_ms, upper_ms=true_ms)
    scores = budget_choices(prediction, true_ms, true_ms)
    assert scores["choice_by_upper"] == {"violation_ratio": 0.0, "regret": pytest.approx(0.0, abs=1e-9)}
    assert scores["choice_by_median"]["violation_ratio"] > 0.5


def test_twin_ceiling_is_that_of_a_perfect_predictor() -> None:
    generator = np.random.default_rng(2)
    truth = np.exp(generator.normal(0.0, 0.3, 20_000))
    first, second = (truth * np.exp(generator.normal(0.0, 0.06, 20_000)) for _ in range(2))
    known, found = accuracy(truth, first), twin_ceiling(first, second)
    assert found["spearman"] == pytest.approx(known["spearman"], abs=0.005)
    assert found["mape_percent"] == pytest.approx(known["mape_percent"], abs=0.15)
    assert found["within_10_ratio"] == pytest.approx(known["within_10_ratio"], abs=0.01)


@pytest.mark.parametrize(
    ("method", "tolerance"), [("flops", 1e-9), ("nearest", 1e-9), ("source_ridge", 0.01), ("gp_factors", 0.1)]
)
def test_device_proportional_to_one_source_is_found(method: str, tolerance: float) -> None:
    known = background()
    assert error(method, known, 3.0 * (known.work + 2.0)) < tolerance


def test_additive_table_finds_a_sum_of_costs() -> None:
    known = background()
    latency_ms = 5.0 + known.one_hot @ np.random.default_rng(3).uniform(0.0, 2.0, 12)
    enough = np.arange(30)
    predict = BASELINES["additive"](known, enough, latency_ms[enough], seed=0)
    assert predict(np.arange(30, 40)).median_ms == pytest.approx(latency_ms[30:], rel=0.01)


@pytest.mark.parametrize("method", ["constant", "boosting", "gp"])
def test_prediction_stays_in_the_range_of_what_was_measured(method: str) -> None:
    known = background()
    latency_ms = np.where(known.one_hot[:, 0] == 1, 20.0, 10.0)
    said = BASELINES[method](known, MEASURED, latency_ms[MEASURED], seed=0)(ASKED).median_ms
    assert said.min() > 9.0
    assert said.max() < 22.0


def test_extrapolated_line_never_says_a_time_below_zero() -> None:
    known = background()
    latency_ms = np.where(known.work > 5.0, 100.0, 0.01)
    said = BASELINES["flops"](known, MEASURED, latency_ms[MEASURED], seed=0)(ASKED).median_ms
    assert said.min() > 0.0


def test_source_curve_learns_a_device_from_some_networks() -> None:
    known = background()
    matrix = np.repeat(known.features, 10, axis=0)
    latency_ms = matrix[:, -1] + 3.0
    latency_ms[::7] = np.nan
    curve = source_curve(matrix, latency_ms, networks=200, rng=np.random.default_rng(0))
    assert np.nanmax(np.abs(np.exp(curve) / latency_ms - 1.0)) < 0.15


def test_process_predicts_as_scikit_learn_does_with_the_same_kernel() -> None:
    from sklearn.gaussian_process import GaussianProcessRegressor, kernels

    block = scaled_block(np.random.default_rng(4).normal(size=(40, 3)))
    latency_ms = np.exp(block @ np.array([0.5, -0.2, 0.1]) + 1.0)
    fitted = fit_process([block], MEASURED, latency_ms[MEASURED])
    linear, smooth, length, noise = np.exp(fitted.theta)
    kernel = (
        kernels.ConstantKernel(linear, "fixed") * kernels.DotProduct(0.0, "fixed")
        + kernels.ConstantKernel(smooth, "fixed") * kernels.RBF(np.sqrt(length), "fixed")
        + kernels.ConstantKernel(4.0, "fixed")
    )
    logs = np.log(latency_ms[MEASURED])
    peer = GaussianProcessRegressor(kernel, alpha=noise, optimizer=None).fit(block[MEASURED], logs - logs.mean())
    mean, deviation = peer.predict(block[ASKED], return_std=True)
    deviation = np.sqrt(deviation**2 + noise)
    median, low, high, upper = fitted.predict(ASKED)
    assert median == pytest.approx(np.exp(logs.mean() + mean), rel=1e-6)
    assert np.log(high / low) / 2.0 == pytest.approx(stats.norm.ppf(0.95) * deviation, rel=1e-4)
    assert np.log(upper / median) == pytest.approx(stats.norm.ppf(0.8) * deviation, rel=1e-4)


def test_gradient_of_the_likelihood_is_that_of_small_steps() -> None:
    from few_shot_gp import _loss

    block = scaled_block(np.random.default_rng(5).normal(size=(20, 2)))
    target = block @ np.array([0.4, 0.1]) + 0.05 * np.random.default_rng(6).normal(size=20)
    parts = [(block @ block.T, np.sum((block[:, None] - block[None]) ** 2, axis=2))]
    theta = np.array([-2.0, -3.0, 0.5, -5.0])
    value, gradient = _loss(theta, parts, target)
    for index in range(4):
        step = np.zeros(4)
        step[index] = 1e-6
        assert (_loss(theta + step, parts, target)[0] - value) / 1e-6 == pytest.approx(
            gradient[index], rel=1e-3, abs=1e-4
        )


def test_chosen_networks_leave_less_variance_than_random_ones() -> None:
    generator = np.random.default_rng(7)
    block = scaled_block(generator.normal(size=(200, 6)))
    everything = np.arange(200)
    chosen = choose_by_variance([block], everything, 8, rng=np.random.default_rng(0))
    assert len(set(chosen.tolist())) == 8

    def left(rows: np.ndarray) -> float:
        inner = block @ block.T
        known = inner[np.ix_(rows, rows)] + 0.02 * np.eye(len(rows))
        return float(np.trace(inner) - np.trace(inner[:, rows] @ np.linalg.solve(known, inner[rows])))

    random = [left(np.random.default_rng(seed).permutation(200)[:8]) for seed in range(20)]
    assert left(chosen) < np.median(random)
