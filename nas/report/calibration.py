"""Cross-validated predictions of ``calibrate/report.json`` as predicted-against-measured figures.

The file is read by its keys, not through ``latency_models``: a report needs the numbers, not the predictor.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nas.core.schema import from_data
from nas.core.units import ratio, significant
from nas.report.figures import AgreementFigure, Compared, agreement

if TYPE_CHECKING:
    from collections.abc import Mapping

SOURCE = "calibrate/report.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Network:
    subject: str
    measured_ms: float
    predicted_ms: float
    low_ms: float
    high_ms: float
    measured_memory_mb: float | None = None
    predicted_memory_mb: float | None = None
    memory_low_mb: float | None = None
    memory_high_mb: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Errors:
    stated_coverage: float
    coverage: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    model_ratio: float
    repeat_ratio: float
    shift_ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Blocks:
    stated_coverage: float
    repeat_ratio: float | None = None
    repeat_coverage: float | None = None
    prior_ratio: float | None = None
    prior_coverage: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Records:
    throttled_records: int = 0
    drifting_records: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    os_build: str
    compute_unit: str
    num_records: int
    ratio: float
    ratio_sd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Report:
    device: str
    networks: tuple[_Network, ...]
    latency_error: _Errors
    num_blocks: int | None = None
    memory_error: _Errors | None = None
    machine_swing_ratio: float | None = None
    latency_error_parts: _Parts | None = None
    block_check: _Blocks | None = None
    records: _Records | None = None
    outliers: tuple[str, ...] = ()
    groups: tuple[_Group, ...] = ()
    num_infeasible: int = 0
    num_bounds: int = 0


def calibration_figures(body: Mapping[str, Any]) -> tuple[AgreementFigure, ...]:
    """Return latency, and memory where it was measured, of networks that their prediction had not seen.

    Coverage is the file's: the share inside intervals that were made without the network, where the drawn intervals
    are those of the final predictor.

    Raises:
        InputError: ``body`` is not a calibration report.
    """
    report = from_data(_Report, dict(body), where=SOURCE, partial=True)
    latencies = [
        Compared(
            label=row.subject, measured=row.measured_ms, predicted=row.predicted_ms, low=row.low_ms, high=row.high_ms
        )
        for row in report.networks
    ]
    memories = [
        Compared(
            label=row.subject,
            measured=row.measured_memory_mb,
            predicted=row.predicted_memory_mb,
            low=row.memory_low_mb,
            high=row.memory_high_mb,
        )
        for row in report.networks
        if row.measured_memory_mb
        and row.predicted_memory_mb is not None
        and row.memory_low_mb is not None
        and row.memory_high_mb is not None
    ]
    sets = (
        ("Cross-validation: latency", "ms", latencies, report.latency_error),
        ("Cross-validation: peak memory", "MB", memories, report.memory_error),
    )
    found = [
        agreement(
            title,
            unit,
            points,
            device=report.device,
            source=SOURCE,
            stated_coverage=errors.stated_coverage if errors else None,
            held_out_coverage=errors.coverage if errors else None,
        )
        for title, unit, points, errors in sets
        if points
    ]
    parts = (_swing_words(report), _parts_words(report), _block_words(report), _record_words(report))
    note = " ".join(part for part in parts if part)
    return tuple(replace(figure, note=note) if note and figure.unit == "ms" else figure for figure in found)


def _swing_words(report: _Report) -> str:
    swing = report.machine_swing_ratio
    if swing is None:
        return ""
    return (
        f"While profiling, the machine at its slowest took {significant(swing)} times as long as at its fastest, by a "
        "network timed again and again; that is divided out of the measured times of the cross-validation."
    )


def _parts_words(report: _Report) -> str:
    parts = report.latency_error_parts
    if parts is None:
        return ""
    return (
        "Intervals are for the median time of an unseen network in a later session; standard deviations: "
        f"{ratio(parts.model_ratio)} what the model misses, {ratio(parts.repeat_ratio)} one reading, "
        f"{ratio(parts.shift_ratio)} what all networks of a pass have in common."
    )


def _block_words(report: _Report) -> str:
    if report.num_blocks == 0:
        return (
            "No block was measured alone: all are priced by the device's prior, corrected by the whole networks. Every "
            "estimate counts as outside the calibration and keeps at least the prior's interval, wider than drawn here."
        )
    check = report.block_check
    if check is None or check.repeat_ratio is None or check.repeat_coverage is None:
        return ""
    text = (
        f"Single blocks, {ratio(check.stated_coverage)} intervals: measured ones reach {ratio(check.repeat_ratio - 1)} "
        f"beyond their time and hold {ratio(check.repeat_coverage)} of fresh readings"
    )
    if check.prior_ratio is None or check.prior_coverage is None:
        return f"{text}."
    return (
        f"{text}; those priced without a measurement reach to {significant(check.prior_ratio)} times it and hold "
        f"{ratio(check.prior_coverage)}."
    )


def _record_words(report: _Report) -> str:
    """Return a sentence on each thing out of the ordinary in the records."""
    notes = [
        f"{group.os_build or 'An unnamed OS version'} on {group.compute_unit} takes {significant(group.ratio)} times "
        f"as long as the best known (standard deviation {100.0 * group.ratio_sd:.1f} %, {group.num_records} records)."
        for group in report.groups
        if len(report.groups) > 1
    ]
    if report.outliers:
        notes.append(f"Given little weight as outliers: {', '.join(report.outliers)}.")
    if report.records is not None and report.records.throttled_records + report.records.drifting_records:
        notes.append(
            f"Left out where there were others: {report.records.throttled_records} records taken hot, "
            f"{report.records.drifting_records} that drifted."
        )
    if report.num_bounds or report.num_infeasible:
        notes.append(
            f"{report.num_bounds} measurements were stopped at a limit, {report.num_infeasible} blocks or networks did "
            "not compile, load or run."
        )
    return " ".join(notes)
