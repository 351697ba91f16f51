"""Which networks to measure on a new device, before anything is known about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from latency_models.transfer.kernels import NAMES, Coordinates, parts, terms
from latency_models.transfer.posterior import fresh_noise
from nas.core.errors import ProfileError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from latency_models.transfer.sources import SourceModels

_POOL = 500  # candidates looked at, drawn at random
_COVARIANCES = 6  # of the population that candidates are weighed under
_NOISE = NAMES.index("noise")
_LEVEL = 1.0  # variance of the new device's speed in log units


def choose_networks(
    sources: SourceModels, count: int, *, seed: int, candidates: Sequence[int] | NDArray[np.intp] | None = None
) -> NDArray[np.intp]:
    """Pick networks one by one, each time the one that leaves least variance over all candidates.

    The level of the new device counts as unknown.

    Args:
        sources: From ``fit_sources``.
        count: How many.
        seed: Draws the pool of 500 candidates that are weighed.
        candidates: Rows that can be measured; None means all.

    Raises:
        ProfileError: Fewer candidates than asked for.
    """
    rows = np.arange(len(sources.seen)) if candidates is None else np.asarray(candidates, dtype=np.intp)
    if count > len(rows):
        raise ProfileError(f"cannot choose {count} networks out of {len(rows)} candidates")
    pool = np.random.default_rng(seed).permutation(rows)[: max(_POOL, count)]
    picked: NDArray[np.intp] = pool[least_variance(sources.at.rows(pool), sources.population.fitted, count)]
    return picked


def least_variance(pool: Coordinates, population: NDArray[np.float64], count: int) -> list[int]:
    """Positions in ``pool``, one by one the one that leaves least variance.

    What counts is the share of the variance over the pool that is left, averaged over covariances from the least to the
    most noisy: no one of them decides, and neither does the one of largest variance.

    Args:
        pool: Candidates.
        population: (P, 7) log hyperparameters.
        count: How many, at most as many as there are candidates.
    """
    mixed = parts(pool, pool)
    order = np.argsort(population[:, _NOISE])
    thetas = population[order[np.linspace(0, len(order) - 1, min(_COVARIANCES, len(order))).astype(int)]]
    covariances = [np.sum(terms(theta, mixed), axis=0) + _LEVEL for theta in thetas]
    noises = fresh_noise(thetas[:, _NOISE])
    chosen: list[int] = []
    for _ in range(count):
        shares = [
            np.sum(covariance**2, axis=0) / (np.diag(covariance) + noise) / np.trace(covariance)
            for covariance, noise in zip(covariances, noises, strict=True)
        ]
        gain = np.sum(shares, axis=0)
        gain[chosen] = -np.inf
        best = int(np.argmax(gain))
        chosen.append(best)
        for covariance, noise in zip(covariances, noises, strict=True):
            column = covariance[:, best].copy()
            covariance -= np.outer(column, column) / (column[best] + noise)
    return chosen
