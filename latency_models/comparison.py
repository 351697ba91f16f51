"""Hold predictions against measurements of the same networks: the closed loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from latency_models.profiles import single_device
from latency_models.summaries import AnchorReference, anchor_reference, summarise_all
from nas.core.errors import ProfileError
from nas.core.schema import to_data, with_schema

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nas.core.cost import CostEstimate, Interval
    from nas.core.profile import ProfileSet
    from nas.core.scenario import Scenario


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonRow:
    """One network, predicted and measured: one generation, memory with weights.

    ``measured_ms`` is at the machine speed of the calibration, ``raw_ms`` as the clock had it. ``corrected_low_ms`` and
    ``corrected_high_ms`` are the ends that allow for the network's having been selected, None where it was not.
    """

    digest: str
    predicted_ms: float
    low_ms: float
    high_ms: float
    measured_ms: float
    raw_ms: float
    predicted_memory_mb: float
    memory_low_mb: float
    memory_high_mb: float
    measured_memory_mb: float | None
    corrected_low_ms: float | None = None
    corrected_high_ms: float | None = None

    @property
    def error_ratio(self) -> float:
        """Absolute latency error as a share of the measured time."""
        return abs(self.predicted_ms - self.measured_ms) / self.measured_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All rows with the median error and the share of measured times inside their intervals.

    ``corrected_coverage`` is the share inside the intervals that allow for selection, of the networks that have one.
    ``slowdown_ratio`` is how much slower the machine was than during the calibration, by the anchor; None without one.
    """

    device: str
    rows: tuple[ComparisonRow, ...]
    median_error_ratio: float
    coverage: float
    memory_median_error_ratio: float | None
    memory_coverage: float | None
    stated_coverage: float
    slowdown_ratio: float | None
    corrected_coverage: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON data with its schema line, ``closed_loop/closed_loop.json``."""
        return with_schema("closed_loop", 1, to_data(self))


def compare(
    estimates: Mapping[str, CostEstimate],
    measured: ProfileSet,
    scenario: Scenario,
    *,
    reference: AnchorReference | None = None,
    level: Literal["network", "pipeline"] = "network",
    held_mb: Mapping[str, float] | None = None,
    corrected: Mapping[str, Interval] | None = None,
) -> Comparison:
    """Compare predictions with measured whole networks.

    Args:
        estimates: Predicted cost by architecture digest.
        measured: Records of networks or pipelines; every digest of ``estimates`` must be among them.
        scenario: Gives the denoiser calls of one generation and the bytes of a weight.
        reference: Machine speed of the calibration (``predictor.model.network_anchor``); without it the
            measurements' own.
        level: What was measured: one denoiser call, or a whole generation.
        held_mb: Memory by digest that was held before the measured call, the denoiser's weights aside: inputs, weights
            of other networks.
        corrected: Latency intervals of selected networks that allow for the selection.

    Raises:
        ProfileError: Nothing to compare, a digest was not measured, or the measurement is of another device.
    """
    device = single_device(measured)
    calls = scenario.denoiser_calls if level == "network" else 1
    now = anchor_reference(measured, level)
    summaries = summarise_all(measured.of_level(level), reference=reference or now)
    missing = sorted(set(estimates) - set(summaries))
    if missing or not estimates:
        raise ProfileError(f"nothing to compare: {len(missing)} predicted networks not measured: {missing[:3]}")
    others = sorted({cost.device for cost in estimates.values()} - {device})
    if others:
        raise ProfileError(f"predictions are for {others[0]!r}, measurements are of {device!r}")
    rows = []
    for digest, cost in estimates.items():
        summary = summaries[digest]
        weights_mb = cost.parameters * scenario.element_bytes / 1e6 + (held_mb or {}).get(digest, 0.0)
        rise_mb = summary.peak_memory_mb
        allowed = (corrected or {}).get(digest)
        rows.append(
            ComparisonRow(
                digest=digest,
                predicted_ms=cost.latency_ms,
                low_ms=cost.latency_interval_ms.low,
                high_ms=cost.latency_interval_ms.high,
                measured_ms=calls * summary.centre_ms,
                raw_ms=calls * summary.raw_ms,
                predicted_memory_mb=cost.peak_memory_mb,
                memory_low_mb=cost.memory_interval_mb.low,
                memory_high_mb=cost.memory_interval_mb.high,
                measured_memory_mb=None if rise_mb is None else weights_mb + rise_mb,
                corrected_low_ms=None if allowed is None else allowed.low,
                corrected_high_ms=None if allowed is None else allowed.high,
            )
        )
    slowdown = now.time_ms / reference.time_ms if now is not None and reference is not None else None
    stated = next(iter(estimates.values())).latency_interval_ms.coverage
    return _summed_up(tuple(rows), device, stated=stated, slowdown=slowdown)


def merged(comparisons: Sequence[Comparison]) -> Comparison:
    """Return one comparison of all rows, of one device; the slowdown is the worst of any.

    Raises:
        ValueError: There is none.
    """
    if not comparisons:
        raise ValueError("merging needs at least one comparison")
    first = comparisons[0]
    slowdowns = [item.slowdown_ratio for item in comparisons if item.slowdown_ratio is not None]
    rows = tuple(row for item in comparisons for row in item.rows)
    return _summed_up(rows, first.device, stated=first.stated_coverage, slowdown=max(slowdowns, default=None))


def _summed_up(rows: tuple[ComparisonRow, ...], device: str, *, stated: float, slowdown: float | None) -> Comparison:
    with_memory = [
        (
            abs(row.predicted_memory_mb - row.measured_memory_mb) / row.measured_memory_mb,
            row.memory_low_mb <= row.measured_memory_mb <= row.memory_high_mb,
        )
        for row in rows
        if row.measured_memory_mb is not None
    ]
    allowed = [
        row.corrected_low_ms <= row.measured_ms <= row.corrected_high_ms
        for row in rows
        if row.corrected_low_ms is not None and row.corrected_high_ms is not None
    ]
    return Comparison(
        device=device,
        rows=rows,
        median_error_ratio=float(np.median([row.error_ratio for row in rows])),
        coverage=float(np.mean([row.low_ms <= row.measured_ms <= row.high_ms for row in rows])),
        memory_median_error_ratio=float(np.median([item[0] for item in with_memory])) if with_memory else None,
        memory_coverage=float(np.mean([item[1] for item in with_memory])) if with_memory else None,
        stated_coverage=stated,
        slowdown_ratio=slowdown,
        corrected_coverage=float(np.mean(allowed)) if allowed else None,
    )
