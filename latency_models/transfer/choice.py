"""Which networks to measure on a new device, before anything is known about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from latency_models.transfer.kernels import parts, terms
from nas.core.errors import ProfileError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from latency_models.transfer.sources import SourceModels

_POOL = 1000  # candidates looked at, drawn at random


def choose_networks(
    sources: SourceModels, count: int, *, seed: int, candidates: Sequence[int] | NDArray[np.intp] | None = None
) -> NDArray[np.intp]:
    """Pick networks one by one, each time the one that leaves least variance over all candidates.

    The covariance is that of the median source device; the level of the new device counts as unknown.

    Args:
        sources: From ``fit_sources``.
        count: How many.
        seed: Draws the pool of 1,000 candidates that are weighed.
        candidates: Rows that can be measured; None means all.

    Raises:
        ProfileError: Fewer candidates than asked for.
    """
    rows = np.arange(len(sources.seen)) if candidates is None else np.asarray(candidates, dtype=np.intp)
    if count > len(rows):
        raise ProfileError(f"cannot choose {count} networks out of {len(rows)} candidates")
    rng = np.random.default_rng(seed)
    pool = rng.permutation(rows)[: max(_POOL, count)]
    theta = np.median(sources.population, axis=0)
    at = sources.at.rows(pool)
    covariance = np.sum(terms(theta, parts(at, at)), axis=0) + 1.0
    noise = float(np.exp(theta[4]))
    chosen: list[int] = []
    for _ in range(count):
        gain = np.sum(covariance**2, axis=0) / (np.diag(covariance) + noise)
        gain[chosen] = -np.inf
        best = int(np.argmax(gain))
        chosen.append(best)
        column = covariance[:, best].copy()
        covariance -= np.outer(column, column) / (column[best] + noise)
    picked: NDArray[np.intp] = pool[chosen]
    return picked
