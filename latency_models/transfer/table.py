"""Any table of network features, devices and latencies, checked at the door."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.core.errors import ProfileError

_SHOWN = 5  # how many faulty rows a message lists


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyTable:
    """Latencies of N networks on D devices, with F features of every network.

    Args:
        features: (N, F) numbers; categorical choices given one-hot by the caller.
        feature_names: F names.
        work: (N,) multiply-adds of every network, above 0; any one unit.
        devices: D column names.
        latency_ms: (N, D) milliseconds above 0; NaN where not measured.
        physical: D names; columns that are the same hardware in another setting (batch size, precision) share one.
            Replays leave out all of them together. None means that every column is hardware of its own.

    Raises:
        ProfileError: Shapes differ, a name is repeated, or a value is not a finite number above 0.
    """

    features: NDArray[np.float64]
    feature_names: tuple[str, ...]
    work: NDArray[np.float64]
    devices: tuple[str, ...]
    latency_ms: NDArray[np.float64]
    physical: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        _check_shapes(self)
        bad = np.flatnonzero(~np.isfinite(self.features).all(axis=1))
        if len(bad):
            raise ProfileError(f"features are not finite in rows {_shown(bad)}")
        bad = np.flatnonzero(~(np.isfinite(self.work) & (self.work > 0)))
        if len(bad):
            raise ProfileError(f"work must be a finite number above 0, is not in rows {_shown(bad)}")
        for name, column in zip(self.devices, self.latency_ms.T, strict=True):
            bad = np.flatnonzero(~np.isnan(column) & ~(np.isfinite(column) & (column > 0)))
            if len(bad):
                raise ProfileError(
                    f"latency on '{name}' must be above 0 ms, is {column[bad[0]]:g} in rows {_shown(bad)}",
                    hint="leave out what was not measured: NaN marks it",
                )

    @property
    def groups(self) -> tuple[str, ...]:
        """Hardware behind every column."""
        return self.devices if self.physical is None else self.physical


def _check_shapes(table: LatencyTable) -> None:
    networks, devices = len(table.work), len(table.devices)
    expected = {
        "features": (table.features.shape, (networks, len(table.feature_names))),
        "work": (table.work.shape, (networks,)),
        "latency_ms": (table.latency_ms.shape, (networks, devices)),
        "physical": ((len(table.groups),), (devices,)),
    }
    for name, (given, wanted) in expected.items():
        if given != wanted:
            raise ProfileError(f"{name} has shape {given}, expected {wanted}")
    repeated = sorted({name for name in table.devices if table.devices.count(name) > 1})
    if repeated:
        raise ProfileError(f"device names are repeated: {', '.join(repeated)}")


def _shown(rows: NDArray[np.intp]) -> str:
    text = ", ".join(str(int(row)) for row in rows[:_SHOWN])
    return text if len(rows) <= _SHOWN else f"{text} and {len(rows) - _SHOWN} more"
