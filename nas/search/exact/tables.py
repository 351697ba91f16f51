"""Figures of architectures as sums over slots and neighbouring slots, and their costs as arrays.

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
    """Costs of N architectures, each (N,): predictions, the upper ends that limits are held against, what runs.

    ``meets`` says which meet all requirements beside the budget, such as those of further devices.
    """

    latency_ms: FloatArray
    latency_high_ms: FloatArray
    peak_memory_mb: FloatArray
    memory_high_mb: FloatArray
    parameters: FloatArray
    runs: BoolArray
    meets: BoolArray


def within(costs: CostArrays, budget: Budget) -> BoolArray:
    """Return which costs run, meet all requirements and keep ``budget`` with their upper ends, (N,)."""
    inside = costs.runs & costs.meets
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
