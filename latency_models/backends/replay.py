"""A recorded profile as a device: each measurement is the next record of its subject, for trials without the device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latency_models.jobs import Availability
from latency_models.profiles import single_device
from nas.core.errors import MeasurementError, ProfileError

if TYPE_CHECKING:
    from latency_models.jobs import MeasurementJob, MeasurementPlan
    from nas.core.cost import Origin
    from nas.core.profile import DeviceInfo, ProfileRecord, ProfileSet


class ReplayBackend:
    """Serves the records of one device, each once, in the order they were taken; failed attempts as they were.

    Args:
        profiles: Records of one device and one origin.

    Raises:
        ProfileError: There are no records, or they are of several devices or origins.
    """

    def __init__(self, profiles: ProfileSet) -> None:
        self.name = single_device(profiles)
        origins = sorted({record.origin for record in profiles.records})
        if len(origins) > 1:
            raise ProfileError(f"a replay is of one origin, got {', '.join(origins)}")
        self.origin: Origin = profiles.records[0].origin
        self._device = profiles.records[0].device
        self._left: dict[tuple[str, str], list[ProfileRecord]] = {}
        for record in profiles.records:
            self._left.setdefault((record.level, record.subject), []).append(record)

    def availability(self) -> Availability:
        """Always available."""
        return Availability(available=True)

    def describe(self) -> DeviceInfo:
        """Return the recorded device."""
        return self._device

    def remaining(self, job: MeasurementJob) -> int:
        """Return how many records of a job's subject have not been served."""
        return len(self._left.get((job.level, job.subject), ()))

    def measure(self, job: MeasurementJob, plan: MeasurementPlan, *, memory: bool = True) -> ProfileRecord:  # noqa: ARG002  # the record has what it has
        """Return the next record of the job's subject; the job's ``make`` is not called.

        Raises:
            MeasurementError: No record of it is left, or it was taken for another scenario.
        """
        left = self._left.get((job.level, job.subject))
        if not left:
            known = "all its records were served" if left is not None else "it was not recorded"
            raise MeasurementError(f"{job.level} {job.subject!r} cannot be replayed: {known}")
        if left[0].scenario != plan.scenario:
            raise MeasurementError(
                f"{job.level} {job.subject!r} was recorded for {left[0].scenario!r}, not for {plan.scenario!r}"
            )
        return left.pop(0)
