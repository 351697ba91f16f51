"""Everything learned once from source devices, for any number of new devices."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latency_models.transfer.curves import scaled_features, source_curve
from latency_models.transfer.intervals import COUNTS, Replays, own_scale
from latency_models.transfer.kernels import Coordinates, shared_factors
from latency_models.transfer.population import fit_covariance, spread_population
from latency_models.transfer.posterior import condition
from nas.core.errors import InputError, ProfileError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from latency_models.transfer.table import LatencyTable

_SCHEMA = "latency_models/transfer/1"
_FITTED_ON = 200  # measurements a source device's covariance is fitted on
_DRAWS = 4  # replays of every source device at every count
_ERRORS = 200  # errors kept of every replay
_FEWEST = 30  # measurements below which a source device is refused
_FEWEST_GROUPS = 2  # hardware needed to leave one out


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceModels:
    """What the source devices say about every candidate and about covariances.

    Args:
        devices: Names of the sources, S of them.
        at: Coordinates of the N candidates: source factors and scaled own features.
        population: (P, 7) log hyperparameters seen on the sources, see ``kernels.NAMES``.
        replays: Errors of the sources replayed as new devices.
        seen: (N,) True for candidates whose features lie in the range of those the source models were fitted on.
        seed: Seed of the fit.
    """

    devices: tuple[str, ...]
    at: Coordinates
    population: NDArray[np.float64]
    replays: Replays
    seen: NDArray[np.bool_]
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Return ``{"meta": JSON-able, "arrays": {name: array}}``."""
        return {
            "meta": {"schema": _SCHEMA, "devices": list(self.devices), "seed": self.seed},
            "arrays": {
                "shared": self.at.shared,
                "own": self.at.own,
                "population": self.population,
                "replay_counts": self.replays.counts,
                "replay_errors": self.replays.errors,
                "seen": self.seen,
            },
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> SourceModels:
        """Read what ``to_dict`` gave.

        Raises:
            InputError: Another schema.
        """
        meta, arrays = data["meta"], data["arrays"]
        if meta.get("schema") != _SCHEMA:
            raise InputError(f"source models have schema '{meta.get('schema')}', expected '{_SCHEMA}'")
        return cls(
            devices=tuple(meta["devices"]),
            at=Coordinates(shared=arrays["shared"], own=arrays["own"]),
            population=arrays["population"],
            replays=Replays(counts=arrays["replay_counts"], errors=arrays["replay_errors"]),
            seen=arrays["seen"],
            seed=int(meta["seed"]),
        )

    def save(self, path: Path) -> None:
        """Write one ``.npz`` file of plain arrays; the rest is JSON text in it."""
        data = self.to_dict()
        with path.open("wb") as file:
            np.savez_compressed(file, meta=np.array(json.dumps(data["meta"])), **data["arrays"])

    @classmethod
    def load(cls, path: Path) -> SourceModels:
        """Read a file of ``save``; never unpickles."""
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files if name != "meta"}
            return cls.from_dict({"meta": json.loads(str(stored["meta"])), "arrays": arrays})


def fit_sources(
    table: LatencyTable, *, sources: Sequence[str] | None = None, networks: int = 900, seed: int = 0
) -> SourceModels:
    """Fit one model per source device, the population of covariances, and replay every source as a new device.

    Args:
        table: All candidates; only the columns of ``sources`` are looked at.
        sources: Device names; None means every device of the table, empty means own features alone.
        networks: How many measured networks a source model sees.
        seed: Draws the networks and the replays.

    Raises:
        ProfileError: A source is unknown or has fewer than 30 measurements.
    """
    names = tuple(table.devices if sources is None else sources)
    columns = [_column(table, name) for name in names]
    own = scaled_features(table.features)
    rng = np.random.default_rng(seed)
    groups = [table.groups[column] for column in columns]
    if len(set(groups)) < _FEWEST_GROUPS:
        groups = list(names)  # settings of one device stand in for devices
    modelled = [source_curve(own, table.latency_ms[:, column], networks=networks, rng=rng) for column in columns]
    curves = np.column_stack([np.empty((len(own), 0)), *[curve for curve, _ in modelled]])
    rows = [used for _, used in modelled]
    logs = np.log(table.latency_ms[:, columns])
    views = {
        group: Coordinates(shared=_factors_without(group, curves, table.work, groups), own=own)
        for group in sorted(set(groups))
    }
    fitted = [_fit_one(views[group], logs[:, position], rows[position], rng) for position, group in enumerate(groups)]
    replays = _replay(views, logs, rows, groups, fitted, rng)
    return SourceModels(
        devices=names,
        at=Coordinates(shared=shared_factors(curves, table.work, groups), own=own),
        population=spread_population(fitted, rng=rng),
        replays=replays,
        seen=_seen(own, rows),
        seed=seed,
    )


