"""From profile records to the observations a fit takes: steady, grouped by OS and compute unit, bounds where it failed.

Nothing is dropped silently: ``RecordCounts`` says how much was left out, and why.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from latency_models.effects import Group
from latency_models.failures import Infeasible, failures_on_record
from latency_models.summaries import (
    AnchorReference,
    Summary,
    anchor_reference,
    detect_warmup,
    drift_ratio,
    steady_samples_ms,
    summarise_all,
)
from nas.core.profile import Level, ProfileSet

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from nas.core.profile import ProfileRecord

_THROTTLED = frozenset({"serious", "critical"})
# Change within one record beyond which it is not trusted beside steadier ones; as ``MeasurementPlan.max_drift_ratio``.
_MOST_DRIFT = 0.3
# Standard error given to a subject that has nothing but throttled or drifting records.
_DOUBTFUL_SD = 0.15
# Standard error of a figure published by others, of which there are no samples.
_PUBLISHED_SD = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordCounts:
    """What was done to the records before the fit.

    Attributes:
        throttled_samples: Dropped because the phone was hot while they were taken.
        throttled_records: Records dropped, or given little weight where there was nothing else, for the same reason.
        drifting_records: Likewise for a time that changed within one record.
        warmup_samples: Dropped because they were slower than the rest, beyond the warm-up the record states.
        anchored_records: Throttled records kept, because an anchor beside each sample divides the slow-down out.
    """

    throttled_samples: int = 0
    throttled_records: int = 0
    drifting_records: int = 0
    warmup_samples: int = 0
    anchored_records: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """Time of one subject in one group; ``sd_ratio`` is the standard error of its centre as a share of it."""

    group: Group
    summary: Summary
    sd_ratio: float
    taken_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A subject whose time or memory exceeds a limit: it was stopped there."""

    subject: str
    level: Level
    group: Group
    limit_ms: float | None
    limit_mb: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Observations:
    """Everything a fit uses; ``anchors`` are the machine speeds that network times of each group refer to."""

    blocks: tuple[Observation, ...]
    networks: tuple[Observation, ...]
    bounds: tuple[Bound, ...]
    infeasible: tuple[Infeasible, ...]
    counts: RecordCounts
    anchors: tuple[tuple[Group, AnchorReference], ...]

    @property
    def groups(self) -> tuple[Group, ...]:
        """Every group with a timed or bounded subject, sorted."""
        timed = {item.group for item in (*self.blocks, *self.networks)}
        return tuple(sorted(timed | {bound.group for bound in self.bounds}))

    def latest(self, groups: Collection[Group]) -> Group:
        """Return which of ``groups`` has the most recent record."""
        own = [item for item in (*self.blocks, *self.networks) if item.group in groups]
        return max(own, key=lambda item: (item.taken_at, item.group)).group


def observe(profiles: ProfileSet) -> Observations:
    """Turn records into observations, each group at its own machine speed.

    Times of one group are divided by that group's anchor only: an OS version that makes everything slower makes the
    anchor slower too, and that is an effect to be fitted, not to be divided out.
    """
    timed = [record for record in profiles.records if record.samples_ms]
    groups = sorted({_group(record) for record in timed})
    blocks: list[Observation] = []
    networks: list[Observation] = []
    anchors = []
    counts = RecordCounts()
    for group in groups:
        members = ProfileSet(records=tuple(record for record in timed if _group(record) == group))
        for level, found in (("block", blocks), ("network", networks)):
            kept, doubtful, more = _steady(members.of_level(level))  # type: ignore[arg-type]  # both are levels
            counts = _added(counts, more)
            subset = ProfileSet(records=tuple(kept))
            reference = anchor_reference(subset, level)  # type: ignore[arg-type]  # both are levels
            if level == "network" and reference is not None:
                anchors.append((group, reference))
            found += _observations(kept, doubtful, group, reference)
    return Observations(
        blocks=tuple(blocks),
        networks=tuple(networks),
        bounds=_bounds(profiles.failures()),
        infeasible=failures_on_record(profiles),
        counts=counts,
        anchors=tuple(anchors),
    )


def _group(record: ProfileRecord) -> Group:
    return Group(os_build=record.device.os_build, compute_unit=record.device.compute_unit)


