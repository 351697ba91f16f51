"""Turn raw samples into one robust figure with its spread, and detect warm-up and drift.

scipy is imported inside functions: most callers only need medians.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nas.core.errors import ProfileError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from nas.core.profile import Level, ProfileRecord, ProfileSet

# Of a sample of normal errors, 1.4826 times the median absolute deviation is the standard deviation.
_MAD_TO_SIGMA = 1.4826


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorReference:
    """The machine speed that scaled times refer to.

    ``source`` is the records' own, which names the anchor: times scaled by different anchors do not compare.
    """

    source: str
    time_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Robust figure of one subject over all its records.

    Attributes:
        centre_ms: Time of one call at the reference speed of the machine.
        centres_ms: The same from each single record.
        raw_ms: Median time of one call as it was, unscaled.
        spread_ratio: Scaled median absolute deviation of the samples over the centre.
        repeat_ratio: Largest over smallest centre of the single records; 1 with a single record.
        num_samples: Samples after warm-up.
        peak_memory_mb: Largest measured rise of memory, or None.
    """

    subject: str
    centre_ms: float
    centres_ms: tuple[float, ...]
    raw_ms: float
    spread_ratio: float
    repeat_ratio: float
    num_samples: int
    peak_memory_mb: float | None


def median_deviation(values: Sequence[float] | NDArray[np.float64]) -> float:
    """Return the median absolute deviation from the median, unscaled."""
    array = np.asarray(values, dtype=float)
    return float(np.median(np.abs(array - np.median(array))))


def detect_warmup(values: Sequence[float], *, tolerance: float = 0.1) -> int:
    """Return how many leading samples lie more than ``tolerance`` above the median of the later half; at most half."""
    array = np.asarray(values, dtype=float)
    half = len(array) // 2
    if half == 0:
        return 0
    limit = float(np.median(array[half:])) * (1.0 + tolerance)
    settled = np.flatnonzero(array[:half] <= limit)
    return int(settled[0]) if len(settled) else half


def drift_ratio(values: Sequence[float]) -> float:
    """Return the change from first to last sample along the Theil-Sen line, as a share of the median.

    0.0 when the 95 % range of the slope includes no change, or with fewer than six samples.
    """
    from scipy.stats import theilslopes

    array = np.asarray(values, dtype=float)
    if len(array) < 6:
        return 0.0
    with np.errstate(invalid="ignore"):  # scipy takes the root of a negative variance when nearly all values tie
        slope, _, low, high = theilslopes(array, alpha=0.95)
    if not np.isfinite([low, high]).all() or low <= 0.0 <= high:
        return 0.0
    return float(slope) * (len(array) - 1) / float(np.median(array))


def anchor_reference(profiles: ProfileSet, level: Level) -> AnchorReference | None:
    """Return the machine's speed while ``profiles`` were taken: the median time of the level's anchor.

    None where no anchor was run.

    Raises:
        ProfileError: The records used several anchors.
    """
    records = [record for record in profiles.of_level(level) if record.anchor_ms]
    if not records:
        return None
    sources = sorted({record.source for record in records})
    if len(sources) > 1:
        raise ProfileError(f"{level} records used {len(sources)} anchors: {sources[0]!r}, {sources[1]!r}")
    times = [value for record in records for value in record.anchor_ms[record.warmup :]]
    return AnchorReference(source=sources[0], time_ms=float(np.median(times)))


def machine_swing_ratio(profiles: ProfileSet) -> float | None:
    """Return how much the machine's speed swung: the larger, over levels, of the anchors' 90 % over 10 % quantile."""
    swings = []
    for level in ("block", "network"):
        times = [value for record in profiles.records if record.level == level for value in record.anchor_ms]
        if times:
            low, high = np.quantile(times, [0.1, 0.9])
            swings.append(float(high / low))
    return max(swings) if swings else None


def steady_samples_ms(record: ProfileRecord, *, reference: AnchorReference | None = None) -> NDArray[np.float64]:
    """Return the samples after warm-up, each scaled to the reference speed by the anchor run beside it.

    Raises:
        ProfileError: The record's anchor is not the reference's.
    """
    samples = np.asarray(record.steady_ms, dtype=float)
    if reference is None or not record.anchor_ms:
        return samples
    if record.source != reference.source:
        raise ProfileError(
            f"{record.subject!r} was measured beside {record.source!r}, the reference is {reference.source!r}"
        )
    return samples * (reference.time_ms / np.asarray(record.anchor_ms[record.warmup :], dtype=float))


def centre_ms(record: ProfileRecord, *, reference: AnchorReference | None = None) -> float:
    """Return the robust centre of one record.

    With anchors it is the median of the scaled samples: slow phases of the machine (other processes, clock, a busy
    neighbour on a virtual host) slow the anchor alike and cancel. Without them it is the median of the faster half,
    since such phases only ever add time.
    """
    samples = steady_samples_ms(record, reference=reference)
    if reference is not None and record.anchor_ms:
        return float(np.median(samples))
    faster = np.sort(samples)[: max(1, (len(samples) + 1) // 2)]
    return float(np.median(faster))


def summarise(records: Sequence[ProfileRecord], *, reference: AnchorReference | None = None) -> Summary:
    """Summarise all records of one subject: the median of their centres.

    Raises:
        ProfileError: No records, or records of several subjects.
    """
    subjects = sorted({record.subject for record in records})
    if len(subjects) != 1:
        raise ProfileError(f"a summary is of one subject, got {len(subjects)}: {', '.join(subjects[:3])}")
    centres = np.array([centre_ms(record, reference=reference) for record in records])
    samples = np.concatenate([steady_samples_ms(record, reference=reference) for record in records])
    centre = float(np.median(centres))
    peaks = [record.peak_memory_mb for record in records if record.peak_memory_mb is not None]
    return Summary(
        subject=subjects[0],
        centre_ms=centre,
        centres_ms=tuple(float(value) for value in centres),
        raw_ms=float(np.median(np.concatenate([record.steady_ms for record in records]))),
        spread_ratio=_MAD_TO_SIGMA * median_deviation(samples) / centre,
        repeat_ratio=float(centres.max() / centres.min()),
        num_samples=len(samples),
        peak_memory_mb=max(peaks) if peaks else None,
    )


def summarise_all(records: Iterable[ProfileRecord], *, reference: AnchorReference | None = None) -> dict[str, Summary]:
    """Summarise records by subject, in order of first appearance."""
    groups: dict[str, list[ProfileRecord]] = {}
    for record in records:
        groups.setdefault(record.subject, []).append(record)
    return {subject: summarise(group, reference=reference) for subject, group in groups.items()}
