"""Turn raw samples into one robust figure with its spread, and detect warm-up and drift.

scipy is imported inside functions: most callers only need medians.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nas.core.cost import Interval
from nas.core.errors import ProfileError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from nas.core.profile import ProfileRecord, ProfileSet

# Of a sample of normal errors, 1.4826 times the median absolute deviation is the standard deviation.
_MAD_TO_SIGMA = 1.4826


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Robust figure of one subject over all its records.

    Attributes:
        centre_ms: Time of one call at the reference speed of the machine.
        spread_ratio: Scaled median absolute deviation of the samples over the centre.
        repeat_ratio: Largest over smallest centre of the single records; 1 with a single record.
        num_samples: Samples after warm-up.
        peak_memory_mb: Largest measured rise of memory, or None.
    """

    subject: str
    centre_ms: float
    spread_ratio: float
    repeat_ratio: float
    num_samples: int
    peak_memory_mb: float | None


def median_deviation(values: Sequence[float] | NDArray[np.float64]) -> float:
    """Return the median absolute deviation from the median, unscaled."""
    array = np.asarray(values, dtype=float)
    return float(np.median(np.abs(array - np.median(array))))


def bootstrap_interval(values: Sequence[float], *, coverage: float = 0.9, seed: int = 0) -> Interval:
    """Return a percentile bootstrap interval of the median (scipy, 1,000 resamples)."""
    from scipy.stats import bootstrap

    array = np.asarray(values, dtype=float)
    if len(array) < 2 or np.ptp(array) == 0.0:
        return Interval(low=float(array.min()), high=float(array.max()), coverage=coverage)
    found = bootstrap(
        (array,),
        np.median,
        n_resamples=1000,
        confidence_level=coverage,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(low=float(found.low), high=float(found.high), coverage=coverage)


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


def reference_anchor_ms(profiles: ProfileSet) -> float | None:
    """Return the machine's reference speed: the median anchor time, or None where no anchor was run."""
    times = [value for record in profiles.records for value in record.anchor_ms[record.warmup :]]
    return float(np.median(times)) if times else None


def steady_samples_ms(record: ProfileRecord, *, reference_ms: float | None = None) -> NDArray[np.float64]:
    """Return the samples after warm-up, each scaled to the reference speed by the anchor run beside it."""
    samples = np.asarray(record.steady_ms, dtype=float)
    if reference_ms is None or not record.anchor_ms:
        return samples
    return samples * (reference_ms / np.asarray(record.anchor_ms[record.warmup :], dtype=float))


def centre_ms(record: ProfileRecord, *, reference_ms: float | None = None) -> float:
    """Return the robust centre of one record.

    With anchors it is the median of the scaled samples: slow phases of the machine (other processes, clock, a busy
    neighbour on a virtual host) slow the anchor alike and cancel. Without them it is the median of the faster half,
    since such phases only ever add time.
    """
    samples = steady_samples_ms(record, reference_ms=reference_ms)
    if reference_ms is not None and record.anchor_ms:
        return float(np.median(samples))
    faster = np.sort(samples)[: max(1, (len(samples) + 1) // 2)]
    return float(np.median(faster))


def summarise(records: Sequence[ProfileRecord], *, reference_ms: float | None = None) -> Summary:
    """Summarise all records of one subject: the median of their centres.

    Raises:
        ProfileError: No records, or records of several subjects.
    """
    subjects = sorted({record.subject for record in records})
    if len(subjects) != 1:
        raise ProfileError(f"a summary is of one subject, got {len(subjects)}: {', '.join(subjects[:3])}")
    centres = np.array([centre_ms(record, reference_ms=reference_ms) for record in records])
    samples = np.concatenate([steady_samples_ms(record, reference_ms=reference_ms) for record in records])
    centre = float(np.median(centres))
    peaks = [record.peak_memory_mb for record in records if record.peak_memory_mb is not None]
    return Summary(
        subject=subjects[0],
        centre_ms=centre,
        spread_ratio=_MAD_TO_SIGMA * median_deviation(samples) / centre,
        repeat_ratio=float(centres.max() / centres.min()),
        num_samples=len(samples),
        peak_memory_mb=max(peaks) if peaks else None,
    )


def summarise_all(records: Iterable[ProfileRecord], *, reference_ms: float | None = None) -> dict[str, Summary]:
    """Summarise records by subject, in order of first appearance."""
    groups: dict[str, list[ProfileRecord]] = {}
    for record in records:
        groups.setdefault(record.subject, []).append(record)
    return {subject: summarise(group, reference_ms=reference_ms) for subject, group in groups.items()}
