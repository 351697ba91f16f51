"""Quality gates over many records: repeats, mixed units, contradictions, impossible memory; each named by its line."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from nas.core.errors import Problem
from nas.core.profile import ProfileRecord

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence

# Repeats of one subject under equal conditions differ by less. On a shared machine passes over one block differ by up
# to 1.3 beside an anchor; published figures of successive versions of one library differ by 2.4.
CONTRADICTION_FACTOR = 2.0
# Neighbouring time units are a factor of 1,000 apart. A prior or a repeat is right within a factor of about 3.
_UNIT_RANGE = (300.0, 3500.0)
# Within one record nothing but a unit makes a sample this much shorter than the median.
_SHORTEST_SHARE = 1 / 300
_MOST_MEMORY_MB = 1e6  # where the device's is not known; no machine that this is for has a terabyte
# One Core ML call costs at least its dispatch: 0.06 to 0.1 ms on an M5, 0.19 to 0.23 on an M1 (Apple Neural Engine
# guide, arXiv 2606.22283, CC BY 4.0, and published micro-benchmarks). A third of the least.
DISPATCH_FLOOR_MS = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """A record and where it was read; ``line`` is None where the format has no lines."""

    record: ProfileRecord
    file: str
    line: int | None = None

    def problem(self, message: str) -> Problem:
        """Return a fault of this record."""
        return Problem(message=message, path=self.record.subject, file=self.file, line=self.line)

    def place_from(self, other: Located) -> str:
        """Return ``line 3``, with the file's name before it where that is not the file of ``other``."""
        parts = [self.file] if self.file != other.file or self.line is None else []
        return ": ".join([*parts, *([] if self.line is None else [f"line {self.line}"])])


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """Records that may be used, faults of those that may not, and warnings about some that may."""

    kept: tuple[Located, ...]
    dropped: tuple[Problem, ...]
    warnings: tuple[Problem, ...]


def problem_text(problem: Problem) -> str:
    """Return ``file: line 3: what is wrong``."""
    place = [problem.file or "", "" if problem.line is None else f"line {problem.line}"]
    return ": ".join([*(part for part in place if part), problem.message])


def check_records(
    located: Sequence[Located],
    *,
    expected_ms: Mapping[str, float] | None = None,
    least_ms: Mapping[str, float] | None = None,
) -> Checked:
    """Sort out records that cannot be used, and name those that contradict each other.

    Args:
        located: Records in file order.
        expected_ms: A rough time by subject, best from the device's prior, to see wrong units by; subjects that are
            not in it are compared with their own repeats only.
        least_ms: A time by subject below which no chip of the kind could be; subjects not in it are not held to one.

    Returns:
        The records without exact repeats (also those of the same moment with other samples), without mixed units and
        without memory beyond the device's or a peak below what was held before it. Records that contradict each other
        stay, with a warning.
    """
    dropped: list[Problem] = []
    kept = list(located)
    for gate in (_without_repeats, _without_mixed_samples, _without_impossible_memory, _without_unlike_repeats):
        kept = gate(kept, dropped)
    if expected_ms:
        kept = _without_unlike_expected(kept, expected_ms, dropped)
    if least_ms:
        kept = _without_impossible_speed(kept, least_ms, dropped)
    kept, warnings = _below_floor(kept, dropped), _contradictions(kept)
    return Checked(kept=tuple(kept), dropped=tuple(dropped), warnings=tuple(warnings))


def conditions(record: ProfileRecord) -> Hashable:
    """Return what must be equal for two records to measure the same thing."""
    asked, package, device = record.conditions, record.package, record.device
    return (
        (record.subject, record.level, record.scenario, record.origin, record.statistic),
        (device.name, device.compute_unit, device.threads, device.os_build or device.os, device.software),
        (asked.requested_units, asked.lowering, asked.optimization_hints, asked.low_power) if asked else None,
        (package.weight_bits, package.weight_scheme, package.function, package.chunk) if package else None,
        bool({"serious", "critical"}.intersection(record.thermal_states)),
        record.source if record.anchor_ms or record.origin == "published" else None,
    )


def _without_repeats(located: Iterable[Located], dropped: list[Problem]) -> list[Located]:
    kept: list[Located] = []
    seen: dict[Hashable, Located] = {}
    for item in located:
        record = item.record
        own = record.origin in ("measured", "simulated") and record.taken_at
        moment = record.taken_at if own else record
        key = (conditions(record), moment, bool(record.samples_ms))
        first = seen.setdefault(key, item)
        if first is item:
            kept.append(item)
        elif first.record == record:
            dropped.append(item.problem(f"{record.subject!r} repeats {first.place_from(item)}"))
        else:
            what = f"{record.subject!r} was measured at {record.taken_at} in {first.place_from(item)} too"
            dropped.append(item.problem(f"{what}, with other figures; the first is kept"))
    return kept


def _without_mixed_samples(located: Iterable[Located], dropped: list[Problem]) -> list[Located]:
    kept = []
    for item in located:
        steady = item.record.steady_ms
        typical = median(steady) if steady else 0.0
        odd = [value for value in steady if value < typical * _SHORTEST_SHARE or _is_unit(value / typical)]
        if odd:
            what = f"samples of mixed units: {odd[0]:g} beside a median of {typical:g} ms"
            dropped.append(item.problem(f"{item.record.subject!r} has {what}"))
        else:
            kept.append(item)
    return kept


