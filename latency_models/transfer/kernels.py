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
LEVEL_VARIANCE = 4.0  # of the device's overall speed, in log units: practically free
_RANK = 12  # factors kept; the rest of the source curves is noise


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

    Args:
        curves: (N, S) predicted log latencies of the sources.
        work: (N,) multiply-adds; a further pseudo-device ``log(1 + work / mean)``, launch-bound and compute-bound half
            and half.
        groups: S hardware names; each counts as one device, however many settings of it there are.

    Returns:
        (N, R) factors, scaled so that the mean of the diagonal of ``Z @ Z.T`` is 1.
    """
    pseudo = np.log1p(work / work.mean())
    pseudo = pseudo - pseudo.mean()
    centred = curves - curves.mean(axis=0)
    spread = float(np.sqrt(np.mean(centred**2))) if centred.size else 1.0
    pseudo *= spread / max(float(pseudo.std()), 1e-12)
    weights = np.array([1.0 / list(groups).count(group) for group in groups] + [1.0])
    table = np.column_stack([centred, pseudo]) * np.sqrt(weights / weights.sum())
    left, values, _ = np.linalg.svd(table, full_matrices=False)
    factors = left[:, :_RANK] * values[:_RANK]
    scale = float(np.sqrt(np.mean(np.sum(factors**2, axis=1))))
    result: NDArray[np.float64] = factors / max(scale, 1e-12)
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
    theta: NDArray[np.float64], mixed: Parts, target: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64]]:
    """Log marginal likelihood of ``target`` and its gradient (Rasmussen & Williams 2006, eq. 5.8 and 5.9)."""
    from scipy.linalg import cho_factor, cho_solve

    size = len(target)
    pieces = terms(theta, mixed)
    noise = float(np.exp(theta[4]))
    matrix = np.sum(pieces, axis=0) + LEVEL_VARIANCE
    matrix.flat[:: size + 1] += noise + 1e-10
    factor = cho_factor(matrix, lower=True)
    inverse = cho_solve(factor, np.eye(size))
    alpha = inverse @ target
    value = -0.5 * float(target @ alpha) - float(np.log(np.diag(factor[0])).sum()) - 0.5 * size * np.log(2.0 * np.pi)
    inner = np.outer(alpha, alpha) - inverse
    gradient = np.empty(len(NAMES))
    gradient[:4] = [0.5 * float(np.sum(inner * piece)) for piece in pieces]
    gradient[4] = 0.5 * noise * float(np.trace(inner))
    gradient[5] = 0.25 * float(np.sum(inner * pieces[1] * mixed.shared_distance)) * np.exp(-theta[5])
    gradient[6] = 0.25 * float(np.sum(inner * pieces[3] * mixed.own_distance)) * np.exp(-theta[6])
    return value, gradient
