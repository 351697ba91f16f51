"""Everything learned once from source devices, for any number of new devices."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latency_models.transfer.curves import scaled_features, source_curve
from latency_models.transfer.intervals import Replays
from latency_models.transfer.kernels import Coordinates, shared_factors
from latency_models.transfer.population import spread_population
from latency_models.transfer.posterior import Population
from latency_models.transfer.replay import Sources, fit_population, replay
from nas.core.errors import InputError, ProfileError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from latency_models.transfer.table import LatencyTable

_SCHEMA = "latency_models/transfer/1"
_FEWEST = 30  # measurements below which a source device is refused
_FEWEST_GROUPS = 2  # hardware needed to leave one out


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceModels:
    """What the source devices say about every candidate and about covariances.

    Args:
        devices: Names of the sources, S of them.
        at: Coordinates of the N candidates: source factors and scaled own features.
        population: Covariances seen on the sources.
        replays: Errors of the sources replayed as new devices.
        seen: (N,) True for candidates whose features lie in the range of those the source models were fitted on.
        seed: Seed of the fit.
    """

    devices: tuple[str, ...]
    at: Coordinates
    population: Population
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
                "population_mean": self.population.mean,
                "population_covariance": self.population.covariance,
                "population_thetas": self.population.thetas,
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
            population=Population(
                mean=arrays["population_mean"],
                covariance=arrays["population_covariance"],
                thetas=arrays["population_thetas"],
                devices=len(meta["devices"]),
            ),
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
    modelled = [source_curve(own, table.latency_ms[:, column], networks=networks, rng=rng) for column in columns]
    groups = [table.groups[column] for column in columns]
    return learn(
        Sources(
            devices=names,
            groups=tuple(groups if len(set(groups)) >= _FEWEST_GROUPS else names),  # else settings stand in for devices
            curves=np.column_stack([np.empty((len(own), 0)), *[curve for curve, _ in modelled]]),
            rows=tuple(rows for _, rows in modelled),
            logs=np.log(table.latency_ms[:, columns]),
            own=own,
            work=table.work,
        ),
        seed=seed,
    )


def learn(sources: Sources, *, seed: int) -> SourceModels:
    """Learn the population of covariances and the replayed errors from source curves that are there already."""
    rng = np.random.default_rng(seed)
    fitted = fit_population(sources, rng=rng)
    return SourceModels(
        devices=sources.devices,
        at=Coordinates(shared=shared_factors(sources.curves, sources.work, sources.groups), own=sources.own),
        population=spread_population(fitted, rng=rng),
        replays=replay(sources, fitted, rng=rng),
        seen=_seen(sources.own, sources.rows),
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


def _seen(own: NDArray[np.float64], rows: Sequence[NDArray[np.intp]]) -> NDArray[np.bool_]:
    if not rows:
        return np.ones(len(own), dtype=bool)
    used = own[np.unique(np.concatenate(rows))]
    inside: NDArray[np.bool_] = np.all((own >= used.min(axis=0) - 1e-9) & (own <= used.max(axis=0) + 1e-9), axis=1)
    return inside