def _without_impossible_memory(located: Iterable[Located], dropped: list[Problem]) -> list[Located]:
    kept = []
    for item in located:
        record = item.record
        before, during = (
            (record.memory.footprint_before_mb, record.memory.footprint_peak_mb) if record.memory else (None, None)
        )
        if before is not None and during is not None and during < before:
            what = f"{record.subject!r} has a peak of {during:g} MB below the {before:g} MB before it: check the unit"
            dropped.append(item.problem(what))
            continue
        peaks = [record.peak_memory_mb, record.memory.footprint_peak_mb if record.memory else None]
        peak = max((value for value in peaks if value is not None), default=0.0)
        most = record.device.memory_mb or _MOST_MEMORY_MB
        if peak > most:
            what = f"{record.subject!r} has a peak of {peak:g} MB on a device of at most {most:g} MB: check the unit"
            dropped.append(item.problem(what))
        else:
            kept.append(item)
    return kept


def _without_impossible_speed(
    located: Iterable[Located], least_ms: Mapping[str, float], dropped: list[Problem]
) -> list[Located]:
    kept = []
    for item in located:
        least, samples = least_ms.get(item.record.subject, 0.0), item.record.steady_ms
        if samples and min(samples) < least:
            text = f"takes {min(samples):g} ms, and this chip's units together could not do it in {least:.3g} ms"
            dropped.append(item.problem(f"{item.record.subject!r} {text}"))
        else:
            kept.append(item)
    return kept


def _without_unlike_repeats(located: Sequence[Located], dropped: list[Problem]) -> list[Located]:
    """Drop records that are a unit's factor away from repeats of the same subject: the fewer, or both sides if even."""
    wrong: set[int] = set()
    for group in _groups(located):
        high = [item for item in group if _is_unit(_centre(item.record) / min(_centre(x.record) for x in group))]
        low = [item for item in group if item not in high]
        if not high:
            continue
        fewer = high + low if len(high) == len(low) else min(high, low, key=len)
        for item in fewer:
            other = next(x for x in group if (x in high) != (item in high))
            times = f"{_centre(item.record):g} and {_centre(other.record):g} ms in {other.place_from(item)}"
            dropped.append(item.problem(f"{item.record.subject!r} is measured in mixed units: {times}"))
            wrong.add(id(item))
    return [item for item in located if id(item) not in wrong]


def _without_unlike_expected(
    located: Sequence[Located], expected_ms: Mapping[str, float], dropped: list[Problem]
) -> list[Located]:
    """Drop records whose time is a unit's factor off the prior: all of them, or those unlike the rest."""
    ratios = {
        id(item): _centre(item.record) / expected_ms[item.record.subject]
        for item in located
        if item.record.samples_ms and item.record.subject in expected_ms
    }
    if not ratios:
        return list(located)
    typical = median(ratios.values())
    all_off = _is_unit(typical) or _is_unit(1 / typical)
    kept = []
    for item in located:
        ratio = ratios.get(id(item))
        if ratio is None or not (all_off or _is_unit(ratio / typical) or _is_unit(typical / ratio)):
            kept.append(item)
            continue
        found, prior = _centre(item.record), expected_ms[item.record.subject]
        reason = (
            "so are all times of this file: another unit than stated" if all_off else "unlike the rest: mixed units"
        )
        text = f"{item.record.subject!r} takes {found:g} ms, the device's prior says {prior:.3g} ms; {reason}"
        dropped.append(item.problem(text))
    return kept


def _below_floor(located: Sequence[Located], dropped: list[Problem]) -> list[Located]:
    """Drop the calls on a phone when all of them are shorter than a dispatch: their unit cannot be right."""
    calls = [
        item
        for item in located
        if item.record.samples_ms
        and item.record.level != "operation"
        and item.record.device.compute_unit in ("neural_engine", "gpu")
    ]
    if not calls or max(_centre(item.record) for item in calls) >= DISPATCH_FLOOR_MS:
        return list(located)
    for item in calls:
        text = f"takes {_centre(item.record):g} ms, and no call reaches the {DISPATCH_FLOOR_MS} ms of a dispatch"
        dropped.append(item.problem(f"{item.record.subject!r} {text}: another unit than stated"))
    wrong = {id(item) for item in calls}
    return [item for item in located if id(item) not in wrong]


def _contradictions(located: Sequence[Located]) -> list[Problem]:
    found = []
    for group in _groups(located):
        fastest = min(group, key=lambda item: _centre(item.record))
        slowest = max(group, key=lambda item: _centre(item.record))
        factor = _centre(slowest.record) / _centre(fastest.record)
        if factor > CONTRADICTION_FACTOR:
            subject = slowest.record.subject
            text = (
                f"takes {_centre(slowest.record):g}, but {_centre(fastest.record):g} in {fastest.place_from(slowest)}"
            )
            why = f"{factor:.1f} times, under equal conditions; both are kept"
            found.append(slowest.problem(f"{subject!r} {text}: {why}"))
    return found


def _groups(located: Iterable[Located]) -> list[list[Located]]:
    groups: dict[Hashable, list[Located]] = defaultdict(list)
    for item in located:
        if item.record.samples_ms:
            groups[conditions(item.record)].append(item)
    return [group for group in groups.values() if len(group) > 1]


def _centre(record: ProfileRecord) -> float:
    """Median after warm-up; beside an anchor, in units of the anchor's time."""
    if record.anchor_ms:
        anchors = record.anchor_ms[record.warmup :]
        return median(sample / anchor for sample, anchor in zip(record.steady_ms, anchors, strict=True))
    return median(record.steady_ms)


def _is_unit(ratio: float) -> bool:
    return _UNIT_RANGE[0] < ratio < _UNIT_RANGE[1]
