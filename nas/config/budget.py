"""The ``budget`` section of a run's YAML."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from nas.config.section import Count, Positive, Section, Share
from nas.core.cost import Budget, ComputeUnit, DeviceBudget

if TYPE_CHECKING:
    from typing import Self

Probability = Annotated[float, Field(ge=0.5, lt=1.0)]


def _as_tuple(value: Any) -> Any:
    """Take one name for a list of one."""
    if not isinstance(value, (str, list)) or not value:
        raise ValueError("must be a compute unit or a list of at least one of them")
    return (value,) if isinstance(value, str) else tuple(value)


Units = Annotated[tuple[ComputeUnit, ...], BeforeValidator(_as_tuple)]


class DeviceLimits(Section):
    """Limits on one device.

    Without ``probability`` a candidate must keep them with the upper ends of its two-sided intervals. With it, latency
    and memory must keep their limits together with at least this probability, by one-sided ends. ``runs_on`` names a
    compute unit, or several, that every operation of the searched network has to run on.
    """

    latency_ms: Positive | None = None
    peak_memory_mb: Positive | None = None
    package_mb: Positive | None = None
    probability: Probability | None = None
    runs_on: Units | None = None

    @property
    def num_uncertain(self) -> int:
        """How many of the limits hold only with a probability."""
        return (self.latency_ms is not None) + (self.peak_memory_mb is not None)

    def on(self, device: str) -> DeviceBudget:
        """Return the domain value for a further device."""
        return DeviceBudget(
            device=device,
            latency_ms=self.latency_ms,
            peak_memory_mb=self.peak_memory_mb,
            package_mb=self.package_mb,
            probability=self.probability,
            runs_on=self.runs_on or (),
        )


class BudgetSection(DeviceLimits):
    """Limits on the run's own device, and the coverage of its intervals.

    ``latency_share`` states the latency limit as a place between the cheapest (0) and the dearest (1) architecture of
    the space on the run's device, for examples that must make sense on any host; it excludes ``latency_ms``.
    """

    latency_share: Share | None = None
    parameters: Count | None = None
    coverage: Share = 0.9

    @model_validator(mode="after")
    def _one_latency_limit(self) -> Self:
        if self.latency_ms is not None and self.latency_share is not None:
            raise ValueError("give latency_ms or latency_share, not both")
        return self

    @property
    def num_uncertain(self) -> int:
        """How many of the limits hold only with a probability."""
        limited = self.latency_ms is not None or self.latency_share is not None
        return limited + (self.peak_memory_mb is not None)

    def build(self, cheapest_ms: float, dearest_ms: float, devices: tuple[DeviceBudget, ...] = ()) -> Budget:
        """Return the domain value; the two latencies, upper ends of intervals, resolve ``latency_share``."""
        latency_ms = self.latency_ms
        if self.latency_share is not None:
            latency_ms = cheapest_ms + self.latency_share * (dearest_ms - cheapest_ms)
        return Budget(
            latency_ms=latency_ms,
            peak_memory_mb=self.peak_memory_mb,
            parameters=self.parameters,
            coverage=self.coverage,
            package_mb=self.package_mb,
            probability=self.probability,
            runs_on=self.runs_on or (),
            devices=devices,
        )
