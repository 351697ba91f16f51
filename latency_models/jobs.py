"""What to measure and how: jobs, plans and the protocol of a device backend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from nas.core.architecture import Architecture
from nas.core.profile import Level
from nas.core.workload import BlockSpec

if TYPE_CHECKING:
    from nas.core.cost import Origin
    from nas.core.profile import DeviceInfo, ProfileRecord

Prepared = tuple[Callable[..., Any], tuple[Any, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasurementJob:
    """One thing to measure.

    ``subject`` is a block's signature or an architecture's digest; ``block`` or ``architecture`` is what it stands for,
    and goes into the record. ``make`` builds the callable and its arguments; it is called right before measuring, so
    that only one job's weights are held at a time.
    """

    subject: str
    level: Level
    make: Callable[[], Prepared]
    architecture: Architecture | None = None
    block: BlockSpec | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasurementPlan:
    """How long and how often to measure.

    Attributes:
        scenario: ``call_label`` written into each record.
        passes: Times the whole list of jobs is gone through, each in another order; each pass adds a record.
        warmup: Calls before the first counted sample, of each record.
        min_repeats: Counted samples at least, even beyond ``seconds``.
        max_repeats: Counted samples at most.
        seconds: Measured time of one block's record, anchors included; waiting for a shared processor not.
        network_seconds: The same for one network's record.
        measure_memory: Whether to trace peak memory (on each subject's first record).
        max_drift_ratio: Change within one record, at reference speed, beyond which it is measured again.
        attempts: Tries for a stable record before it is kept as it is, with a warning.
        seed: Of the order of jobs.
    """

    scenario: str
    passes: int = 3
    warmup: int = 2
    min_repeats: int = 6
    max_repeats: int = 200
    seconds: float = 0.04
    network_seconds: float = 0.3
    measure_memory: bool = True
    max_drift_ratio: float = 0.3
    attempts: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("passes", "min_repeats", "max_repeats", "attempts"):
            if getattr(self, name) < 1:
                raise ValueError(f"measurement plan: {name} must be at least 1, got {getattr(self, name)}")
        if self.warmup < 0 or self.max_repeats < self.min_repeats:
            raise ValueError(
                f"measurement plan: needs warmup >= 0 and max_repeats >= min_repeats, got warmup {self.warmup}, "
                f"min_repeats {self.min_repeats}, max_repeats {self.max_repeats}"
            )
        if self.seconds <= 0 or self.network_seconds <= 0:
            raise ValueError("measurement plan: seconds and network_seconds must be above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Availability:
    """Whether a backend can measure here, and what is missing if not."""

    available: bool
    reason: str = ""


class DeviceBackend(Protocol):
    """Measures jobs on one device."""

    name: str
    origin: Origin

    def availability(self) -> Availability:
        """Say whether measuring is possible; never raises."""
        ...

    def describe(self) -> DeviceInfo:
        """Describe the device."""
        ...

    def measure(self, job: MeasurementJob, plan: MeasurementPlan, *, memory: bool) -> ProfileRecord:
        """Measure one job once; ``memory`` asks for its peak memory too."""
        ...
