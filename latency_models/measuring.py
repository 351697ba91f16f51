"""Measure many jobs in shuffled passes, saving each record as it comes, so that an interrupted profile goes on."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING

from latency_models.backends.fresh_process import FreshProcessBackend
from latency_models.profiles import append_record, scan_profile
from latency_models.summaries import anchor_reference, drift_ratio, steady_samples_ms
from nas.core.errors import MeasurementError, ProfileError, UnavailableError
from nas.core.profile import ProfileSet
from nas.core.protocols import SilentProgress
from nas.core.rng import RandomStreams

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from latency_models.jobs import DeviceBackend, MeasurementJob, MeasurementPlan
    from latency_models.profiles import ProfileReading
    from nas.core.profile import DeviceInfo, ProfileRecord
    from nas.core.protocols import Progress

_log = logging.getLogger(__name__)
_HINT = "profile again in a new run directory; measurements do not carry over"


def measure_all(
    backend: DeviceBackend,
    jobs: Sequence[MeasurementJob],
    plan: MeasurementPlan,
    path: Path,
    *,
    progress: Progress | None = None,
) -> ProfileSet:
    """Measure every job ``plan.passes`` times and append each record to ``path``.

    Each pass goes through the jobs in another random order, so that slow phases of the machine fall on different jobs
    and none is measured in one phase only; a backend that can be renewed is, before each pass but the first. Records
    already in ``path`` are not measured again.

    Returns:
        The records of these jobs, earlier ones included.

    Raises:
        UnavailableError: The backend cannot measure here.
        ProfileError: ``path`` holds records of another device or scenario, or two jobs have one subject.
        MeasurementError: A job failed; what was measured is kept.
    """
    _check(backend, jobs)
    show = progress or SilentProgress()
    earlier = _earlier(path, plan, backend.describe())
    for line in earlier.lines():
        _log.warning("%s", line)
    done = Counter(record.subject for record in earlier.profiles.records)
    total = plan.passes * len(jobs)
    finished = sum(min(done[job.subject], plan.passes) for job in jobs)
    streams = RandomStreams(plan.seed)
    for number in range(plan.passes):
        order = [job for job in jobs if done[job.subject] <= number]
        streams.python("measurement-order", number).shuffle(order)
        if number > 0 and order and isinstance(backend, FreshProcessBackend):
            backend.renew()
        for job in order:
            show.update(finished, total, f"{job.level} {job.subject}")
            memory = plan.measure_memory and done[job.subject] == 0
            append_record(path, _measure_steadily(backend, job, plan, memory=memory))
            done[job.subject] += 1
            finished += 1
    show.update(total, total)
    wanted = {job.subject for job in jobs}
    profiles = _earlier(path, plan, backend.describe()).profiles
    return ProfileSet(records=tuple(record for record in profiles.records if record.subject in wanted))


def _earlier(path: Path, plan: MeasurementPlan, device: DeviceInfo) -> ProfileReading:
    reading = scan_profile(path)
    now = {"chip": device.chip, "threads": device.threads, "software": device.software}
    for record in reading.profiles.records:
        for name, before, wanted in (
            ("scenario", record.scenario, plan.scenario),
            ("device", record.device.name, device.name),
        ):
            if before != wanted:
                raise ProfileError(
                    f"{path}: {record.subject!r} was measured for {name} {before!r}, this run is for {wanted!r}",
                    hint=_HINT,
                )
        for name, value in now.items():
            before = getattr(record.device, name)
            if before != value:
                raise ProfileError(
                    f"{path}: {record.subject!r} was measured with {name} {before!r}, this machine has {value!r}",
                    hint=_HINT,
                )
    return reading


def _check(backend: DeviceBackend, jobs: Sequence[MeasurementJob]) -> None:
    state = backend.availability()
    if not state.available:
        raise UnavailableError(f"backend {backend.name!r} cannot measure here: {state.reason}")
    repeated = [subject for subject, count in Counter(job.subject for job in jobs).items() if count > 1]
    if repeated:
        raise ProfileError(f"{len(repeated)} subjects appear in several jobs, first {repeated[0]!r}")


def _measure_steadily(
    backend: DeviceBackend, job: MeasurementJob, plan: MeasurementPlan, *, memory: bool
) -> ProfileRecord:
    for attempt in range(1, plan.attempts + 1):
        try:
            record = backend.measure(job, plan, memory=memory)
        except (RuntimeError, ValueError, TypeError, MemoryError) as error:
            raise MeasurementError(
                f"{job.level} {job.subject!r} failed on {backend.name}: {error}",
                hint="what was measured so far is kept; run again to go on",
            ) from error
        if record.failure is not None:
            return record
        drift = _drift(record)
        if abs(drift) <= plan.max_drift_ratio:
            return record
        _log.debug("%s drifted by %.0f %% in attempt %d", job.subject, 100.0 * drift, attempt)
    _log.warning(
        "%s %s still drifts by %.0f %% within one record after %d attempts; kept",
        job.level,
        job.subject,
        100.0 * drift,
        plan.attempts,
    )
    return record


def _drift(record: ProfileRecord) -> float:
    reference = anchor_reference(ProfileSet(records=(record,)), record.level)
    return drift_ratio(list(steady_samples_ms(record, reference=reference)))
