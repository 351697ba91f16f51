"""Costs with their origin and interval, and the budgets they are held against."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Literal

Origin = Literal["measured", "predicted", "simulated", "published"]
ComputeUnit = Literal["cpu", "gpu", "neural_engine", "cuda", "unknown"]
PhaseName = Literal["text_encoder", "denoiser", "decoder", "overhead"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A range and the share of truths it is stated to hold."""

    low: float
    high: float
    coverage: float

    def __post_init__(self) -> None:
        if not (isfinite(self.low) and isfinite(self.high)) or self.low > self.high:
            raise ValueError(f"interval needs finite low <= high, got {self.low} and {self.high}")
        if not 0.0 < self.coverage <= 1.0:
            raise ValueError(f"interval coverage must lie in (0, 1], got {self.coverage}")

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockCost:
    """Share of one block in a cost: latency over one generation, and peak memory while it runs.

    ``latency_interval_ms`` is for this block on its own; blocks' intervals do not add up to the network's.
    """

    block: str
    latency_ms: float
    memory_mb: float
    compute_unit: ComputeUnit = "unknown"
    latency_interval_ms: Interval | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Infeasibility:
    """A block that a compute unit cannot run at all, why, and where that is known from; ``network`` for a whole one."""

    block: str
    compute_unit: ComputeUnit
    reason: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseCost:
    """Share of one phase in a generation: text encoder, denoising steps, decoder, and what lies between them.

    Attributes:
        calls: How often the phase runs in one generation.
        latency_ms: Time of all its calls.
        peak_memory_mb: Its weights and largest activation on their own; None where nobody has stated them.
        origin: Where its latency is from, which may differ from phase to phase.
        source: Who says so: the predictor, a measurement, a publication.
    """

    phase: PhaseName
    calls: int
    latency_ms: float
    latency_interval_ms: Interval
    peak_memory_mb: float | None
    origin: Origin
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CostEstimate:
    """Latency of one generation and peak memory, with intervals and origin.

    ``blocks`` sums to ``latency_ms``; what no block accounts for is the block ``overhead``, or ``correction`` where it
    is below 0: no time that passes, but what networks were measured to take less than the sum of their blocks.
    ``phases`` sums to it too; files of versions before phases have none, their cost is of the denoiser alone.
    ``in_domain`` is False when the predictor had to extrapolate, and ``domain_note`` says why. With anything in
    ``infeasible`` the network does not run on the device in this scenario, whatever its latency would be.
    """

    latency_ms: float
    latency_interval_ms: Interval
    peak_memory_mb: float
    memory_interval_mb: Interval
    parameters: int
    blocks: tuple[BlockCost, ...]
    device: str
    scenario: str
    predictor: str
    origin: Origin
    in_domain: bool = True
    domain_note: str = ""
    infeasible: tuple[Infeasibility, ...] = ()
    phases: tuple[PhaseCost, ...] = ()

    def __post_init__(self) -> None:
        for name in ("latency_ms", "peak_memory_mb"):
            value = getattr(self, name)
            if not isfinite(value) or value < 0:
                raise ValueError(f"cost.{name} must be finite and not negative, got {value}")


Limit = Literal["latency_ms", "peak_memory_mb", "parameters", "placement"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A limit that a cost breaks, and by how much.

    Limit ``placement`` counts the blocks that no allowed compute unit can run; none are allowed, and ``reason`` tells
    about the first.
    """

    limit: Limit
    allowed: float
    value: float
    reason: str = ""

    @property
    def excess_ratio(self) -> float:
        """How far above the limit: 0.1 is ten per cent over."""
        return self.value / self.allowed - 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Limits on cost; a candidate is feasible when the upper ends of its intervals keep them."""

    latency_ms: float | None = None
    peak_memory_mb: float | None = None
    parameters: int | None = None
    coverage: float = 0.9

    def violations(self, cost: CostEstimate) -> tuple[Violation, ...]:
        """Return every limit whose interval's upper end is above it, placement first; parameters are exact."""
        pairs: tuple[tuple[Limit, float | None, float], ...] = (
            ("latency_ms", self.latency_ms, cost.latency_interval_ms.high),
            ("peak_memory_mb", self.peak_memory_mb, cost.memory_interval_mb.high),
            ("parameters", self.parameters, float(cost.parameters)),
        )
        broken = tuple(
            Violation(limit=limit, allowed=float(allowed), value=value)
            for limit, allowed, value in pairs
            if allowed is not None and value > allowed
        )
        return (*_placement_violation(cost), *broken)


def _placement_violation(cost: CostEstimate) -> tuple[Violation, ...]:
    if not cost.infeasible:
        return ()
    first = cost.infeasible[0]
    reason = f"{first.block} on {first.compute_unit}: {first.reason} ({first.source})"
    blocks = len({item.block for item in cost.infeasible})
    return (Violation(limit="placement", allowed=0.0, value=float(blocks), reason=reason),)
