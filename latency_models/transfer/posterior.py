"""Latency of all candidates on a new device, averaged over the population of covariances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latency_models.transfer.kernels import LEVEL_VARIANCE, Coordinates, parts, prior_variance, terms

_KEPT_MASS = 0.99  # of the posterior over covariances; the rest is dropped for speed
_KEPT_MOST = 24


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
        left_out: (2, k) mean and variance of every measurement predicted from the others.
        residual: (k,) centred measurements.
    """

    at: Coordinates
    level: float
    thetas: NDArray[np.float64]
    weights: NDArray[np.float64]
    inverses: NDArray[np.float64]
    alphas: NDArray[np.float64]
    residual: NDArray[np.float64]

    def predict(self, at: Coordinates) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and variance of one fresh measured log latency at every network of ``at``."""
        mixed = parts(at, self.at)
        means, variances = [], []
        for theta, inverse, alpha in zip(self.thetas, self.inverses, self.alphas, strict=True):
            cross = np.sum(terms(theta, mixed), axis=0) + LEVEL_VARIANCE
            means.append(cross @ alpha)
            explained = np.sum((cross @ inverse) * cross, axis=1)
            variances.append(prior_variance(theta, at) + LEVEL_VARIANCE + np.exp(theta[4]) - explained)
        mean, variance = _moments(np.array(means), np.maximum(np.array(variances), 1e-8), self.weights)
        return self.level + mean, variance

    def left_out(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and variance of every measurement predicted from the others (Rasmussen & Williams 2006, eq. 5.12)."""
        diagonal = np.diagonal(self.inverses, axis1=1, axis2=2)
        mean, variance = _moments(self.residual - self.alphas / diagonal, 1.0 / diagonal, self.weights)
        return self.level + mean, variance


def _moments(
    means: NDArray[np.float64], variances: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    mean = weights @ means
    return mean, weights @ (variances + (means - mean) ** 2)


def condition(at: Coordinates, log_latency: NDArray[np.float64], population: NDArray[np.float64]) -> Posterior:
    """Weigh the population by the marginal likelihood of the measurements and keep the likely ones."""
    level = float(log_latency.mean())
    target = log_latency - level
    mixed = parts(at, at)
    size = len(target)
    matrices = np.array([np.sum(terms(theta, mixed), axis=0) for theta in population]) + LEVEL_VARIANCE
    matrices[:, np.arange(size), np.arange(size)] += np.exp(population[:, 4])[:, None] + 1e-10
    inverses = np.asarray(np.linalg.inv(matrices), dtype=float)
    alphas = inverses @ target
    evidence = -0.5 * (alphas @ target) - 0.5 * np.linalg.slogdet(matrices)[1]
    weights = np.exp(evidence - evidence.max())
    weights /= weights.sum()
    order = np.argsort(-weights)
    kept = order[: min(_KEPT_MOST, int(np.searchsorted(np.cumsum(weights[order]), _KEPT_MASS)) + 1)]
    return Posterior(
        at=at,
        level=level,
        thetas=population[kept],
        weights=weights[kept] / weights[kept].sum(),
        inverses=inverses[kept],
        alphas=alphas[kept],
        residual=target,
    )
