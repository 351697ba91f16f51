"""The pieces of few-shot transfer against closed forms, finite differences and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest

from latency_models.transfer.choice import least_variance
from latency_models.transfer.curves import scaled_features
from latency_models.transfer.intervals import Replays, borrowed_level, own_scale, quantile
from latency_models.transfer.kernels import (
    LEVEL_VARIANCE,
    Coordinates,
    log_likelihood,
    parts,
    prior_variance,
    shared_factors,
    squared_distances,
    terms,
)
from latency_models.transfer.population import fit_covariance, spread_population
from latency_models.transfer.posterior import FREEDOM, condition, fresh_noise
from nas.core.errors import ProfileError

THETA = np.log(np.array([0.08, 0.02, 0.01, 0.03, 0.002, 1.5, 3.0]))


def make_coordinates(count: int, *, seed: int = 0) -> Coordinates:
    rng = np.random.default_rng(seed)
    return Coordinates(shared=rng.standard_normal((count, 3)) / 2, own=rng.standard_normal((count, 5)) / 2)


def draw_latency(at: Coordinates, theta: np.ndarray, *, seed: int, outliers: int = 0) -> np.ndarray:
    """A function from the prior at level 2, with normal noise and some readings a factor of two too slow."""
    rng = np.random.default_rng(seed)
    covariance = np.sum(terms(theta, parts(at, at)), axis=0)
    clean = rng.multivariate_normal(np.full(len(at.own), 2.0), covariance)
    noisy = clean + np.exp(theta[4] / 2) * rng.standard_normal(len(clean))
    noisy[rng.permutation(len(noisy))[:outliers]] += np.log(2.0)
    return np.asarray(noisy)


@pytest.mark.parametrize("parameter", range(7))
def test_likelihood_gradient_agrees_with_finite_differences(parameter: int) -> None:
    at = make_coordinates(25)
    target = draw_latency(at, THETA, seed=1) - 2.0
    precision = np.random.default_rng(2).uniform(0.3, 1.2, size=25)
    step = np.zeros(7)
    step[parameter] = 1e-5
    above, _ = log_likelihood(THETA + step, parts(at, at), target, precision)
    below, _ = log_likelihood(THETA - step, parts(at, at), target, precision)
    _, gradient = log_likelihood(THETA, parts(at, at), target, precision)
    assert gradient[parameter] == pytest.approx((above - below) / 2e-5, rel=1e-4, abs=1e-5)


def test_likelihood_is_the_density_of_a_normal() -> None:
    from scipy.stats import multivariate_normal

    at = make_coordinates(12)
    target = draw_latency(at, THETA, seed=1) - 2.0
    covariance = np.sum(terms(THETA, parts(at, at)), axis=0) + LEVEL_VARIANCE + np.exp(THETA[4]) * np.eye(12)
    value, _ = log_likelihood(THETA, parts(at, at), target, np.ones(12))
    assert value == pytest.approx(multivariate_normal(np.zeros(12), covariance).logpdf(target), rel=1e-6)


def test_prior_variance_is_the_diagonal_of_the_covariance() -> None:
    at = make_coordinates(9)
    np.testing.assert_allclose(prior_variance(THETA, at), np.diag(np.sum(terms(THETA, parts(at, at)), axis=0)))


def test_left_out_predictions_follow_readings_of_smooth_latency() -> None:
    at = make_coordinates(40)
    latency = draw_latency(at, THETA, seed=3)
    population = spread_population([THETA] * 20, rng=np.random.default_rng(0))
    mean, variance = condition(at, latency, population, rng=np.random.default_rng(0)).left_out()
    assert np.corrcoef(mean, latency)[0, 1] > 0.5
    assert 0.5 < np.mean((latency - mean) ** 2 / variance) < 1.5


def test_stray_readings_move_the_prediction_little() -> None:
    at = make_coordinates(80)
    known, asked = at.rows(np.arange(30)), at.rows(np.arange(30, 80))
    population = spread_population([THETA] * 20, rng=np.random.default_rng(0))
    shifts = []
    for seed in range(6):
        means = []
        for outliers in (0, 3):
            latency = draw_latency(at, THETA, seed=seed, outliers=0)[:30]
            latency[:outliers] += np.log(2.0)
            means.append(condition(known, latency, population, rng=np.random.default_rng(0)).predict(asked)[0])
        shifts.append(np.abs(means[1] - means[0]).mean())
    # Three readings out of thirty doubled: least squares would move the level alone by log(2) / 10 = 0.07.
    assert np.mean(shifts) < 0.05


def test_posterior_weights_are_a_distribution() -> None:
    at = make_coordinates(15)
    population = spread_population([THETA], rng=np.random.default_rng(0))
    posterior = condition(at, draw_latency(at, THETA, seed=4), population, rng=np.random.default_rng(0))
    assert posterior.weights.sum() == pytest.approx(1.0)
    assert (posterior.weights >= 0).all()


def test_variance_is_least_at_measured_networks_and_grows_to_the_prior() -> None:
    at = make_coordinates(15)
    far = Coordinates(shared=np.full((1, 3), 30.0), own=np.full((1, 5), 30.0))
    population = spread_population([THETA] * 20, rng=np.random.default_rng(0))
    posterior = condition(at, draw_latency(at, THETA, seed=5), population, rng=np.random.default_rng(0))
    _, near_variance = posterior.predict(at)
    _, far_variance = posterior.predict(far)
    assert far_variance[0] > 10 * near_variance.max()


def test_noise_of_a_fresh_reading_is_that_of_student_t() -> None:
    from scipy.stats import t

    assert fresh_noise(np.log(np.array([0.01])))[0] == pytest.approx(t(FREEDOM, scale=0.1).var())


def test_fitted_noise_is_near_the_true_one() -> None:
    at = make_coordinates(150)
    fitted = fit_covariance(at, draw_latency(at, THETA, seed=6))
    assert fitted[4] == pytest.approx(THETA[4], abs=1.0)


def test_population_without_devices_is_the_wide_prior() -> None:
    population = spread_population([], rng=np.random.default_rng(0))
    assert len(population.fitted) == len(population.thetas) > 0
    assert population.thetas[:, 4].std() > 1.0


def test_squared_distances_agree_with_scipy() -> None:
    from scipy.spatial.distance import cdist

    a, b = np.random.default_rng(0).standard_normal((2, 6, 4))
    np.testing.assert_allclose(squared_distances(a, b), cdist(a, b) ** 2, atol=1e-12)


def test_scaled_features_lie_at_squared_distance_two() -> None:
    rng = np.random.default_rng(0)
    features = np.column_stack([rng.integers(0, 2, (300, 4)), rng.normal(50.0, 9.0, (300, 3)), np.ones(300)])
    scaled = scaled_features(features)
    assert scaled.shape == (300, 7)
    assert squared_distances(scaled, scaled).mean() == pytest.approx(2.0)


def test_settings_of_one_device_count_as_one() -> None:
    rng = np.random.default_rng(0)
    curves = rng.standard_normal((50, 2))
    work = np.exp(curves[:, 0])
    once = shared_factors(curves, work, ("phone", "board"))
    thrice = shared_factors(curves[:, [0, 1, 1, 1]], work, ("phone", "board", "board", "board"))
    real = once @ once.T
    assert np.corrcoef(real.ravel(), (thrice @ thrice.T).ravel())[0, 1] > 0.98


def test_first_choice_leaves_least_variance() -> None:
    pool = make_coordinates(12)
    covariance = np.sum(terms(THETA, parts(pool, pool)), axis=0) + 1.0
    left = []
    for index in range(12):
        column = covariance[:, index]
        left.append(np.trace(covariance) - column @ column / (column[index] + fresh_noise(THETA[4:5])[0]))
    assert least_variance(pool, THETA[None], 1) == [int(np.argmin(left))]


@pytest.mark.parametrize(("level", "expected"), [(0.5, 5.0), (0.9, 9.0), (0.1, 1.0)])
def test_quantile_is_the_conformal_rank(level: float, expected: float) -> None:
    assert quantile(np.arange(1.0, 10.0), level) == expected


def test_quantile_says_how_many_errors_it_needs() -> None:
    with pytest.raises(ProfileError, match=r"coverage 0\.95 needs at least 19 held-out errors, got 9"):
        quantile(np.arange(9.0), 0.95)


@pytest.mark.parametrize(("count", "expected"), [(3, [1.0, 2.0]), (12, [5.0]), (90, [7.0])])
def test_replays_of_the_nearest_count_are_taken(count: int, expected: list[float]) -> None:
    replays = Replays(counts=np.array([3, 10, 100]), errors=np.array([[2.0, 1.0], [5.0, np.nan], [np.nan, 7.0]]))
    assert replays.near(count).tolist() == expected


def test_own_errors_widen_and_narrow_the_interval() -> None:
    ones = np.ones(20)
    assert own_scale(2.0 * ones, ones) == pytest.approx(np.sqrt((10 + 80) / 30))
    assert own_scale(0.0 * ones, ones) == pytest.approx(np.sqrt(10 / 30))


@pytest.mark.parametrize(("devices", "expected"), [(1, 27 / 28), (4, 13.5 / 14.5), (18, 10 / 11)])
def test_few_replayed_devices_widen_the_interval(devices: int, expected: float) -> None:
    assert borrowed_level(0.9, devices) == pytest.approx(expected)
