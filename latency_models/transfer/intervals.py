"""Standardised errors of replayed source devices, and the quantiles a new device borrows from them.

Every source device plays the new one with k of its measurements; the errors on its other networks, divided by the
predicted standard deviation, are kept. A new device with k measurements takes its quantiles from those of the nearest
k, widened or narrowed by what its own left-out errors say.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latency_models.conformal import needed
from nas.core.errors import ProfileError

COUNTS = (3, 5, 10, 20, 50, 100)  # measurements on a replayed device
# Leaving out one physical device of NAS-Bench-201 at k = 20, 0 covers 87 % with random and 89 % with chosen networks.
_DEVICE_ODDS = 2.0
PRIOR_ERRORS = 10.0  # how many left-out errors the population's scale weighs against a device's own


@dataclass(frozen=True, slots=True, kw_only=True)
class Replays:
    """Errors of replayed devices.

    Args:
        counts: How many measurements each replay had, (T,).
        errors: (T, E) sorted errors over predicted standard deviation times the replay's own scale; NaN pads.
    """

    counts: NDArray[np.int64]
    errors: NDArray[np.float64]

    def near(self, count: int) -> NDArray[np.float64]:
        """Errors of the replays whose count is nearest to ``count`` by ratio, all devices alike, sorted."""
        if len(self.counts) == 0:
            return np.empty(0)
        distance = np.abs(np.log(self.counts / count))
        chosen = self.errors[distance <= distance.min() + 1e-9].ravel()
        return np.sort(chosen[np.isfinite(chosen)])


def own_scale(errors: NDArray[np.float64], variances: NDArray[np.float64]) -> float:
    """Ratio of a device's left-out errors to what was predicted for them, shrunk towards 1."""
    ratios = np.minimum(errors**2 / variances, 25.0)  # one stray reading must not set the width
    return float(np.sqrt((PRIOR_ERRORS + ratios.sum()) / (PRIOR_ERRORS + len(ratios))))


def borrowed_level(level: float, devices: int) -> float:
    """Level at which to take a quantile of the errors of ``devices`` replayed devices.

    They are a sample of devices, and a new one may err more than any of them: the odds of the level grow by
    ``2 / devices``. With 18 devices 0.9 becomes 0.909, with 4 it becomes 0.93.
    """
    _check_level(level)
    odds = level / (1.0 - level) * (1.0 + _DEVICE_ODDS / devices)
    return odds / (1.0 + odds)


def quantile(errors: NDArray[np.float64], level: float) -> float:
    """The conformal quantile of sorted ``errors``: the ``ceil((n + 1) * level)``-th smallest.

    Raises:
        ProfileError: Too few errors for that level; says how many are needed.
    """
    _check_level(level)
    rank = int(np.ceil((len(errors) + 1) * level - 1e-9))
    if rank > len(errors):
        raise ProfileError(
            f"an interval of coverage {level:g} needs at least {needed(level)} held-out errors, got {len(errors)}",
            hint=f"measure at least {needed(level)} networks, add source devices, or state a lower coverage",
        )
    return float(errors[rank - 1])


def _check_level(level: float) -> None:
    if not 0.0 < level < 1.0:
        raise ValueError(f"coverage must lie in (0, 1), got {level}")
