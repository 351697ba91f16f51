"""An additive problem: costs and quality as sums over slots and neighbouring slots, memory as weights and a maximum.

Shapes: L slots, N architectures.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from nas.search.exact import solver
from nas.search.exact.requirements import MemoryRequirement, Requirement, largest
from nas.search.exact.tables import BoolArray, CostArrays, FloatArray, IntArray, SlotSum, stack, within

if TYPE_CHECKING:
    from nas.core.cost import Budget
    from nas.search.exact.front import ExactFront

__all__ = [
    "AdditiveCosts",
    "AdditiveProblem",
    "BoolArray",
    "CostArrays",
    "FloatArray",
    "IntArray",
    "PessimisticCosts",
    "SearchCosts",
    "SlotSum",
    "stack",
    "within",
]


class SearchCosts(Protocol):
    """What engines know of the costs of a space, whatever form they are held in."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of options of each slot."""

    @property
    def hint_ms(self) -> SlotSum:
        """What each option typically adds to latency: a guide for engines, not a cost."""

    def score(self, options: IntArray) -> CostArrays:
        """Return the costs of architectures given as option indices (N, L)."""

    def feasible(self, options: IntArray, budget: Budget) -> BoolArray:
        """Return which architectures (N, L) keep ``budget`` with their upper ends, (N,)."""

    def front(self, quality: SlotSum, budget: Budget, *, max_labels: int | None = None) -> ExactFront:
        """Return the front of highest ``quality`` and lowest latency and peak memory inside ``budget``."""


