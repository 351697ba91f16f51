"""Costs of listed architectures: a small space as a whole, or the part of a space that a table of results covers.

Nothing has to add up, so that measured figures can be searched as they are.

Shapes: L slots, N architectures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

import numpy as np

from nas.search.exact import dominance
from nas.search.exact.front import Certificate, ExactFront
from nas.search.exact.tables import BoolArray, CostArrays, FloatArray, IntArray, SlotSum, within

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nas.core.cost import Budget
    from nas.search.exact.problem import SearchCosts

MOST_TABULATED = 100_000
_SPREAD_OF_HINTS = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TabulatedCosts:
    """Costs of some architectures of a space; the others are taken not to run.

    Attributes:
        sizes: Number of options of each slot.
        options: Option indices (N, L), every architecture once.
        costs: Their costs.
    """

    sizes: tuple[int, ...]
    options: IntArray
    costs: CostArrays
    _codes: IntArray = field(init=False, repr=False)
    _order: IntArray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.options.ndim != 2 or self.options.shape[1] != len(self.sizes) or not len(self.options):
            raise ValueError(f"options must be of shape (N, {len(self.sizes)}) and not empty, got {self.options.shape}")
        if (self.options < 0).any() or (self.options >= np.array(self.sizes)).any():
            raise ValueError(f"options must lie in 0 to the sizes {self.sizes} less 1")
        if math.prod(self.sizes) > np.iinfo(np.int64).max:
            raise ValueError(f"a space with {math.prod(self.sizes):.1e} architectures is too large to be listed")
        for one in fields(self.costs):
            values = getattr(self.costs, one.name)
            if values.shape != (len(self.options),):
                raise ValueError(f"{one.name} must be of shape ({len(self.options)},), got {values.shape}")
            if not np.isfinite(values).all():
                raise ValueError(f"{one.name} must be finite, got NaN or infinity")
        codes = self._code(self.options)
        order = np.argsort(codes, kind="stable")
        object.__setattr__(self, "_codes", codes[order])
        object.__setattr__(self, "_order", order)
        if (self._codes[1:] == self._codes[:-1]).any():
            raise ValueError("options hold an architecture twice")

    @classmethod
    def of(cls, costs: SearchCosts) -> TabulatedCosts:
        """Return the costs of every architecture of a small space.

        Raises:
            ValueError: It has more than ``MOST_TABULATED``.
        """
        count = math.prod(costs.sizes)
        if count > MOST_TABULATED:
            raise ValueError(f"at most {MOST_TABULATED} architectures can be tabulated, got {count}")
        options = np.stack(np.unravel_index(np.arange(count), costs.sizes), axis=1).astype(np.int64)
        return cls(sizes=costs.sizes, options=options, costs=costs.score(options))

    @classmethod
    def measured(
        cls, sizes: Sequence[int], options: IntArray, latency_ms: FloatArray, peak_memory_mb: FloatArray | None = None
    ) -> TabulatedCosts:
        """Return costs without intervals, of architectures that all run; memory is 0 when left out."""
        latency = np.asarray(latency_ms, dtype=float)
        memory = np.zeros(len(latency)) if peak_memory_mb is None else np.asarray(peak_memory_mb, dtype=float)
        every = np.ones(len(latency), dtype=bool)
        costs = CostArrays(
            latency_ms=latency,
            latency_high_ms=latency,
            peak_memory_mb=memory,
            memory_high_mb=memory,
            parameters=np.zeros(len(latency)),
            runs=every,
            meets=every,
        )
        return cls(sizes=tuple(sizes), options=np.asarray(options, dtype=np.int64), costs=costs)

    @property
    def hint_ms(self) -> SlotSum:
        """Latency as nearly a sum over slots as it gets, by least squares with a little ridge."""
        held = [column[:, None] == np.arange(size) for column, size in zip(self.options.T, self.sizes, strict=True)]
        features = np.concatenate(held, axis=1).astype(float)
        mean = float(self.costs.latency_ms.mean())
        normal = features.T @ features + _SPREAD_OF_HINTS * np.eye(features.shape[1])
        found = np.linalg.solve(normal, features.T @ (self.costs.latency_ms - mean))
        return SlotSum(slots=tuple(np.split(found, np.cumsum(self.sizes)[:-1])), base=mean)

    def positions(self, options: IntArray) -> IntArray:
        """Return where architectures (N, L) are listed, (N,); -1 for those that are not."""
        codes = self._code(options)
        found = np.minimum(np.searchsorted(self._codes, codes), len(self._codes) - 1)
        return np.where(self._codes[found] == codes, self._order[found], -1)

    def score(self, options: IntArray) -> CostArrays:
        """Return the costs of architectures (N, L); those not listed do not run and cost infinitely much."""
        positions = self.positions(options)
        listed = positions >= 0
        missing = {"runs": False, "meets": False}
        columns = {
            one.name: np.where(listed, getattr(self.costs, one.name)[positions], missing.get(one.name, np.inf))
            for one in fields(self.costs)
        }
        return CostArrays(**columns)

    def feasible(self, options: IntArray, budget: Budget) -> BoolArray:
        """Return which architectures (N, L) are listed and keep ``budget`` with their upper ends, (N,)."""
        return within(self.score(options), budget)

    def front(
        self,
        quality: SlotSum | FloatArray,
        budget: Budget,
        *,
        max_labels: int | None = None,  # noqa: ARG002  # as all costs have; nothing is ever left out here
    ) -> ExactFront:
        """Return the front of highest ``quality`` and lowest latency and peak memory inside ``budget``, always exact.

        Args:
            quality: A sum over slots, or the qualities (N,) of all that is listed.
            budget: Limits.
            max_labels: Without effect.
        """
        inside = np.flatnonzero(within(self.costs, budget))
        values = quality.total(self.options[inside]) if isinstance(quality, SlotSum) else quality[inside]
        objectives = [self.costs.latency_ms[inside], self.costs.peak_memory_mb[inside], -values]
        kept = dominance.keep(objectives)
        found = inside[kept]
        return ExactFront(
            options=self.options[found],
            costs=CostArrays(**{one.name: getattr(self.costs, one.name)[found] for one in fields(self.costs)}),
            quality=values[kept],
            certificate=Certificate(labels=len(inside), levels=1),
        )

    def _code(self, options: IntArray) -> IntArray:
        return np.asarray(np.ravel_multi_index(tuple(options.T), self.sizes), dtype=np.int64)
