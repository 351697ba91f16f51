"""Latency of all candidates on a new device, averaged over the population of covariances.

Readings stray: most devices show a few slow ones, 20 % and more off. Noise is therefore Student's t, as a normal whose
precision differs from reading to reading, by the variational method of Tipping & Lawrence, "Variational inference for
Student-t models" (Neurocomputing 2005). scipy is imported where it is used.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latency_models.transfer.kernels import JITTER, LEVEL_VARIANCE, Coordinates, Parts, parts, prior_variance, terms

FREEDOM = 4.0  # degrees of freedom of the noise
_SCREENING, _POLISHING = 3, 5  # rounds over all covariances, and over those kept
_KEPT_MASS = 0.99  # of the posterior over covariances; the rest is dropped for speed
_KEPT_MOST = 24
_ENOUGH_DRAWS = 8.0  # effective draws that tell where likely covariances lie
_DEFENCE = 0.1  # share of the population's covariance added there
_LEAST_VARIANCE = 1e-8  # a hundredth of a per cent


@dataclass(frozen=True, slots=True, kw_only=True)
class Population:
    """Log hyperparameters of devices, normally distributed.

    Args:
        mean: (7,) in the order of ``kernels.NAMES``.
        covariance: (7, 7).
        thetas: (P, 7) draws; the first are those of the source devices.
        devices: How many of them are.
    """

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    thetas: NDArray[np.float64]
    devices: int

    @property
    def fitted(self) -> NDArray[np.float64]:
        """Log hyperparameters of the source devices; without any, all draws."""
        return self.thetas[: self.devices] if self.devices else self.thetas


@dataclass(frozen=True, slots=True, kw_only=True)
class Posterior:
    """Weighted Gaussian processes on the same measurements.

    Args:
        at: Where the k measured networks lie.
        level: Mean of their log latencies.
        thetas: (P, 7) log hyperparameters.
        weights: (P,) posterior probabilities, adding to 1.
        inverses: (P, k, k) inverse covariances of the measurements.
        alphas: (P, k) inverse covariances times centred measurements.
        precisions: (P, k) of the readings' noise, relative to the covariance's own.
        centred: (k,) measurements less the level.
    """

    at: Coordinates
    level: float
    thetas: NDArray[np.float64]
    weights: NDArray[np.float64]
    inverses: NDArray[np.float64]
    alphas: NDArray[np.float64]
    precisions: NDArray[np.float64]
    centred: NDArray[np.float64]

    def predict(self, at: Coordinates) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and variance of one fresh measured log latency at every network of ``at``."""
        mixed = parts(at, self.at)
        means, variances = [], []
        for theta, inverse, alpha in zip(self.thetas, self.inverses, self.alphas, strict=True):
            cross = np.sum(terms(theta, mixed), axis=0) + LEVEL_VARIANCE
            means.append(cross @ alpha)
            explained = np.sum((cross @ inverse) * cross, axis=1)
            noise = fresh_noise(theta[4])
            variances.append(prior_variance(theta, at) + LEVEL_VARIANCE + noise - explained)
        mean, variance = _moments(np.array(means), np.maximum(np.array(variances), _LEAST_VARIANCE), self.weights)
        return self.level + mean, variance

    def left_out(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and variance of every measurement predicted from the others (Rasmussen & Williams 2006, eq. 5.12)."""
        diagonal = np.diagonal(self.inverses, axis1=1, axis2=2)
        noise = np.exp(self.thetas[:, 4])[:, None]
        variances = 1.0 / diagonal - noise / self.precisions + fresh_noise(self.thetas[:, 4])[:, None]
        variances = np.maximum(variances, _LEAST_VARIANCE)
        mean, variance = _moments(self.centred - self.alphas / diagonal, variances, self.weights)
        return self.level + mean, variance


def _moments(
    means: NDArray[np.float64], variances: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and variance over covariances, (P, M) each.

    Variances are averaged as logarithms: few readings leave the noise open by a factor of ten, and the plain mean would
    be that of the noisiest. Replayed errors set the scale afterwards.
    """
    mean = weights @ means
    return mean, np.exp(weights @ np.log(variances)) + weights @ (means - mean) ** 2


def fresh_noise(log_noise: NDArray[np.float64]) -> NDArray[np.float64]:
    """Variance of the noise of one reading, stray ones included."""
    result: NDArray[np.float64] = np.exp(log_noise) * FREEDOM / (FREEDOM - 2.0)
    return result


def reading_precisions(
    theta_noise: NDArray[np.float64],
    inverses: NDArray[np.float64],
    alphas: NDArray[np.float64],
    precisions: NDArray[np.float64],
) -> NDArray[np.float64]:
    """One variational update of the precision of every reading, shapes (P,), (P, k, k), (P, k), (P, k)."""
    noise = np.exp(theta_noise)[:, None]
    variance = noise / precisions
    diagonal = np.diagonal(inverses, axis1=1, axis2=2)
    misfit = (variance * alphas) ** 2 + np.maximum(variance - variance**2 * diagonal, 0.0)
    result: NDArray[np.float64] = (FREEDOM + 1.0) / (FREEDOM + misfit / noise)
    return result


def condition(
    at: Coordinates, log_latency: NDArray[np.float64], population: Population, *, rng: np.random.Generator
) -> Posterior:
    """Weigh covariances by their prior density and the likelihood of the measurements, and keep the likely ones.

    Draws from the population are weighed first; as many more are drawn where those are likely, because a device unlike
    the sources may lie between the draws. Weights are importance weights under the mixture of both (balance heuristic
    of Veach & Guibas, "Optimally combining sampling techniques", SIGGRAPH 1995).
    """
    level = float(np.median(log_latency))
    centred = log_latency - level
    mixed = parts(at, at)
    wide = population.thetas
    wide_evidence = _screen(wide, mixed, centred)
    centre, spread = _summary(wide, wide_evidence, population)
    near = rng.multivariate_normal(centre, spread, size=len(wide))
    thetas = np.vstack([wide, near])
    density = _normal_log_density(thetas, population.mean, population.covariance)
    nearby = _normal_log_density(thetas, centre, spread)
    importance = density - np.logaddexp(density, nearby)
    kept = _likely(np.concatenate([wide_evidence, _screen(near, mixed, centred)]) + importance)
    thetas, importance = thetas[kept], importance[kept]
    evidence, inverses, alphas, precisions = _rounds(thetas, _functions(thetas, mixed), centred, _POLISHING)
    weights = np.exp(evidence + importance - (evidence + importance).max())
    return Posterior(
        at=at,
        level=level,
        thetas=thetas,
        weights=weights / weights.sum(),
        inverses=inverses,
        alphas=alphas,
        precisions=precisions,
        centred=centred,
    )


def _functions(thetas: NDArray[np.float64], mixed: Parts) -> NDArray[np.float64]:
    return np.array([np.sum(terms(theta, mixed), axis=0) for theta in thetas]) + LEVEL_VARIANCE


def _screen(thetas: NDArray[np.float64], mixed: Parts, centred: NDArray[np.float64]) -> NDArray[np.float64]:
    return _rounds(thetas, _functions(thetas, mixed), centred, _SCREENING)[0]


def _summary(
    thetas: NDArray[np.float64], evidence: NDArray[np.float64], population: Population
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and covariance of likely draws, flattened until enough of them count."""
    for power in (1.0, 0.5, 0.25, 0.125, 0.0625):
        weights = np.exp(power * (evidence - evidence.max()))
        weights /= weights.sum()
        if 1.0 / float(np.sum(weights**2)) >= _ENOUGH_DRAWS:
            break
    centre = weights @ thetas
    offsets = thetas - centre
    spread = (weights[:, None] * offsets).T @ offsets + _DEFENCE * population.covariance
    return centre, spread


def _normal_log_density(
    at: NDArray[np.float64], mean: NDArray[np.float64], covariance: NDArray[np.float64]
) -> NDArray[np.float64]:
    from scipy.stats import multivariate_normal

    return np.asarray(multivariate_normal(mean, covariance).logpdf(at), dtype=float)


def _likely(evidence: NDArray[np.float64]) -> NDArray[np.intp]:
    weights = np.exp(evidence - evidence.max())
    order = np.argsort(-weights)
    enough = int(np.searchsorted(np.cumsum(weights[order]), _KEPT_MASS * weights.sum())) + 1
    kept: NDArray[np.intp] = order[: min(_KEPT_MOST, enough)]
    return kept


def _rounds(
    population: NDArray[np.float64],
    functions: NDArray[np.float64],
    centred: NDArray[np.float64],
    rounds: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Alternate between the latency function and the readings' precisions; evidence is the variational bound."""
    precisions = np.ones((len(population), len(centred)))
    matrices, inverses, alphas = _solve(population, functions, centred, precisions)
    for _ in range(rounds - 1):
        precisions = reading_precisions(population[:, 4], inverses, alphas, precisions)
        matrices, inverses, alphas = _solve(population, functions, centred, precisions)
    evidence = -0.5 * (alphas @ centred) - 0.5 * np.linalg.slogdet(matrices)[1]
    return evidence + _precision_bound(precisions), inverses, alphas, precisions


def _solve(
    population: NDArray[np.float64],
    functions: NDArray[np.float64],
    centred: NDArray[np.float64],
    precisions: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    places = np.arange(len(centred))
    matrices = functions.copy()
    matrices[:, places, places] += np.exp(population[:, 4])[:, None] / precisions + JITTER
    inverses = np.asarray(np.linalg.inv(matrices), dtype=float)
    return matrices, inverses, inverses @ centred


def _precision_bound(precisions: NDArray[np.float64]) -> NDArray[np.float64]:
    """What the readings' precisions add to the variational bound, up to a constant, (P,)."""
    from scipy.special import digamma

    shape, prior_shape = (FREEDOM + 1.0) / 2.0, FREEDOM / 2.0
    rate = shape / precisions
    expected_log = digamma(shape) - np.log(rate)
    divergence = prior_shape * np.log(rate) + shape * (prior_shape - rate) / rate
    result: NDArray[np.float64] = np.sum(0.5 * (expected_log - np.log(precisions)) - divergence, axis=1)
    return result
