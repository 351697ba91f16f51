"""Covariance of log latency over networks: what source devices share, plus the networks' own features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence


# Order of the log hyperparameters: four variances, the noise variance, two squared lengths.
NAMES = (
    "shared_linear",
    "shared_smooth",
    "own_linear",
    "own_smooth",
    "noise",
    "shared_length",
    "own_length",
)
JITTER = 1e-10  # keeps covariances of repeated networks invertible
LEVEL_VARIANCE = 4.0  # of the device's overall speed, in log units: practically free
_RANK = 16  # factors kept; the rest of the source curves is noise
_MIXTURES, _MIXED = 60, 3  # artificial devices, and how many real ones each is mixed from


def squared_distances(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared Euclidean distances between the rows of ``a`` and of ``b``."""
    distances = np.sum(a**2, axis=1)[:, None] + np.sum(b**2, axis=1) - 2.0 * a @ b.T
    result: NDArray[np.float64] = np.maximum(distances, 0.0)
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class Coordinates:
    """Where networks lie: ``shared`` (N, R) source factors, ``own`` (N, F) scaled features."""

    shared: NDArray[np.float64]
    own: NDArray[np.float64]

    def rows(self, indices: NDArray[np.intp]) -> Coordinates:
        """Return the coordinates of some networks."""
        return Coordinates(shared=self.shared[indices], own=self.own[indices])


def shared_factors(
    curves: NDArray[np.float64], work: NDArray[np.float64], groups: Sequence[str]
) -> NDArray[np.float64]:
    """Scale source curves into low-rank factors with ``Z @ Z.T`` the covariance of networks over devices.

    Beside the sources there is the pseudo-device ``log(1 + work / mean)``, half launch-bound and half compute-bound,
    and mixtures of up to three of sources, work and launch cost: a device whose time is part like one and part like
    another is then near the span of the factors, which log latencies alone would not make it.

    Args:
        curves: (N, S) predicted log latencies of the sources.
        work: (N,) multiply-adds.
        groups: S hardware names; each counts as one device, however many settings of it there are.

    Returns:
        (N, R) factors, scaled so that the mean of the diagonal of ``Z @ Z.T`` is 1.
    """
    pseudo = np.log1p(work / work.mean())
    pseudo = pseudo - pseudo.mean()
    centred = curves - curves.mean(axis=0)
    spread = float(np.sqrt(np.mean(centred**2))) if centred.size else 1.0
    pseudo *= spread / max(float(pseudo.std()), 1e-12)
    weights = np.array([1.0 / list(groups).count(group) for group in groups])
    mixed = _mixtures(curves, work, weights)
    mixed_weights = np.full(mixed.shape[1], weights.sum() / max(mixed.shape[1], 1))
    weights = np.concatenate([weights, [1.0], mixed_weights])
    table = np.column_stack([centred, pseudo, mixed]) * np.sqrt(weights / weights.sum())
    _, vectors = np.linalg.eigh(table.T @ table)
    factors = table @ vectors[:, ::-1][:, :_RANK]
    scale = float(np.sqrt(np.mean(np.sum(factors**2, axis=1))))
    result: NDArray[np.float64] = factors / max(scale, 1e-12)
    return result


def _mixtures(
    curves: NDArray[np.float64], work: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Centred log latencies, (N, M), of devices whose milliseconds are a random mixture of others'."""
    if curves.shape[1] == 0:
        return np.empty((len(work), 0))
    relative = np.exp(curves) / np.mean(np.exp(curves), axis=0)
    relative = np.column_stack([relative, work / work.mean(), np.ones(len(work))])
    chances = np.concatenate([weights / weights.sum(), [0.15, 0.15]])
    rng = np.random.default_rng(0)  # part of the definition, like the nodes of a quadrature
    picked = [rng.choice(len(chances), _MIXED, p=chances / chances.sum()) for _ in range(_MIXTURES)]
    logs = np.log(np.column_stack([relative[:, of] @ rng.dirichlet(np.full(_MIXED, 0.7)) for of in picked]))
    result: NDArray[np.float64] = logs - logs.mean(axis=0)
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a covariance between networks A and B is mixed from, each (A, B)."""

    shared_product: NDArray[np.float64]
    shared_distance: NDArray[np.float64]
    own_product: NDArray[np.float64]
    own_distance: NDArray[np.float64]


def parts(a: Coordinates, b: Coordinates) -> Parts:
    """Products and squared distances between all networks of ``a`` and of ``b``."""
    return Parts(
        shared_product=a.shared @ b.shared.T,
        shared_distance=squared_distances(a.shared, b.shared),
        own_product=a.own @ b.own.T,
        own_distance=squared_distances(a.own, b.own),
    )


def terms(theta: NDArray[np.float64], mixed: Parts) -> tuple[NDArray[np.float64], ...]:
    """The four covariance terms of one vector of log hyperparameters, without level and noise."""
    return (
        np.exp(theta[0]) * mixed.shared_product,
        np.exp(theta[1] - 0.5 * mixed.shared_distance * np.exp(-theta[5])),
        np.exp(theta[2]) * mixed.own_product,
        np.exp(theta[3] - 0.5 * mixed.own_distance * np.exp(-theta[6])),
    )


def prior_variance(theta: NDArray[np.float64], at: Coordinates) -> NDArray[np.float64]:
    """Variance of the latency function before any measurement, without level and noise, (N,)."""
    result: NDArray[np.float64] = (
        np.exp(theta[0]) * np.sum(at.shared**2, axis=1)
        + np.exp(theta[1])
        + np.exp(theta[2]) * np.sum(at.own**2, axis=1)
        + np.exp(theta[3])
    )
    return result


def log_likelihood(
    theta: NDArray[np.float64], mixed: Parts, target: NDArray[np.float64], precision: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64]]:
    """Log marginal likelihood of ``target`` and its gradient (Rasmussen & Williams 2006, eq. 5.8 and 5.9).

    Args:
        theta: Log hyperparameters in the order of ``NAMES``.
        mixed: Products and distances between the measured networks.
        target: (n,) centred log latencies.
        precision: (n,) by what the noise variance of each is divided.
    """
    from scipy.linalg import cho_factor, cho_solve

    pieces = terms(theta, mixed)
    noise = np.exp(theta[4]) / precision
    matrix = np.sum(pieces, axis=0) + LEVEL_VARIANCE + np.diag(noise + JITTER)
    factor = cho_factor(matrix, lower=True)
    inverse = cho_solve(factor, np.eye(len(target)))
    alpha = inverse @ target
    value = -0.5 * float(target @ alpha) - float(np.log(np.diag(factor[0])).sum())
    value -= 0.5 * len(target) * float(np.log(2.0 * np.pi))
    inner = np.outer(alpha, alpha) - inverse
    gradient = np.empty(len(NAMES))
    gradient[:4] = [0.5 * float(np.sum(inner * piece)) for piece in pieces]
    gradient[4] = 0.5 * float(np.diag(inner) @ noise)
    gradient[5] = 0.25 * float(np.sum(inner * pieces[1] * mixed.shared_distance)) * np.exp(-theta[5])
    gradient[6] = 0.25 * float(np.sum(inner * pieces[3] * mixed.own_distance)) * np.exp(-theta[6])
    return value, gradient
