"""Limits beside a budget's own: further figures of the same architectures, and the memory of further devices."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING

import numpy as np

from nas.search.exact.tables import FloatArray, SlotSum

if TYPE_CHECKING:
    from nas.search.exact.tables import BoolArray, IntArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Requirement:
    """An additive figure with a limit: package size, the upper end of another device's latency."""

    name: str
    table: SlotSum
    limit: float

    def __post_init__(self) -> None:
        _check_limit(self.name, self.limit)

    def met(self, options: IntArray) -> BoolArray:
        """Return which architectures (N, L) meet it, (N,)."""
        return self.table.total(options) <= self.limit


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MemoryRequirement:
    """A limit on the upper end of another device's peak memory; fields as in ``AdditiveCosts``."""

    name: str
    activation_mb: tuple[FloatArray, ...]
    limit: float
    base_activation_mb: float = 0.0
    activation_high_ratio: float = 1.0
    held_high_mb: float = 0.0
    floor_high_mb: float = 0.0
    weights_mb: SlotSum | None = None

    def __post_init__(self) -> None:
        _check_limit(self.name, self.limit)
        constants = np.array([self.base_activation_mb, self.held_high_mb, self.floor_high_mb])
        if not all(np.isfinite(row).all() for row in [*self.activation_mb, constants]):
            raise ValueError(f"memory of requirement {self.name!r} must be finite, got NaN or infinity")
        if not self.activation_high_ratio >= 1:
            raise ValueError(
                f"activation_high_ratio of {self.name!r} must be at least 1, got {self.activation_high_ratio}"
            )

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of options of each slot."""
        return tuple(len(row) for row in self.activation_mb)

    def highest_mb(self, activation_mb: FloatArray) -> FloatArray:
        """Return what the upper ends have beyond the weights, given largest activations (N,)."""
        return activation_mb * self.activation_high_ratio + self.held_high_mb

    def met(self, options: IntArray) -> BoolArray:
        """Return which architectures (N, L) meet it, (N,)."""
        weights = np.zeros(len(options)) if self.weights_mb is None else self.weights_mb.total(options)
        highest = self.highest_mb(largest(self.activation_mb, options, self.base_activation_mb))
        return np.maximum(weights + highest, self.floor_high_mb) <= self.limit


def largest(rows: tuple[FloatArray, ...], options: IntArray, base: float) -> FloatArray:
    """Return the largest entry that architectures (N, L) have in ``rows``, and no less than ``base``, (N,)."""
    result = np.full(len(options), base, dtype=float)
    for slot, row in enumerate(rows):
        np.maximum(result, row[options[:, slot]], out=result)
    return result


def _check_limit(name: str, limit: float) -> None:
    if not isfinite(limit):
        raise ValueError(f"the limit of requirement {name!r} must be finite, got {limit}")
