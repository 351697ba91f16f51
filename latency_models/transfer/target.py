"""A new device from a handful of its own measurements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latency_models.transfer.intervals import borrowed_level, own_scale, quantile
from latency_models.transfer.kernels import NAMES
from latency_models.transfer.posterior import Posterior, condition
from latency_models.transfer.sources import SourceModels
from nas.core.errors import ProfileError

if TYPE_CHECKING:
    from collections.abc import Sequence


_FEWEST = 3
_CONTRADICTION = 1.5  # ratio of two readings of one network that noise does not explain


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetPrediction:
    """Predicted latencies of candidates, arrays of one length.

    Args:
        median_ms: Half of fresh measurements lie below.
        low_ms: Lower end of the two-sided interval of the coverage asked for.
        high_ms: Its upper end.
        in_domain: False where the features lie outside the range the source models were fitted on.
        deviation: Predicted standard deviation of the log latency, own scale included.
        errors: Sorted standardised errors the quantiles come from.
    """

    median_ms: NDArray[np.float64]
    low_ms: NDArray[np.float64]
    high_ms: NDArray[np.float64]
    in_domain: NDArray[np.bool_]
    deviation: NDArray[np.float64]
    errors: NDArray[np.float64]

    def upper_ms(self, coverage: float) -> NDArray[np.float64]:
        """One-sided upper bound: a fresh measurement stays below it with probability ``coverage``.

        Hold a latency budget with it: the best candidate under a predicted budget is the one whose error is most in its
        favour. On NAS-Bench-201, each physical device left out and 20 networks measured, readings were more than 5 %
        over budget in 8 % of choices by the median, 5 % by ``upper_ms(0.8)`` and 1 % by ``upper_ms(0.9)``, for 0.27,
        0.6 and 0.9 points of accuracy. Where 5 % over is allowed, ``upper_ms(0.9) / 1.05`` gives 6 % for 0.5 points.
        """
        result: NDArray[np.float64] = self.median_ms * np.exp(quantile(self.errors, coverage) * self.deviation)
        return result


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetPredictor:
    """A predictor for one new device.

    Args:
        sources: What was learned once.
        posterior: Weighted covariances, conditioned on the measurements.
        scale: Own left-out errors over predicted ones, shrunk towards 1.
        errors: Sorted standardised errors borrowed from replays.
        level: Quantile of the absolute errors that the two-sided interval takes.
        description: Chosen covariances and left-out errors, JSON-able.
    """

    sources: SourceModels
    posterior: Posterior
    scale: float
    errors: NDArray[np.float64]
    level: float
    description: dict[str, Any]

    def predict(self, indices: Sequence[int] | NDArray[np.intp]) -> TargetPrediction:
        """Predict candidates by their row in the table."""
        rows = _rows(indices, len(self.sources.seen))
        mean, variance = self.posterior.predict(self.sources.at.rows(rows))
        deviation = np.sqrt(variance) * self.scale
        width = quantile(np.sort(np.abs(self.errors)), self.level) * deviation
        return TargetPrediction(
            median_ms=np.exp(mean),
            low_ms=np.exp(mean - width),
            high_ms=np.exp(mean + width),
            in_domain=self.sources.seen[rows],
            deviation=deviation,
            errors=self.errors,
        )


def fit_target(
    sources: SourceModels,
    indices: Sequence[int] | NDArray[np.intp],
    latency_ms: Sequence[float] | NDArray[np.float64],
    *,
    seed: int = 0,
    coverage: float = 0.9,
) -> TargetPredictor:
    """Fit a new device from its own measurements.

    Args:
        sources: From ``fit_sources``.
        indices: Rows of the measured networks; a network measured twice appears twice.
        latency_ms: Their latencies, above 0.
        seed: Draws covariances.
        coverage: Of the two-sided interval.

    Raises:
        ProfileError: Fewer than 3 measurements, a latency that is not above 0, two readings of one network that
            contradict each other, or too few measurements for the coverage (says how many are needed).
    """
    rows = _rows(indices, len(sources.seen))
    measured = np.asarray(latency_ms, dtype=float)
    _check(rows, measured)
    logs = np.log(measured)
    posterior = condition(sources.at.rows(rows), logs, sources.population, rng=np.random.default_rng(seed))
    mean, variance = posterior.left_out()
    replayed = sources.replays.near(len(rows))
    standardised = (logs - mean) / np.sqrt(variance)
    if len(replayed):
        scale, errors = own_scale(logs - mean, variance), replayed
        level = borrowed_level(coverage, len(sources.devices))
    else:
        scale, errors, level = 1.0, np.sort(standardised), coverage
    quantile(np.sort(np.abs(errors)), level)
    description = {
        "measurements": len(rows),
        "seed": seed,
        "sources": list(sources.devices),
        "covariances": [
            {"weight": float(weight), **dict(zip(NAMES, map(float, np.exp(theta)), strict=True))}
            for weight, theta in zip(posterior.weights, posterior.thetas, strict=True)
        ],
        "left_out_mape_percent": float(100.0 * np.mean(np.abs(np.exp(mean - logs) - 1.0))),
        "own_scale": scale,
        "coverage": coverage,
        "interval": "replayed sources" if len(replayed) else "own left-out errors",
    }
    return TargetPredictor(
        sources=sources, posterior=posterior, scale=scale, errors=errors, level=level, description=description
    )


def _rows(indices: Sequence[int] | NDArray[np.intp], networks: int) -> NDArray[np.intp]:
    rows = np.asarray(indices, dtype=np.intp)
    bad = rows[(rows < 0) | (rows >= networks)]
    if len(bad):
        raise ProfileError(f"network {int(bad[0])} is not in the table of {networks} networks")
    return rows


def _check(rows: NDArray[np.intp], measured: NDArray[np.float64]) -> None:
    if rows.shape != measured.shape:
        raise ProfileError(f"{len(rows)} networks but {len(measured)} latencies")
    if len(rows) < _FEWEST:
        raise ProfileError(f"a new device needs at least {_FEWEST} measured networks, got {len(rows)}")
    bad = np.flatnonzero(~(np.isfinite(measured) & (measured > 0)))
    if len(bad):
        raise ProfileError(f"latency of network {int(rows[bad[0]])} must be above 0 ms, got {measured[bad[0]]:g}")
    for row in np.unique(rows):
        again = measured[rows == row]
        if again.max() > _CONTRADICTION * again.min():
            raise ProfileError(
                f"network {int(row)} was measured as {again.min():g} ms and as {again.max():g} ms",
                hint="measure it again and keep one, or check the units",
            )
