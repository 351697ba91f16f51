"""Whether any architecture keeps a budget, which limits bind where none does, and the smallest violation of all.

Answered on the cost tables by mixed-integer programs, before anything is trained. scipy is imported inside functions.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from nas.search.exact.requirements import MemoryRequirement, Requirement, largest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from nas.core.cost import Budget
    from nas.search.exact.problem import AdditiveCosts
    from nas.search.exact.tables import FloatArray, IntArray, SlotSum

Limit = Requirement | MemoryRequirement

# Limits are scaled to 1; HiGHS holds constraints to 1e-6 of that, and closes an absolute gap of 1e-6.
_TOLERANCE = 2e-6
_TIME_LIMIT_S = 60.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class BindingLimit:
    """A limit that cannot be kept, alone or together with others.

    Attributes:
        name: ``latency_ms``; ``latency_ms on DEVICE`` of a further device.
        allowed: The limit.
        least: The least figure of any architecture, whatever the other limits.
        with_others: The least figure of the architectures that keep all other limits; None where none does.
        nearest: The figure of the architecture of the smallest violation.
    """

    name: str
    allowed: float
    least: float
    with_others: float | None
    nearest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Contradiction:
    """Why no architecture keeps a budget.

    Attributes:
        limits: The limits that bind: each below every architecture, or a smallest set that no architecture keeps
            together though each of its limits can be kept without the others. None where nothing runs at all.
        alone: Whether each of ``limits`` is below every architecture.
        relaxation: The smallest share by which all limits of the budget together would have to be raised.
        options: The architecture that needs no more than that, as option indices.
    """

    limits: tuple[BindingLimit, ...]
    alone: bool
    relaxation: float
    options: tuple[int, ...]


def smallest_violation(costs: AdditiveCosts, budget: Budget) -> Contradiction | None:
    """Return why no architecture keeps ``budget``; None when one does, or when a minute does not tell.

    Upper ends of networks far from the calibration networks may be higher than the tables say, so that None is no
    promise; a contradiction is one.
    """
    if any(len(row) == 0 for row in costs.allowed()):
        return Contradiction(limits=(), alone=False, relaxation=0.0, options=())
    limits = limits_of(costs, budget)
    program = _Program(costs, limits)
    everything = range(len(limits))
    found = program.relax(moved=everything)
    if found is None or found.relaxation <= _TOLERANCE:
        return None
    least = {index: program.relax(moved=[index], floor=-1.0) for index in everything}
    alone = [index for index, item in least.items() if item is not None and item.relaxation > _TOLERANCE]
    binding = alone or _irreducible(program, len(limits))
    return Contradiction(
        limits=tuple(
            BindingLimit(
                name=limits[index].name,
                allowed=limits[index].limit,
                least=_raised(limits[index], least[index]),
                with_others=_with_others(program, index, len(limits)),
                nearest=float(figures(limits[index], np.array([found.options]))[0]),
            )
            for index in binding
        ),
        alone=bool(alone),
        relaxation=found.relaxation,
        options=found.options,
    )


def limits_of(costs: AdditiveCosts, budget: Budget) -> tuple[Limit, ...]:
    """Return every limit on ``costs``: those of the budget, then the requirements."""
    latency = costs.latency_ms if costs.latency_high_ms is None else costs.latency_high_ms
    found: list[Limit] = []
    if budget.latency_ms is not None:
        found.append(Requirement(name="latency_ms", table=latency, limit=budget.latency_ms))
    if budget.peak_memory_mb is not None:
        memory = MemoryRequirement(
            name="peak_memory_mb",
            activation_mb=costs.activation_mb,
            limit=budget.peak_memory_mb,
            base_activation_mb=costs.base_activation_mb,
            activation_high_ratio=costs.activation_high_ratio,
            held_high_mb=costs.held_high_mb,
            floor_high_mb=costs.floor_high_mb,
            weights_mb=costs.weights_mb,
        )
        found.append(memory)
    if budget.parameters is not None and costs.parameters is not None:
        found.append(Requirement(name="parameters", table=costs.parameters, limit=float(budget.parameters)))
    return (*found, *costs.requirements, *costs.memory_requirements)


def figures(limit: Limit, options: IntArray) -> FloatArray:
    """Return what is held against a limit, of architectures given as option indices (N, L)."""
    if isinstance(limit, Requirement):
        return limit.table.total(options)
    weights = np.zeros(len(options)) if limit.weights_mb is None else limit.weights_mb.total(options)
    highest = limit.highest_mb(largest(limit.activation_mb, options, limit.base_activation_mb))
    return np.maximum(weights + highest, limit.floor_high_mb)


def _irreducible(program: _Program, count: int) -> list[int]:
    """Return limits that no architecture keeps together, none of which can be left out (deletion filter).

    Source:
        Chinneck, Dravnieks, "Locating minimal infeasible constraint sets in linear programs" (ORSA JoC 1991).
    """
    kept = list(range(count))
    for index in range(count):
        others = [other for other in kept if other != index]
        found = program.relax(moved=others)
        if found is not None and found.relaxation > _TOLERANCE:
            kept = others
    return kept


def _with_others(program: _Program, index: int, count: int) -> float | None:
    found = program.relax(moved=[index], kept=[other for other in range(count) if other != index])
    return None if found is None else _raised(program.limits[index], found)


def _raised(limit: Limit, found: _Found | None) -> float:
    """Return the figure that the architecture found has, at least what the solver proved."""
    return limit.limit if found is None else float(figures(limit, np.array([found.options]))[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    relaxation: float
    options: tuple[int, ...]


class _Program:
    """Mixed-integer programs over one binary variable an option that runs."""

    def __init__(self, costs: AdditiveCosts, limits: Sequence[Limit]) -> None:
        self.limits = limits
        self._allowed = costs.allowed()
        self._offsets = np.cumsum([0, *map(len, self._allowed)])

    def relax(self, *, moved: Iterable[int], kept: Iterable[int] = (), floor: float = 0.0) -> _Found | None:
        """Return the smallest share by which the ``moved`` limits must be raised when the ``kept`` ones hold.

        ``floor`` is where to stop looking: 0 asks only whether they can be kept. None where nothing keeps the others,
        or where time ran out.
        """
        from scipy.optimize import Bounds, LinearConstraint, milp
        from scipy.sparse import csr_array

        rows = _Rows(int(self._offsets[-1]))
        for slot in range(len(self._allowed)):
            columns = range(int(self._offsets[slot]), int(self._offsets[slot + 1]))
            rows.add(dict.fromkeys(columns, 1.0), low=1.0, high=1.0)
        share = rows.column(low=floor)
        for index, is_moved in [*((index, True) for index in moved), *((index, False) for index in kept)]:
            self._limit(rows, self.limits[index], share if is_moved else None)
        count = len(rows.low_bounds)
        matrix = csr_array((rows.values, (rows.row_of, rows.column_of)), shape=(len(rows.lows), count))
        objective = np.zeros(count)
        objective[share] = 1.0
        result = milp(
            objective,
            integrality=np.arange(count) < self._offsets[-1],
            bounds=Bounds(rows.low_bounds, rows.high_bounds),
            constraints=LinearConstraint(matrix, rows.lows, rows.highs),
            options={"time_limit": _TIME_LIMIT_S, "mip_rel_gap": 1e-6},
        )
        if result.status == 1:
            _log.warning("whether the budget can be kept was not found out in %.0f s", _TIME_LIMIT_S)
        if result.status != 0:
            return None
        return _Found(relaxation=float(result.x[share]), options=self._options(result.x))

    def _limit(self, rows: _Rows, limit: Limit, share: int | None) -> None:
        scale = 1.0 / limit.limit
        terms = {} if share is None else {share: -1.0}
        if isinstance(limit, Requirement):
            constant = self._sum(rows, terms, limit.table, scale)
        else:
            top = rows.column(low=limit.base_activation_mb * scale)
            terms[top] = limit.activation_high_ratio
            constant = limit.held_high_mb * scale
            if limit.weights_mb is not None:
                constant += self._sum(rows, terms, limit.weights_mb, scale)
            for slot, row in enumerate(limit.activation_mb):
                rows.add({**self._row(slot, -scale * row), top: 1.0}, low=0.0)
            rows.add({} if share is None else {share: -1.0}, high=1.0 - limit.floor_high_mb * scale)
        rows.add(terms, high=1.0 - constant)

    def _sum(self, rows: _Rows, terms: dict[int, float], table: SlotSum, scale: float) -> float:
        """Add a scaled sum to ``terms`` and return its constant; a pair of options is a variable of its own."""
        for slot, row in enumerate(table.slots):
            for column, value in self._row(slot, scale * row).items():
                terms[column] = terms.get(column, 0.0) + value
        for slot, pair in enumerate(table.pairs or ()):
            self._pairs(rows, terms, slot, scale * pair)
        return scale * table.base

    def _pairs(self, rows: _Rows, terms: dict[int, float], slot: int, pair: FloatArray) -> None:
        """Let a flow from each option to those of the next slot carry what the pair adds."""
        before, after = self._allowed[slot], self._allowed[slot + 1]
        flow = np.array([[rows.column(low=0.0, high=1.0) for _ in after] for _ in before])
        for place in range(len(before)):
            column = int(self._offsets[slot]) + place
            rows.add({**dict.fromkeys(flow[place].tolist(), 1.0), column: -1.0}, low=0.0, high=0.0)
        for place in range(len(after)):
            column = int(self._offsets[slot + 1]) + place
            rows.add({**dict.fromkeys(flow[:, place].tolist(), 1.0), column: -1.0}, low=0.0, high=0.0)
        added = pair[np.ix_(before, after)]
        terms.update(zip(flow.ravel().tolist(), added.ravel().tolist(), strict=True))

    def _row(self, slot: int, row: FloatArray) -> dict[int, float]:
        start = int(self._offsets[slot])
        return {start + place: float(row[option]) for place, option in enumerate(self._allowed[slot])}

    def _options(self, values: FloatArray) -> tuple[int, ...]:
        return tuple(
            int(own[np.argmax(values[start:stop])])
            for own, (start, stop) in zip(self._allowed, pairwise(self._offsets.tolist()), strict=True)
        )


class _Rows:
    """A sparse program under construction; the first columns are binary."""

    def __init__(self, num_binary: int) -> None:
        self.low_bounds = [0.0] * num_binary
        self.high_bounds = [1.0] * num_binary
        self.values: list[float] = []
        self.row_of: list[int] = []
        self.column_of: list[int] = []
        self.lows: list[float] = []
        self.highs: list[float] = []

    def column(self, *, low: float, high: float = np.inf) -> int:
        """Add a continuous variable and return its index."""
        self.low_bounds.append(low)
        self.high_bounds.append(high)
        return len(self.low_bounds) - 1

    def add(self, terms: dict[int, float], *, low: float = -np.inf, high: float = np.inf) -> None:
        """Add a constraint on a weighted sum of variables."""
        for column, value in terms.items():
            self.row_of.append(len(self.lows))
            self.column_of.append(column)
            self.values.append(value)
        self.lows.append(low)
        self.highs.append(high)
