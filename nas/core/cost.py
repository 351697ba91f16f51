"""Costs with their origin and interval, and the budgets they are held against."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isfinite
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

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
class UpperEnds:
    """One-sided upper ends: the device keeps each of them with probability ``level``."""

    level: float
    latency_ms: float
    memory_mb: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceCost:
    """Cost of a network on a further device, with its own predictor, intervals and origin; see ``CostEstimate``."""

    device: str
    latency_ms: float
    latency_interval_ms: Interval
    peak_memory_mb: float
    memory_interval_mb: Interval
    predictor: str
    origin: Origin
    package_mb: float | None = None
    upper: UpperEnds | None = None
    in_domain: bool = True
    domain_note: str = ""
    infeasible: tuple[Infeasibility, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CostEstimate:
    """Latency of one generation and peak memory, with intervals and origin.

    ``blocks`` sums to ``latency_ms``; what no block accounts for is the block ``overhead``, or ``correction`` where it
    is below 0: no time that passes, but what networks were measured to take less than the sum of their blocks.
    ``phases`` sums to it too; files of versions before phases have none, their cost is of the denoiser alone.
    ``in_domain`` is False when the predictor had to extrapolate, and ``domain_note`` says why. With anything in
    ``infeasible`` the network does not run on the device in this scenario, whatever its latency would be.

    ``package_mb`` is the size of the exported package, None in files of versions before it. ``upper`` holds the ends
    that limits with a probability are held against. ``devices`` are further devices that the network is to run on, and
    ``combined_ms`` the latency over all of them that a search minimises, None with a single one.
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
    package_mb: float | None = None
    upper: UpperEnds | None = None
    devices: tuple[DeviceCost, ...] = ()
    combined_ms: float | None = None

    def __post_init__(self) -> None:
        for name in ("latency_ms", "peak_memory_mb"):
            value = getattr(self, name)
            if not isfinite(value) or value < 0:
                raise ValueError(f"cost.{name} must be finite and not negative, got {value}")

    def limit_end_ms(self, probability: float | None) -> float:
        """Return the end of latency that a limit with or without a probability is held against.

        Raises:
            ValueError: The cost has no one-sided ends.
        """
        return _ends(self, probability)[0]

    @property
    def objective_ms(self) -> float:
        """Latency that a search minimises: over all devices where there are several."""
        return self.latency_ms if self.combined_ms is None else self.combined_ms

    def totals(self) -> CostEstimate:
        """Return it without the split by block and phase, which a cost table gives again."""
        return replace(self, blocks=(), phases=()) if self.blocks or self.phases else self

    def with_split_of(self, other: CostEstimate) -> CostEstimate:
        """Return it with the split by block and phase of another estimate of the same architecture."""
        return replace(self, blocks=other.blocks, phases=other.phases)


Limit = Literal["latency_ms", "peak_memory_mb", "parameters", "package_mb", "placement"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A limit that a cost breaks, and by how much.

    Limit ``placement`` counts the blocks that no allowed compute unit can run; none are allowed, and ``reason`` tells
    about the first. ``device`` names a further device whose limit it is; empty for the run's own.
    """

    limit: Limit
    allowed: float
    value: float
    reason: str = ""
    device: str = ""

    @property
    def excess_ratio(self) -> float:
        """How far above the limit: 0.1 is ten per cent over."""
        return self.value / self.allowed - 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceBudget:
    """Limits on one device; see ``Budget``."""

    device: str
    latency_ms: float | None = None
    peak_memory_mb: float | None = None
    package_mb: float | None = None
    probability: float | None = None
    runs_on: tuple[ComputeUnit, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Limits on cost; a candidate is feasible when the upper ends of its intervals keep them.

    Attributes:
        package_mb: Size of the exported package.
        probability: With it the upper ends are one-sided: latency and memory keep their limits together with at least
            this probability. Without it they are those of the two-sided intervals of ``coverage``.
        runs_on: Compute units that every block has to run on; a cost's ``infeasible`` says which do not.
        devices: Limits on further devices.
    """

    latency_ms: float | None = None
    peak_memory_mb: float | None = None
    parameters: int | None = None
    coverage: float = 0.9
    package_mb: float | None = None
    probability: float | None = None
    runs_on: tuple[ComputeUnit, ...] = ()
    devices: tuple[DeviceBudget, ...] = ()

    @property
    def objective_limits(self) -> tuple[float | None, float | None]:
        """Limits on the objectives latency and peak memory themselves; none on a latency over several devices."""
        return None if self.devices else self.latency_ms, self.peak_memory_mb

    def violations(self, cost: CostEstimate) -> tuple[Violation, ...]:
        """Return every limit that an upper end is above, placement first; parameters are exact. Devices in order.

        Raises:
            ValueError: The cost has no one-sided ends, or not all devices, that the budget asks for.
        """
        own = [*_placement_violation(cost), *_broken(self, cost)]
        if self.parameters is not None and cost.parameters > self.parameters:
            own.append(Violation(limit="parameters", allowed=float(self.parameters), value=float(cost.parameters)))
        costs = {item.device: item for item in cost.devices}
        for budget in self.devices:
            if budget.device not in costs:
                raise ValueError(f"the cost says nothing of device {budget.device!r}, which the budget limits")
            other = costs[budget.device]
            own += [*_placement_violation(other, budget.device), *_broken(budget, other, budget.device)]
        return tuple(own)


def _broken(budget: Budget | DeviceBudget, cost: CostEstimate | DeviceCost, device: str = "") -> Iterator[Violation]:
    """Yield the limits on latency, memory and package that a cost breaks."""
    latency_ms, memory_mb = _ends(cost, budget.probability)
    pairs: tuple[tuple[Limit, float | None, float | None], ...] = (
        ("latency_ms", budget.latency_ms, latency_ms),
        ("peak_memory_mb", budget.peak_memory_mb, memory_mb),
        ("package_mb", budget.package_mb, cost.package_mb),
    )
    for limit, allowed, value in pairs:
        if allowed is not None and value is None:
            raise ValueError(f"the cost has no {limit}, which the budget limits")
        if allowed is not None and value is not None and value > allowed:
            yield Violation(limit=limit, allowed=float(allowed), value=value, device=device)


def _ends(cost: CostEstimate | DeviceCost, probability: float | None) -> tuple[float, float]:
    if probability is None:
        return cost.latency_interval_ms.high, cost.memory_interval_mb.high
    if cost.upper is None:
        raise ValueError(f"the cost has no one-sided ends, which a probability of {probability} needs")
    return cost.upper.latency_ms, cost.upper.memory_mb


def _placement_violation(cost: CostEstimate | DeviceCost, device: str = "") -> tuple[Violation, ...]:
    if not cost.infeasible:
        return ()
    first = cost.infeasible[0]
    reason = f"{first.block} on {first.compute_unit}: {first.reason} ({first.source})"
    blocks = len({item.block for item in cost.infeasible})
    return (Violation(limit="placement", allowed=0.0, value=float(blocks), reason=reason, device=device),)