def _column(table: LatencyTable, name: str) -> int:
    if name not in table.devices:
        raise ProfileError(f"unknown device '{name}', the table has: {', '.join(table.devices)}")
    column = table.devices.index(name)
    measured = int(np.isfinite(table.latency_ms[:, column]).sum())
    if measured < _FEWEST:
        raise ProfileError(
            f"source device '{name}' has {measured} measured networks, needs at least {_FEWEST}",
            hint="leave it out of the sources",
        )
    return column


def _factors_without(
    group: str, curves: NDArray[np.float64], work: NDArray[np.float64], groups: Sequence[str]
) -> NDArray[np.float64]:
    kept = [position for position, name in enumerate(groups) if name != group]
    return shared_factors(curves[:, kept], work, [groups[position] for position in kept])


def _fit_one(
    at: Coordinates, logs: NDArray[np.float64], rows: NDArray[np.intp], rng: np.random.Generator
) -> NDArray[np.float64]:
    used = rng.permutation(rows)[:_FITTED_ON]
    return fit_covariance(at.rows(used), logs[used])


def _seen(own: NDArray[np.float64], rows: Sequence[NDArray[np.intp]]) -> NDArray[np.bool_]:
    if not rows:
        return np.ones(len(own), dtype=bool)
    used = own[np.unique(np.concatenate(rows))]
    inside: NDArray[np.bool_] = np.all((own >= used.min(axis=0) - 1e-9) & (own <= used.max(axis=0) + 1e-9), axis=1)
    return inside


def _replay(
    views: dict[str, Coordinates],
    logs: NDArray[np.float64],
    rows: Sequence[NDArray[np.intp]],
    groups: Sequence[str],
    fitted: Sequence[NDArray[np.float64]],
    rng: np.random.Generator,
) -> Replays:
    """Errors of every source device predicted from few of its measurements, with its hardware left out."""
    counts, errors = [], []
    for position, group in enumerate(groups):
        others = [theta for theta, name in zip(fitted, groups, strict=True) if name != group]
        population = spread_population(others, rng=rng)
        for count in COUNTS:
            for _ in range(_DRAWS):
                drawn = rng.permutation(rows[position])[: count + _ERRORS]
                counts.append(count)
                errors.append(_one_replay(views[group], logs[:, position], drawn, count, population))
    return Replays(counts=np.array(counts, dtype=np.int64), errors=np.array(errors).reshape(-1, _ERRORS))


def _one_replay(
    at: Coordinates,
    logs: NDArray[np.float64],
    drawn: NDArray[np.intp],
    count: int,
    population: NDArray[np.float64],
) -> NDArray[np.float64]:
    known, asked = drawn[:count], drawn[count:]
    posterior = condition(at.rows(known), logs[known], population)
    mean, variance = posterior.predict(at.rows(asked))
    left_mean, left_variance = posterior.left_out()
    scale = own_scale(logs[known] - left_mean, left_variance)
    padded = np.full(_ERRORS, np.nan)
    padded[: len(asked)] = np.sort((logs[asked] - mean) / np.sqrt(variance) / scale)
    return padded