class PessimisticCosts(SearchCosts, Protocol):
    """Costs that can be had at their upper ends."""

    def at_upper_ends(self) -> SearchCosts:
        """Return the same costs with predictions at the upper ends that limits are held against."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AdditiveCosts:
    """Cost of every architecture of a space.

    Peak memory is ``weights_mb`` plus the largest activation of the chosen options and ``base_activation_mb``, and no
    less than ``floor_mb``, the peak of another network that is loaded in its turn. Its upper end takes the options'
    activations times ``activation_high_ratio``, since weights are known exactly.

    Attributes:
        latency_ms: Predicted latency.
        latency_high_ms: Upper end of its interval; the prediction itself when left out.
        activation_mb: L arrays; activation memory of the whole network while this option's blocks run.
        weights_mb: Weights; none when left out.
        held_high_mb: What the upper end has besides, the same for every architecture.
        floor_high_mb: Upper end of ``floor_mb``.
        parameters: Numbers of parameters; none when left out.
        runs: L arrays; which options run on the device at all. All do when left out.
        requirements: Further additive figures with limits of their own.
        memory_requirements: Limits on the peak memory of further devices.
        other_latencies_ms: Latencies on further devices; an architecture's latency is the largest of all. The budget's
            limit is held against ``latency_high_ms``, limits for the others are ``requirements``.
    """

    latency_ms: SlotSum
    activation_mb: tuple[FloatArray, ...]
    base_activation_mb: float = 0.0
    activation_high_ratio: float = 1.0
    held_high_mb: float = 0.0
    floor_mb: float = 0.0
    floor_high_mb: float = 0.0
    latency_high_ms: SlotSum | None = None
    weights_mb: SlotSum | None = None
    parameters: SlotSum | None = None
    runs: tuple[BoolArray, ...] | None = None
    requirements: tuple[Requirement, ...] = ()
    memory_requirements: tuple[MemoryRequirement, ...] = ()
    other_latencies_ms: tuple[SlotSum, ...] = ()

    def __post_init__(self) -> None:
        sizes = self.latency_ms.sizes
        others = {"latency_high_ms": self.latency_high_ms, "weights_mb": self.weights_mb, "parameters": self.parameters}
        found = {name: other.sizes for name, other in others.items() if other is not None}
        found["activation_mb"] = tuple(len(row) for row in self.activation_mb)
        if self.runs is not None:
            found["runs"] = tuple(len(row) for row in self.runs)
        found |= {f"requirement {item.name!r}": item.table.sizes for item in self.requirements}
        for item in self.memory_requirements:
            found[f"requirement {item.name!r}"] = item.sizes
            if item.weights_mb is not None:
                found[f"weights_mb of requirement {item.name!r}"] = item.weights_mb.sizes
        found |= {f"other_latencies_ms[{index}]": item.sizes for index, item in enumerate(self.other_latencies_ms)}
        for name, other in found.items():
            if other != sizes:
                raise ValueError(f"{name} has {other} options by slot, latency_ms has {sizes}")
        constants = [self.base_activation_mb, self.held_high_mb, self.floor_mb, self.floor_high_mb]
        activations = [*self.activation_mb, np.array(constants)]
        if not all(np.isfinite(row).all() for row in activations):
            raise ValueError("activation_mb must be finite, got NaN or infinity")
        if not self.activation_high_ratio >= 1:
            raise ValueError(f"activation_high_ratio must be at least 1, got {self.activation_high_ratio}")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of options of each slot."""
        return self.latency_ms.sizes

    @property
    def hint_ms(self) -> SlotSum:
        """Latency itself."""
        return self.latency_ms

    def highest_mb(self, activation_mb: FloatArray) -> FloatArray:
        """Return what the upper ends of memory have beyond the weights, given largest activations (N,)."""
        return activation_mb * self.activation_high_ratio + self.held_high_mb

    def score(self, options: IntArray) -> CostArrays:
        """Return the costs of architectures given as option indices (N, L)."""
        latency = self.latency_ms.total(options)
        high = latency if self.latency_high_ms is None else self.latency_high_ms.total(options)
        for other in self.other_latencies_ms:
            latency = np.maximum(latency, other.total(options))
        weights = np.zeros(len(options)) if self.weights_mb is None else self.weights_mb.total(options)
        activation = largest(self.activation_mb, options, self.base_activation_mb)
        meets = np.ones(len(options), dtype=bool)
        for requirement in self.requirements:
            meets &= requirement.met(options)
        for memory in self.memory_requirements:
            meets &= memory.met(options)
        return CostArrays(
            latency_ms=latency,
            latency_high_ms=high,
            peak_memory_mb=np.maximum(weights + activation, self.floor_mb),
            memory_high_mb=np.maximum(weights + self.highest_mb(activation), self.floor_high_mb),
            parameters=np.zeros(len(options)) if self.parameters is None else self.parameters.total(options),
            runs=self._all_run(options),
            meets=meets,
        )

    def allowed(self) -> list[IntArray]:
        """Return the options of each slot that run."""
        if self.runs is None:
            return [np.arange(size) for size in self.sizes]
        return [np.flatnonzero(row) for row in self.runs]

    def at_upper_ends(self) -> AdditiveCosts:
        """Return the same costs with predictions at their upper ends: its fronts are those of the worst case stated.

        Latencies of further devices are left out: their upper ends are requirements.
        """
        return replace(
            self,
            latency_ms=self.latency_ms if self.latency_high_ms is None else self.latency_high_ms,
            latency_high_ms=None,
            other_latencies_ms=(),
            activation_mb=tuple(self.highest_mb(row) for row in self.activation_mb),
            base_activation_mb=float(self.highest_mb(np.array([self.base_activation_mb]))[0]),
            activation_high_ratio=1.0,
            held_high_mb=0.0,
            floor_mb=self.floor_high_mb,
        )

    def _all_run(self, options: IntArray) -> BoolArray:
        every = np.ones(len(options), dtype=bool)
        for slot, row in enumerate(self.runs or ()):
            every &= row[options[:, slot]]
        return every

    def feasible(self, options: IntArray, budget: Budget) -> BoolArray:
        """Return which architectures (N, L) keep ``budget`` with their upper ends, (N,)."""
        return within(self.score(options), budget)

    def front(self, quality: SlotSum, budget: Budget, *, max_labels: int | None = None) -> ExactFront:
        """Return the front of highest ``quality`` and lowest latency and peak memory; see ``solve``."""
        return solver.solve(AdditiveProblem(costs=self, quality=quality), budget, max_labels=max_labels)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AdditiveProblem:
    """Costs and a quality, all over the same options; quality is to be as large as possible."""

    costs: AdditiveCosts
    quality: SlotSum

    def __post_init__(self) -> None:
        if self.quality.sizes != self.costs.sizes:
            raise ValueError(f"quality has {self.quality.sizes} options by slot, costs have {self.costs.sizes}")
