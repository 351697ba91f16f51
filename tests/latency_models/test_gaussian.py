"""Conditioning, variance components and censored values against closed forms and numerical integrals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import multivariate_normal, norm, t

from latency_models.gaussian import (
    NORMAL_90,
    STUDENT_DEGREES,
    STUDENT_SD,
    Gaussian,
    VarianceComponent,
    above_limit,
    condition,
    condition_above,
    fit_variances,
    student_weights,
)


def standard(size: int, *, sd: float = 1.0) -> Gaussian:
    return Gaussian(mean=np.zeros(size), covariance=sd**2 * np.eye(size))


def test_one_value_weighs_prior_and_noise_by_precision() -> None:
    prior = Gaussian(mean=np.array([2.0]), covariance=np.array([[4.0]]))
    found = condition(prior, np.array([[3.0]]), np.array([12.0]), np.array([9.0]))
    # Precision 1/4 + 9/9, mean (2/4 + 3 * 12/9) / precision.
    assert found.covariance[0, 0] == pytest.approx(0.8)
    assert found.mean[0] == pytest.approx(0.8 * (0.5 + 4.0))


def test_many_values_agree_with_the_precision_form() -> None:
    generator = np.random.default_rng(0)
    half = generator.normal(size=(4, 4))
    prior = Gaussian(mean=generator.normal(size=4), covariance=half @ half.T + np.eye(4))
    rows, values, noise = generator.normal(size=(7, 4)), generator.normal(size=7), generator.uniform(0.1, 2.0, 7)
    found = condition(prior, rows, values, noise)
    precision = np.linalg.inv(prior.covariance) + rows.T @ np.diag(1.0 / noise) @ rows
    shift = np.linalg.solve(prior.covariance, prior.mean) + rows.T @ (values / noise)
    np.testing.assert_allclose(found.covariance, np.linalg.inv(precision), atol=1e-10)
    np.testing.assert_allclose(found.mean, np.linalg.solve(precision, shift), atol=1e-10)


def test_variance_of_a_sum_includes_covariances() -> None:
    pair = Gaussian(mean=np.zeros(2), covariance=np.array([[1.0, 0.5], [0.5, 2.0]]))
    assert pair.variance_of(np.array([[1.0, 1.0], [1.0, -1.0]])) == pytest.approx([4.0, 2.0])


def test_planted_standard_deviations_are_found() -> None:
    generator = np.random.default_rng(1)
    kinds = np.repeat(np.arange(60), 8)
    members = (kinds[:, None] == np.arange(60)).astype(float)
    values = members @ generator.normal(0.0, 0.3, 60) + generator.normal(0.0, 0.05, 480)
    found = fit_variances(
        values,
        1e-8 * np.eye(480),
        [
            VarianceComponent(name="kind", gram=members @ members.T, typical_sd=0.1),
            VarianceComponent(name="noise", gram=np.eye(480), typical_sd=0.1),
        ],
    )
    # Standard errors of a standard deviation: 9 % of 60 kinds, 3.5 % of 420 differences within them.
    assert found["kind"] == pytest.approx(0.3, rel=0.25)
    assert found["noise"] == pytest.approx(0.05, rel=0.1)


def test_fitted_deviations_have_the_largest_evidence_with_their_prior() -> None:
    generator = np.random.default_rng(2)
    gram = np.diag([1.0, 1.0, 4.0, 4.0, 9.0])
    values = generator.normal(size=5)
    found = fit_variances(values, 0.1 * np.eye(5), [VarianceComponent(name="a", gram=gram, typical_sd=0.5)])["a"]

    def loss(sd: float) -> float:
        density = multivariate_normal(np.zeros(5), 0.1 * np.eye(5) + sd**2 * gram)
        return -float(density.logpdf(values)) + 0.5 * float(np.log(sd / 0.5) ** 2)

    assert loss(found) <= min(loss(found * factor) for factor in np.geomspace(0.01, 100.0, 4001)) + 1e-6


def test_without_data_the_typical_deviation_stays() -> None:
    component = VarianceComponent(name="a", gram=np.zeros((0, 0)), typical_sd=0.7)
    assert fit_variances(np.zeros(0), np.zeros((0, 0)), [component]) == {"a": 0.7}


def test_an_error_of_five_deviations_counts_a_sixth_of_none() -> None:
    weights = student_weights(np.array([0.0, 25.0]), np.ones(2))
    assert weights[1] / weights[0] == pytest.approx(4.0 / 29.0)


def test_normal_equivalent_of_student_noise() -> None:
    assert pytest.approx(norm.ppf(0.95), abs=1e-4) == NORMAL_90
    assert pytest.approx(t(STUDENT_DEGREES).ppf(0.95) / norm.ppf(0.95), rel=1e-4) == STUDENT_SD


@pytest.mark.parametrize(("mean", "sd", "limit"), [(0.0, 1.0, 0.0), (1.0, 2.0, 4.0), (5.0, 1.0, 1.0), (0.0, 1.0, 9.0)])
def test_moments_above_a_limit_equal_the_integrals(mean: float, sd: float, limit: float) -> None:
    def moment(power: int) -> float:
        return quad(lambda x: x**power * norm.pdf(x, mean, sd), limit, limit + 40 * sd, epsabs=0, points=[limit + sd])[
            0
        ]

    expected = moment(1) / moment(0)
    found = above_limit(mean, sd**2, limit)
    assert found[0] == pytest.approx(expected, rel=1e-6)
    assert found[1] == pytest.approx(moment(2) / moment(0) - expected**2, rel=1e-4)


def test_a_censored_value_gives_the_exact_posterior_moments() -> None:
    prior = Gaussian(mean=np.array([1.0]), covariance=np.array([[2.0]]))
    found = condition_above(prior, np.array([[1.5]]), np.array([3.0]), np.array([0.25]))

    def density(x: float) -> float:
        return float(norm.pdf(x, 1.0, 2.0**0.5) * norm.sf(3.0, 1.5 * x, 0.5))

    mass, first, second = (quad(lambda x, p=p: x**p * density(x), -12, 14, points=[1, 2, 3])[0] for p in range(3))
    assert found.mean[0] == pytest.approx(first / mass, rel=1e-6)
    assert found.covariance[0, 0] == pytest.approx(second / mass - (first / mass) ** 2, rel=1e-5)


def test_censored_values_of_separate_unknowns_do_not_disturb_each_other() -> None:
    both = condition_above(standard(2), np.eye(2), np.array([0.5, -1.0]), np.array([0.1, 0.2]))
    for index, (limit, noise) in enumerate([(0.5, 0.1), (-1.0, 0.2)]):
        alone = condition_above(standard(1), np.eye(1), np.array([limit]), np.array([noise]))
        assert both.mean[index] == pytest.approx(alone.mean[0], rel=1e-6)
        assert both.covariance[index, index] == pytest.approx(alone.covariance[0, 0], rel=1e-6)


def test_several_limits_on_one_unknown_come_near_the_exact_posterior() -> None:
    limits = np.array([0.5, 1.0, 1.2])
    found = condition_above(standard(1, sd=2.0), np.ones((3, 1)), limits, np.full(3, 0.5))

    def density(x: float) -> float:
        return float(norm.pdf(x, 0.0, 2.0) * np.prod(norm.sf(limits, x, 0.5**0.5)))

    mass, first = (quad(lambda x, p=p: x**p * density(x), -10, 14, points=[0, 1, 2])[0] for p in range(2))
    # Expectation propagation approximates; its mean is within a per cent or two of the spread here.
    assert found.mean[0] == pytest.approx(first / mass, abs=0.04)


def test_a_limit_far_below_changes_nothing() -> None:
    found = condition_above(standard(1), np.eye(1), np.array([-12.0]), np.array([0.1]))
    assert found.mean[0] == pytest.approx(0.0, abs=1e-6)
    assert found.covariance[0, 0] == pytest.approx(1.0, abs=1e-6)
