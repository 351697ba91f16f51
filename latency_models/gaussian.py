"""Linear-Gaussian inference: conditioning, variance components by marginal likelihood, outliers, censored values.

scipy is imported inside functions: only calibration needs it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]

# Degrees of freedom of the noise: at four, an error of five standard deviations counts 5 / (4 + 25), a sixth.
STUDENT_DEGREES = 4.0
# An observation that counts less than this share of 1 is called an outlier: errors above 3.3 standard deviations.
OUTLIER_WEIGHT = 0.33
# Half of a normal distribution's central 90 % in standard deviations, and standard deviation of the normal distribution
# whose central 90 % are those of Student's t with four degrees of freedom and scale 1 (2.132 of tables, over 1.645).
NORMAL_90 = 1.6449
STUDENT_SD = 2.1318 / NORMAL_90
_JITTER = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Gaussian:
    """A normal distribution of several unknowns; ``mean`` (D,), ``covariance`` (D, D)."""

    mean: FloatArray
    covariance: FloatArray

    def variance_of(self, rows: FloatArray) -> FloatArray:
        """Return the variance of ``rows @ unknowns`` for each row; rows (N, D), result (N,)."""
        variances: FloatArray = np.maximum(np.einsum("nd,nd->n", rows @ self.covariance, rows), 0.0)
        return variances


@dataclass(frozen=True, slots=True, kw_only=True)
class VarianceComponent:
    """One part of a covariance, ``sd**2 * gram``, whose ``sd`` is to be found.

    ``typical_sd`` is expected beforehand, within a factor ``exp(spread)`` either way (one standard deviation of the
    logarithm); it decides alone where the data cannot.
    """

    name: str
    gram: FloatArray
    typical_sd: float
    spread: float = 1.0


def condition(prior: Gaussian, rows: FloatArray, values: FloatArray, noise: FloatArray) -> Gaussian:
    """Return ``prior`` given ``values = rows @ unknowns + noise``.

    Args:
        prior: Before the values.
        rows: Shape (N, D).
        values: Shape (N,).
        noise: Noise variances (N,), above 0.

    Source:
        Rasmussen and Williams, "Gaussian Processes for Machine Learning" (2006), equations A.6 and 2.11.
    """
    from scipy.linalg import cho_factor, cho_solve

    if not len(values):
        return prior
    cross = prior.covariance @ rows.T
    factor = cho_factor(rows @ cross + np.diag(noise), lower=True)
    gain = cho_solve(factor, cross.T).T
    covariance = prior.covariance - gain @ cross.T
    return Gaussian(mean=prior.mean + gain @ (values - rows @ prior.mean), covariance=0.5 * (covariance + covariance.T))


def fit_variances(
    residuals: FloatArray, fixed: FloatArray, components: Sequence[VarianceComponent]
) -> Mapping[str, float]:
    """Find the standard deviations of variance components by marginal likelihood.

    The covariance of ``residuals`` is ``fixed`` plus the sum of the components. Each logarithm of an ``sd`` has a
    normal prior, so that the answer is defined with few data, and with none is ``typical_sd``.

    Args:
        residuals: Values less their prior mean, shape (N,).
        fixed: Known part of the covariance (N, N).
        components: What to scale; their names are the keys of the result.
    """
    from scipy.linalg import cho_factor, cho_solve
    from scipy.optimize import minimize

    typical = np.log([component.typical_sd for component in components])
    spread = np.array([component.spread for component in components])
    if not len(residuals):
        return {component.name: component.typical_sd for component in components}
    grams = np.stack([component.gram for component in components])
    floor = _JITTER * max(float(np.trace(fixed)) / len(residuals), _JITTER) * np.eye(len(residuals))

    def loss(log_sd: FloatArray) -> tuple[float, FloatArray]:
        variances = np.exp(2.0 * log_sd)
        factor = cho_factor(fixed + floor + np.tensordot(variances, grams, axes=1), lower=True)
        solved = cho_solve(factor, residuals)
        inverse = cho_solve(factor, np.eye(len(residuals)))
        value = 0.5 * float(residuals @ solved) + float(np.log(np.diag(factor[0])).sum())
        slopes = variances * (np.einsum("kij,ji->k", grams, inverse) - np.einsum("i,kij,j->k", solved, grams, solved))
        pull = (log_sd - typical) / spread
        return value + 0.5 * float(pull @ pull), slopes + pull / spread

    bounds = list(zip(typical - 6.0, typical + 6.0, strict=True))
    found = minimize(loss, typical, jac=True, method="L-BFGS-B", bounds=bounds)
    return {component.name: float(np.exp(value)) for component, value in zip(components, found.x, strict=True)}


def student_weights(squared_errors: FloatArray, variances: FloatArray) -> FloatArray:
    """Return how much each observation counts when its noise is Student's t rather than normal.

    Args:
        squared_errors: Expected squared errors, shape (N,).
        variances: Noise variances of an observation that counts in full.

    Source:
        Lange, Little, Taylor, "Robust statistical modeling using the t distribution" (JASA 1989), the E step.
    """
    return (STUDENT_DEGREES + 1.0) / (STUDENT_DEGREES + squared_errors / variances)


def above_limit(mean: float, variance: float, limit: float) -> tuple[float, float]:
    """Return mean and variance of a normal value known to lie above ``limit``.

    Source:
        Moments of the truncated normal: Tobin, "Estimation of relationships for limited dependent variables"
        (Econometrica 1958); Johnson, Kotz, Balakrishnan, "Continuous Univariate Distributions" 1 (1994), 13.134.
    """
    from scipy.stats import norm

    sd = sqrt(variance)
    start = (limit - mean) / sd
    hazard = float(np.exp(norm.logpdf(start) - norm.logsf(start)))
    return mean + sd * hazard, variance * max(1.0 - hazard * (hazard - start), 1e-9)


def condition_above(
    prior: Gaussian, rows: FloatArray, limits: FloatArray, noise: FloatArray, *, sweeps: int = 10
) -> Gaussian:
    """Return ``prior`` given only that ``rows @ unknowns + noise`` exceeds ``limits``: right-censored values.

    Exact moments for one value; for several, expectation propagation, which keeps one normal factor for each.

    Source:
        Minka, "Expectation propagation for approximate Bayesian inference" (UAI 2001).
    """
    count = len(limits)
    precision, shift = np.zeros(count), np.zeros(count)
    posterior = prior
    for _ in range(sweeps if count > 1 else 1):
        for index in range(count):
            row = rows[index]
            mean, variance = float(row @ posterior.mean), float(row @ posterior.covariance @ row)
            cavity_precision = 1.0 / variance - precision[index]
            if cavity_precision <= 0.0:
                continue
            cavity_variance = 1.0 / cavity_precision
            cavity_mean = cavity_variance * (mean / variance - shift[index])
            # The limit holds for the noisy value; pass its moments back to the value without noise.
            total = cavity_variance + noise[index]
            noisy_mean, noisy_variance = above_limit(cavity_mean, total, float(limits[index]))
            gain = cavity_variance / total
            tilted_mean = cavity_mean + gain * (noisy_mean - cavity_mean)
            tilted_variance = cavity_variance - gain * gain * (total - noisy_variance)
            precision[index] = max(1.0 / tilted_variance - cavity_precision, 1e-12)
            shift[index] = tilted_mean / tilted_variance - cavity_mean / cavity_variance
            posterior = condition(prior, rows, shift / np.maximum(precision, 1e-12), 1.0 / np.maximum(precision, 1e-12))
    return posterior
