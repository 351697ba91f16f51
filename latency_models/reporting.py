"""What a calibration found: per-network rows, error figures, coverage, and the least certain blocks."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp
from typing import TYPE_CHECKING, Any

import numpy as np

from latency_models.block_errors import BlockCheck
from latency_models.conformal import ErrorParts
from latency_models.observations import Observations, RecordCounts
from nas.core.cost import ComputeUnit
from nas.core.schema import check_schema, from_data, to_data, with_schema

if TYPE_CHECKING:
    from collections.abc import Sequence

    from latency_models.posterior import Posterior
    from latency_models.predictors.block_table import CalibratedModel


_NO_COUNTS = RecordCounts()


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkResult:
    """One measured network and the prediction of a fit that had not seen it.

    Times are of all denoiser calls of one generation; memory includes the weights. The interval ends are those of the
    final predictor.
    """

    subject: str
    fold: int
    measured_ms: float
    predicted_ms: float
    low_ms: float
    high_ms: float
    measured_memory_mb: float | None
    predicted_memory_mb: float
    memory_low_mb: float
    memory_high_mb: float
    os_build: str = ""
    compute_unit: ComputeUnit = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorSummary:
    """Errors of held-out predictions, as shares of the measured value.

    Attributes:
        mape: Mean absolute error.
        median_ape: Median absolute error.
        worst_ape: Largest absolute error.
        spearman: Rank correlation; None when one side does not vary.
        coverage: Share of networks inside intervals made without them; None with too few networks to tell.
        stated_coverage: Share the intervals are stated to hold.
        mean_width_ratio: Mean interval width over prediction.
        count: Networks judged.
    """

    mape: float
    median_ape: float
    worst_ape: float
    spearman: float | None
    coverage: float | None
    stated_coverage: float
    mean_width_ratio: float
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorstBlock:
    """A block whose repeats disagree most; ``repeat_ratio`` is its slowest over its fastest record.

    ``within_ratio`` is its time within networks over what its kind lets expect; 1 where no network tells.
    """

    signature: str
    measured_ms: float
    repeat_ratio: float
    spread_ratio: float
    num_samples: int
    within_ratio: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PooledGroup:
    """One OS version on one compute unit: its times against the best known group, and how well that is known."""

    os_build: str
    compute_unit: ComputeUnit
    num_records: int
    ratio: float
    ratio_sd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationReport:
    """Cross-validated quality of a predictor; ``calibrate/report.json``.

    ``machine_swing_ratio`` is the machine's slowest over its fastest speed while profiling (90 % over 10 % quantile of
    the anchor's times), which has been divided out of the times; None where no anchor was run. Latency intervals are
    stated for the median over the passes of a network that was not measured, in a later session;
    ``latency_error_parts`` tells what their width is made of. ``records`` counts what was left out of the fit,
    ``outliers`` names what it gave little weight, ``num_bounds`` counts what was stopped at a limit and
    ``num_infeasible`` what did not compile, load or run.
    """

    device: str
    scenario: str
    predictor: str
    denoiser_calls: int
    num_blocks: int
    num_networks: int
    networks: tuple[NetworkResult, ...]
    latency_error: ErrorSummary
    memory_error: ErrorSummary | None
    machine_swing_ratio: float | None
    worst_blocks: tuple[WorstBlock, ...]
    coefficients: tuple[tuple[str, float], ...]
    latency_error_parts: ErrorParts | None = None
    block_check: BlockCheck | None = None
    records: RecordCounts = _NO_COUNTS
    outliers: tuple[str, ...] = ()
    groups: tuple[PooledGroup, ...] = ()
    num_infeasible: int = 0
    num_bounds: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON data with its schema line."""
        return with_schema("calibration", 1, to_data(self))

    @classmethod
    def from_dict(cls, data: Any, *, where: str = "calibration report") -> CalibrationReport:
        """Rebuild from ``to_dict``.

        Raises:
            InputError: Not such a report.
        """
        return from_data(cls, check_schema(data, "calibration", 1, where=where), where=where)


def summarise_errors(
    rows: Sequence[tuple[float, float, float, float]], *, coverage: float | None, stated: float
) -> ErrorSummary:
    """Summarise (measured, predicted, low, high) rows.

    Args:
        rows: At least one row; measured and predicted above 0.
        coverage: Share inside, where the caller found it without using each row for its own interval.
        stated: Stated coverage.
    """
    from scipy.stats import spearmanr

    measured, predicted, low, high = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    errors = np.abs(predicted - measured) / measured
    varies = len(rows) > 2 and np.ptp(measured) > 0 and np.ptp(predicted) > 0
    return ErrorSummary(
        mape=float(errors.mean()),
        median_ape=float(np.median(errors)),
        worst_ape=float(errors.max()),
        spearman=float(spearmanr(measured, predicted).statistic) if varies else None,
        coverage=coverage,
        stated_coverage=stated,
        mean_width_ratio=float(((high - low) / predicted).mean()),
        count=len(rows),
    )


def coefficients(model: CalibratedModel, posterior: Posterior) -> tuple[tuple[str, float], ...]:
    """Return what was fitted, by name, as a report lists it."""
    pairs = [
        ("overhead_ms", model.table.overhead_ms),
        ("ms_per_weight_mb", model.table.ms_per_weight_mb),
        ("noise_ratio", posterior.noise_ratio),
        ("memory_scale", model.memory_scale),
        ("memory_offset_mb", model.memory_offset_mb),
        ("inside_scale", model.inside_scale),
    ]
    pairs += [(f"constant.{constant.name}", constant.factor) for constant in model.constants]
    if model.network_anchor is not None:
        pairs.append(("network_anchor_ms", model.network_anchor.time_ms))
    pairs += [(f"spread.{name}", value) for name, value in sorted(posterior.spreads.items()) if name != "noise"]
    for effect in model.table.kinds:
        pairs.append((f"{effect.kind or 'other'}.prior_scale", effect.scale))
        pairs.append((f"{effect.kind or 'other'}.extra_ms", effect.extra_ms))
    return tuple(pairs)


def worst_blocks(
    model: CalibratedModel, posterior: Posterior, observations: Observations, count: int = 10
) -> tuple[WorstBlock, ...]:
    """Return the blocks of the priced unit whose repeats disagree most."""
    own = [item for item in observations.blocks if item.group.compute_unit == model.compute_unit]
    ranked = sorted(own, key=lambda item: (-item.summary.repeat_ratio, item.summary.subject))
    return tuple(
        WorstBlock(
            signature=item.summary.subject,
            measured_ms=item.summary.centre_ms,
            repeat_ratio=item.summary.repeat_ratio,
            spread_ratio=item.summary.spread_ratio,
            num_samples=item.summary.num_samples,
            within_ratio=exp(posterior.value("deviation", item.summary.subject)),
        )
        for item in ranked[:count]
    )


def pooled_groups(model: CalibratedModel) -> tuple[PooledGroup, ...]:
    """Return how every measured OS version and unit compares with the best known."""
    return tuple(
        PooledGroup(
            os_build=table.os_build,
            compute_unit=table.compute_unit,
            num_records=table.num_records,
            ratio=table.ratio,
            ratio_sd=table.ratio_sd,
        )
        for table in model.tables
    )