def _observations(
    records: Sequence[ProfileRecord], doubtful: set[str], group: Group, reference: AnchorReference | None
) -> list[Observation]:
    latest: dict[str, str] = {}
    published = {record.subject for record in records if record.statistic != "samples"}
    for record in records:
        latest[record.subject] = max(latest.get(record.subject, ""), record.taken_at)
    found = []
    for subject, summary in summarise_all(records, reference=reference).items():
        sd_ratio = _standard_error(summary)
        if subject in published:
            sd_ratio = max(sd_ratio, _PUBLISHED_SD)
        if subject in doubtful:
            sd_ratio = max(sd_ratio, _DOUBTFUL_SD)
        found.append(Observation(group=group, summary=summary, sd_ratio=sd_ratio, taken_at=latest[subject]))
    return found


def _standard_error(summary: Summary) -> float:
    """Standard error of the centre, from its repeats where there are several, else from its samples."""
    if len(summary.centres_ms) > 1:
        logs = np.log(summary.centres_ms)
        return float(logs.std(ddof=1) / np.sqrt(len(logs)))
    return summary.spread_ratio / float(np.sqrt(summary.num_samples))


def _steady(records: Sequence[ProfileRecord]) -> tuple[list[ProfileRecord], set[str], RecordCounts]:
    """Drop what was taken hot, drifting or still warming up; return the rest, and subjects with nothing better."""
    counts = RecordCounts()
    good: list[ProfileRecord] = []
    poor: list[ProfileRecord] = []
    for record in records:
        cleaned, hot, more = _without_hot_samples(record)
        cleaned, cut = _without_slow_start(cleaned)
        drifting = not hot and abs(_drift(cleaned)) > _MOST_DRIFT
        counts = _added(
            counts, replace(more, warmup_samples=cut, throttled_records=int(hot), drifting_records=int(drifting))
        )
        (poor if hot or drifting else good).append(cleaned)
    trusted = {record.subject for record in good}
    alone = [record for record in poor if record.subject not in trusted]
    return good + alone, {record.subject for record in alone}, counts


def _without_hot_samples(record: ProfileRecord) -> tuple[ProfileRecord, bool, RecordCounts]:
    """Return the record without its throttled samples, and whether nothing but such samples is in it."""
    hot = [state in _THROTTLED for state in record.thermal_states]
    if not any(hot):
        return record, False, RecordCounts()
    if record.anchor_ms:
        return record, False, RecordCounts(anchored_records=1)
    if len(hot) != len(record.samples_ms):
        return record, True, RecordCounts(throttled_samples=len(record.steady_ms))
    cool = [index for index in range(record.warmup, len(hot)) if not hot[index]]
    dropped = len(record.steady_ms) - len(cool)
    if not cool:
        return record, True, RecordCounts(throttled_samples=dropped)
    kept = [*range(record.warmup), *cool]
    states = tuple(record.thermal_states[index] for index in kept)
    samples = tuple(record.samples_ms[index] for index in kept)
    return replace(record, samples_ms=samples, thermal_states=states), False, RecordCounts(throttled_samples=dropped)


def _without_slow_start(record: ProfileRecord) -> tuple[ProfileRecord, int]:
    cut = detect_warmup(_scaled(record))
    return (replace(record, warmup=record.warmup + cut), cut) if cut else (record, 0)


def _drift(record: ProfileRecord) -> float:
    return drift_ratio(_scaled(record))


def _scaled(record: ProfileRecord) -> list[float]:
    reference = AnchorReference(source=record.source, time_ms=1.0) if record.anchor_ms else None
    return [float(value) for value in steady_samples_ms(record, reference=reference)]


def _added(one: RecordCounts, other: RecordCounts) -> RecordCounts:
    return RecordCounts(
        **{name: getattr(one, name) + getattr(other, name) for name in RecordCounts.__dataclass_fields__}
    )


def _bounds(failed: Iterable[ProfileRecord]) -> tuple[Bound, ...]:
    return tuple(
        Bound(
            subject=record.subject,
            level=record.level,
            group=_group(record),
            limit_ms=record.failure.limit_ms,
            limit_mb=record.failure.limit_mb,
        )
        for record in failed
        if record.failure is not None and (record.failure.limit_ms is not None or record.failure.limit_mb is not None)
    )
