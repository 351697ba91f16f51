"""An additive problem: costs and quality as sums over slots and neighbouring slots, memory as weights and a maximum.

Shapes: L slots, option counts ``n[0] … n[L-1]``, N architectures.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nas.core.cost import Budget

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SlotSum:
    """A figure of an architecture: ``base``, plus one number a slot, plus one for every pair of neighbouring slots.

    Attributes:
        slots: L arrays; ``slots[l][c]`` is what option ``c`` adds in slot ``l``.
        pairs: ``None``, or L - 1 arrays; ``pairs[l][c, d]`` is added when slots ``l``, ``l + 1`` hold ``c``, ``d``.
        base: What every architecture has.
    """

    slots: tuple[FloatArray, ...]
    pairs: tuple[FloatArray, ...] | None = None
    base: float = 0.0

    def __post_init__(self) -> None:
        if not self.slots or any(row.ndim != 1 or not len(row) for row in self.slots):
            raise ValueError("a slot sum needs at least one slot, and a row of at least one number for each")
        sizes = self.sizes
        if self.pairs is not None:
            shapes = [pair.shape for pair in self.pairs]
            if shapes != list(itertools.pairwise(sizes)):
                raise ValueError(f"pairs must have shapes {list(itertools.pairwise(sizes))}, got {shapes}")
        arrays = [np.array([self.base]), *self.slots, *(self.pairs or ())]
        if not all(np.isfinite(array).all() for array in arrays):
            raise ValueError("a slot sum must be finite, got NaN or infinity")

    @classmethod
    def of(
        cls,
        slots: Sequence[Sequence[float] | FloatArray],
        pairs: Sequence[Sequence[Sequence[float]] | FloatArray] | None = None,
        base: float = 0,
    ) -> SlotSum:
        """Return a sum from nested sequences or arrays."""
        return cls(
            slots=tuple(np.asarray(row, dtype=float) for row in slots),
            pairs=None if pairs is None else tuple(np.asarray(pair, dtype=float) for pair in pairs),
            base=float(base),
        )

    @classmethod
    def zeros(cls, sizes: Sequence[int]) -> SlotSum:
        """Return the sum that is 0 for every architecture."""
        return cls(slots=tuple(np.zeros(size) for size in sizes))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of options of each slot."""
        return tuple(len(row) for row in self.slots)

    @property
    def has_pairs(self) -> bool:
        """Whether a pair adds anything."""
        return self.pairs is not None and any(bool(pair.any()) for pair in self.pairs)

    @property
    def is_constant(self) -> bool:
        """Whether it is the same for every architecture, as far as its tables show at once."""
        return not self.has_pairs and all(bool((row == row[0]).all()) for row in self.slots)

    def scaled(self, factor: float) -> SlotSum:
        """Return the sum times ``factor``."""
        return SlotSum(
            slots=tuple(factor * row for row in self.slots),
            pairs=None if self.pairs is None else tuple(factor * pair for pair in self.pairs),
            base=factor * self.base,
        )

    def total(self, options: IntArray) -> FloatArray:
        """Return the figures (N,) of architectures given as option indices (N, L)."""
        result = np.full(len(options), self.base, dtype=float)
        for slot, row in enumerate(self.slots):
            result += row[options[:, slot]]
        for slot, pair in enumerate(self.pairs or ()):
            result += pair[options[:, slot], options[:, slot + 1]]
        return result

    def steps(self) -> list[FloatArray]:
        """Return for each slot an array (previous options, own options): slot and pair together; one row without."""
        first, *rest = self.slots
        if self.pairs is None:
            return [row[None, :] for row in self.slots]
        return [first[None, :], *(row[None, :] + pair for row, pair in zip(rest, self.pairs, strict=True))]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CostArrays:
    """Costs of N architectures, each (N,): predictions, the upper ends that limits are held against, what runs."""

    latency_ms: FloatArray
    latency_high_ms: FloatArray
    peak_memory_mb: FloatArray
    memory_high_mb: FloatArray
    parameters: FloatArray
    runs: BoolArray


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

    def __post_init__(self) -> None:
        sizes = self.latency_ms.sizes
        others = {"latency_high_ms": self.latency_high_ms, "weights_mb": self.weights_mb, "parameters": self.parameters}
        found = {name: other.sizes for name, other in others.items() if other is not None}
        found["activation_mb"] = tuple(len(row) for row in self.activation_mb)
        if self.runs is not None:
            found["runs"] = tuple(len(row) for row in self.runs)
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

    def highest_mb(self, activation_mb: FloatArray) -> FloatArray:
        """Return what the upper ends of memory have beyond the weights, given largest activations (N,)."""
        return activation_mb * self.activation_high_ratio + self.held_high_mb

    def score(self, options: IntArray) -> CostArrays:
        """Return the costs of architectures given as option indices (N, L)."""
        latency = self.latency_ms.total(options)
        high = latency if self.latency_high_ms is None else self.latency_high_ms.total(options)
        weights = np.zeros(len(options)) if self.weights_mb is None else self.weights_mb.total(options)
        activation = np.full(len(options), self.base_activation_mb, dtype=float)
        for slot, row in enumerate(self.activation_mb):
            np.maximum(activation, row[options[:, slot]], out=activation)
        return CostArrays(
            latency_ms=latency,
            latency_high_ms=high,
            peak_memory_mb=np.maximum(weights + activation, self.floor_mb),
            memory_high_mb=np.maximum(weights + self.highest_mb(activation), self.floor_high_mb),
            parameters=np.zeros(len(options)) if self.parameters is None else self.parameters.total(options),
            runs=self._all_run(options),
        )

    def allowed(self) -> list[IntArray]:
        """Return the options of each slot that run."""
        if self.runs is None:
            return [np.arange(size) for size in self.sizes]
        return [np.flatnonzero(row) for row in self.runs]

    def _all_run(self, options: IntArray) -> BoolArray:
        every = np.ones(len(options), dtype=bool)
        for slot, row in enumerate(self.runs or ()):
            every &= row[options[:, slot]]
        return every

    def feasible(self, options: IntArray, budget: Budget) -> BoolArray:
        """Return which architectures (N, L) keep ``budget`` with their upper ends, (N,)."""
        return within(self.score(options), budget)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AdditiveProblem:
    """Costs and a quality, all over the same options; quality is to be as large as possible."""

    costs: AdditiveCosts
    quality: SlotSum

    def __post_init__(self) -> None:
        if self.quality.sizes != self.costs.sizes:
            raise ValueError(f"quality has {self.quality.sizes} options by slot, costs have {self.costs.sizes}")


def within(costs: CostArrays, budget: Budget) -> BoolArray:
    """Return which costs run and keep ``budget`` with their upper ends, (N,)."""
    inside = costs.runs.copy()
    limits = (
        (costs.latency_high_ms, budget.latency_ms),
        (costs.memory_high_mb, budget.peak_memory_mb),
        (costs.parameters, budget.parameters),
    )
    for values, limit in limits:
        if limit is not None:
            inside &= values <= limit
    return inside


def stack(rows: Sequence[Sequence[int]], num_slots: int) -> IntArray:
    """Return ``rows`` as option indices (N, L), also when there is none."""
    return np.array(rows, dtype=np.int64).reshape(len(rows), num_slots)
