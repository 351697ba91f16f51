"""The ``budget`` section of a run's YAML."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import model_validator

from nas.config.section import Count, Positive, Section, Share
from nas.core.cost import Budget

if TYPE_CHECKING:
    from typing import Self


class BudgetSection(Section):
    """Limits; a candidate must keep them with the upper end of its intervals.

    ``latency_share`` states the latency limit as a place between the cheapest (0) and the dearest (1) architecture of
    the space on the run's device, for examples that must make sense on any host; it excludes ``latency_ms``.
    """

    latency_ms: Positive | None = None
    latency_share: Share | None = None
    peak_memory_mb: Positive | None = None
    parameters: Count | None = None
    coverage: Share = 0.9

    @model_validator(mode="after")
    def _one_latency_limit(self) -> Self:
        if self.latency_ms is not None and self.latency_share is not None:
            raise ValueError("give latency_ms or latency_share, not both")
        return self

    def build(self, cheapest_ms: float, dearest_ms: float) -> Budget:
        """Return the domain value; the two latencies, upper ends of intervals, resolve ``latency_share``."""
        latency_ms = self.latency_ms
        if self.latency_share is not None:
            latency_ms = cheapest_ms + self.latency_share * (dearest_ms - cheapest_ms)
        return Budget(
            latency_ms=latency_ms,
            peak_memory_mb=self.peak_memory_mb,
            parameters=self.parameters,
            coverage=self.coverage,
        )
