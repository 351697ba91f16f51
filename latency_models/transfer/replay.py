"""Source devices played as new ones: what covariance fits them, and how far off a few-shot prediction is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latency_models.transfer.choice import least_variance
from latency_models.transfer.intervals import COUNTS, Replays, own_scale
from latency_models.transfer.kernels import Coordinates, shared_factors
from latency_models.transfer.population import fit_covariance, spread_population
from latency_models.transfer.posterior import Population, condition

_FITTED_ON = 200  # measurements a source device's covariance is fitted on
_DRAWS = 1  # replays of every source at every count with random networks, and as many with chosen ones
_POOL = 400  # candidates that networks are chosen from in a replay
_ERRORS = 200  # errors kept of every replay
_FEWEST_ASKED = 20  # networks left to ask for


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Source devices with their denoised curves.

    Args:
        devices: S names.
        groups: S hardware names; columns of one name are left out together.
        curves: (N, S) predicted log latencies.
        rows: Rows every curve was fitted on.
        logs: (N, S) measured log latencies, NaN where not.
        own: (N, F) scaled features.
        work: (N,) multiply-adds.
    """

    devices: tuple[str, ...]
    groups: tuple[str, ...]
    curves: NDArray[np.float64]
    rows: tuple[NDArray[np.intp], ...]
    logs: NDArray[np.float64]
    own: NDArray[np.float64]
    work: NDArray[np.float64]

    def without(self, group: str) -> Coordinates:
        """Coordinates of all networks when one piece of hardware is not a source."""
        kept = [position for position, name in enumerate(self.groups) if name != group]
        factors = shared_factors(self.curves[:, kept], self.work, [self.groups[position] for position in kept])
        return Coordinates(shared=factors, own=self.own)


def fit_population(sources: Sources, *, rng: np.random.Generator) -> list[NDArray[np.float64]]:
    """Log hyperparameters of every source device, with the other hardware as its sources."""
    fitted = []
    views = {group: sources.without(group) for group in sources.groups}
    for position, group in enumerate(sources.groups):
        used = rng.permutation(sources.rows[position])[:_FITTED_ON]
        fitted.append(fit_covariance(views[group].rows(used), sources.logs[used, position]))
    return fitted


def replay(sources: Sources, fitted: list[NDArray[np.float64]], *, rng: np.random.Generator) -> Replays:
    """Errors of every source device predicted from few of its measurements, with its hardware left out."""
    counts, errors = [], []
    for position, group in enumerate(sources.groups):
        view = sources.without(group)
        others = [theta for theta, name in zip(fitted, sources.groups, strict=True) if name != group]
        population = spread_population(others, rng=rng)
        for draw in range(2 * _DRAWS):
            drawn = rng.permutation(sources.rows[position])
            if draw % 2:
                drawn = _chosen_first(view, drawn, population.fitted)
            for count in [number for number in COUNTS if number + _FEWEST_ASKED <= len(drawn)]:
                counts.append(count)
                errors.append(_one_replay(view, sources.logs[:, position], drawn, count, population, rng))
    return Replays(counts=np.array(counts, dtype=np.int64), errors=np.array(errors).reshape(-1, _ERRORS))


def _chosen_first(view: Coordinates, drawn: NDArray[np.intp], fitted: NDArray[np.float64]) -> NDArray[np.intp]:
    pool = drawn[:_POOL]
    first = pool[least_variance(view.rows(pool), fitted, min(max(COUNTS), len(pool)))]
    return np.concatenate([first, drawn[~np.isin(drawn, first)]])


def _one_replay(
    at: Coordinates,
    logs: NDArray[np.float64],
    drawn: NDArray[np.intp],
    count: int,
    population: Population,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    known, asked = drawn[:count], drawn[count:][-_ERRORS:]
    posterior = condition(at.rows(known), logs[known], population, rng=rng)
    mean, variance = posterior.predict(at.rows(asked))
    left_mean, left_variance = posterior.left_out()
    scale = own_scale(logs[known] - left_mean, left_variance)
    padded = np.full(_ERRORS, np.nan)
    padded[: len(asked)] = np.sort((logs[asked] - mean) / np.sqrt(variance) / scale)
    return padded
