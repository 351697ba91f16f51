"""What labels are compared in and which limits they are held against, case by case of activation levels.

A case sets an activation level for the device and a cap for every further device; options above them are set aside.
Within a case every memory limit is a limit on weights alone, so that all figures of a label are sums.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from nas.search.exact.tables import FloatArray, IntArray, SlotSum

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from nas.core.cost import Budget
    from nas.search.exact.problem import AdditiveCosts, AdditiveProblem
    from nas.search.exact.requirements import MemoryRequirement

# Sums of the same numbers in another order differ by rounding; limits are checked strictly on the final totals.
_ROUNDING_RATIO = 1e-9
LATENCY_OF = "latency of "


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Column:
    """One figure of a label, minimised.

    ``compared`` says whether dominance looks at it, ``objective`` whether it does so even below the limit. What
    ``follows`` another column is a multiple of it, base aside, and so is what it loses.
    """

    name: str
    table: SlotSum
    limit: float | None = None
    compared: bool = True
    objective: bool = False
    follows: tuple[str, float] | None = None

    @property
    def is_latency(self) -> bool:
        """Whether it is one of the latencies of which the largest is the objective."""
        return self.name == "latency" or self.name.startswith(LATENCY_OF)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """One activation level: the options under it and the columns.

    ``activation_loss_mb`` is what the levels that it stands for may lie below it.
    """

    allowed: list[IntArray]
    columns: list[Column]
    activation_loss_mb: float = 0.0


def slack(limit: float) -> float:
    """Return by how much a running sum may exceed ``limit`` without being refused yet."""
    return _ROUNDING_RATIO * (1.0 + abs(limit))


def cases(
    problem: AdditiveProblem, budget: Budget, *, parameters_objective: bool, memory_tolerance_mb: float = 0.0
) -> Iterator[Case]:
    """Yield the cases whose fronts together hold the front.

    Args:
        problem: The tables.
        budget: Limits; those left out do not bind.
        parameters_objective: Whether fewer parameters are an objective.
        memory_tolerance_mb: Levels that lie no further apart are solved as one.
    """
    costs = problem.costs
    levels, gaps = _thinned(_levels(costs, budget), memory_tolerance_mb / costs.activation_high_ratio)
    caps = [_caps(item, costs) for item in costs.memory_requirements]
    for (level, gap), others in product(zip(levels, gaps, strict=True), list(product(*caps))):
        allowed = _allowed(costs, level, others)
        if all(len(own) for own in allowed):
            columns = _columns(problem, budget, level, others, parameters_objective=parameters_objective)
            yield Case(allowed=allowed, columns=columns, activation_loss_mb=gap * costs.activation_high_ratio)


def _allowed(costs: AdditiveCosts, level: float, caps: Sequence[float]) -> list[IntArray]:
    """Return the options of each slot that run and lie under the level and the caps."""
    result = []
    for slot, own in enumerate(costs.allowed()):
        inside = costs.activation_mb[slot][own] <= level
        for item, cap in zip(costs.memory_requirements, caps, strict=True):
            inside &= item.activation_mb[slot][own] <= cap
        result.append(own[inside])
    return result


def _levels(costs: AdditiveCosts, budget: Budget) -> list[float]:
    """Return the activation levels that peak memory can have inside the budget, ascending."""
    levels = _distinct(costs.activation_mb, costs.base_activation_mb, costs.allowed())
    if budget.peak_memory_mb is None or not levels:
        return levels
    if costs.floor_high_mb > budget.peak_memory_mb:
        return []
    allowed_mb = budget.peak_memory_mb + slack(budget.peak_memory_mb) - extremes(costs.weights_mb, costs.allowed())[0]
    return [level for level in levels if _highest_mb(costs, level) <= allowed_mb]


def _distinct(rows: Sequence[FloatArray], base: float, allowed: list[IntArray]) -> list[float]:
    """Return the distinct values, ascending, that the largest activation can have; none where a slot has no option."""
    if any(len(own) == 0 for own in allowed):
        return []
    running = [row[own] for row, own in zip(rows, allowed, strict=True)]
    lowest = max(base, *(float(row.min()) for row in running))
    return sorted({lowest, *(float(value) for row in running for value in row if value > lowest)})


def _thinned(levels: list[float], tolerance: float) -> tuple[list[float], list[float]]:
    """Return the highest of each run of levels no wider than ``tolerance``, and the widths."""
    kept: list[float] = []
    lowest: list[float] = []
    for level in levels:
        if kept and level - lowest[-1] <= tolerance:
            kept[-1] = level
        else:
            kept.append(level)
            lowest.append(level)
    return kept, [high - low for high, low in zip(kept, lowest, strict=True)]


def _caps(item: MemoryRequirement, costs: AdditiveCosts) -> list[float]:
    """Return the caps on a further device's activation that matter, each with another limit on weights.

    Under all of them but the lowest the limit on weights binds; whatever lies below the lowest is part of it.
    """
    levels = _distinct(item.activation_mb, item.base_activation_mb, costs.allowed())
    if item.floor_high_mb > item.limit or not levels:
        return []
    least, most = extremes(item.weights_mb, costs.allowed())
    caps: list[float] = []
    for cap in levels:
        left = item.limit + slack(item.limit) - _highest_mb(item, cap)
        if left < least:
            break
        caps = [cap] if left >= most else [*caps, cap]
    return caps


def _columns(
    problem: AdditiveProblem, budget: Budget, level: float, caps: Sequence[float], *, parameters_objective: bool
) -> list[Column]:
    """Return the columns of a case; latency and negated quality come first."""
    costs = problem.costs
    # Where the objective is the largest of several latencies, labels are not compared in the one that has the limit.
    plain = costs.latency_high_ms is None and not costs.other_latencies_ms
    columns = [
        Column(name="latency", table=costs.latency_ms, limit=budget.latency_ms if plain else None, objective=True),
        Column(name="quality", table=problem.quality.scaled(-1.0), objective=True),
    ]
    for index, table in enumerate(costs.other_latencies_ms, start=1):
        columns.append(Column(name=f"{LATENCY_OF}{index}", table=table, objective=True))
    if costs.weights_mb is not None and not costs.weights_mb.is_constant:
        limit = None if budget.peak_memory_mb is None else budget.peak_memory_mb - _highest_mb(costs, level)
        columns.append(Column(name="weights", table=costs.weights_mb, limit=limit, objective=True))
    if costs.parameters is not None and (parameters_objective or budget.parameters is not None):
        limit = None if budget.parameters is None else float(budget.parameters)
        columns.append(Column(name="parameters", table=costs.parameters, limit=limit, objective=parameters_objective))
    if not plain and budget.latency_ms is not None:
        high = costs.latency_ms if costs.latency_high_ms is None else costs.latency_high_ms
        columns.append(Column(name="latency_high", table=high, limit=budget.latency_ms))
    for further in costs.requirements:
        columns.append(Column(name=further.name, table=further.table, limit=further.limit))
    for item, cap in zip(costs.memory_requirements, caps, strict=True):
        if item.weights_mb is not None:
            columns.append(Column(name=item.name, table=item.weights_mb, limit=item.limit - _highest_mb(item, cap)))
    return _without_repeats(columns)


def _without_repeats(columns: list[Column]) -> list[Column]:
    """Return the columns with those that another one decides not compared; their limits stay.

    With several latencies these are compared by more than their own sums, and so decide nothing.
    """
    several = sum(column.is_latency for column in columns) > 1
    result: list[Column] = []
    for column in columns:
        plain = [other for other in result if other.objective and other.compared]
        deciding = [] if column.is_latency else [other for other in plain if not (several and other.is_latency)]
        result.append(_following(column, deciding) or _tightening(column, result) or column)
    return result


def _following(column: Column, deciding: list[Column]) -> Column | None:
    """Return the column as one that another one decides, if one of ``deciding`` does."""
    for other in deciding:
        factor = _factor(column.table, other.table)
        if factor:
            return replace(column, compared=False, follows=(other.name, factor))
    return None


def _tightening(column: Column, columns: list[Column]) -> Column | None:
    """Let a proportional limit-only column of ``columns`` take the limit too; return ``column`` as following it."""
    if column.objective or column.limit is None:
        return None
    for index, other in enumerate(columns):
        factor = _factor(column.table, other.table)
        if factor and not other.objective and other.compared and other.limit is not None:
            limit = other.table.base + (column.limit - column.table.base) / factor
            columns[index] = replace(other, limit=min(limit, other.limit))
            return replace(column, compared=False, follows=(other.name, factor))
    return None


def _factor(first: SlotSum, second: SlotSum) -> float:
    """Return the positive factor by which ``first`` rises with ``second``, base aside; 0 where there is none."""
    pairs = [np.broadcast_arrays(*both) for both in zip(first.steps(), second.steps(), strict=True)]
    one = np.concatenate([pair[0].ravel() for pair in pairs])
    other = np.concatenate([pair[1].ravel() for pair in pairs])
    largest = int(np.argmax(np.abs(other)))
    if other[largest] == 0:
        return 0.0
    factor = float(one[largest] / other[largest])
    same = np.allclose(one, factor * other, rtol=1e-12, atol=1e-12 * float(np.abs(one).max()))
    return factor if factor > 0 and same else 0.0


def _highest_mb(costs: AdditiveCosts | MemoryRequirement, level: float) -> float:
    return float(costs.highest_mb(np.array([level]))[0])


def extremes(table: SlotSum | None, allowed: list[IntArray]) -> tuple[float, float]:
    """Return the least and the most that the allowed options can sum to; 0 without a table."""
    if table is None:
        return 0.0, 0.0
    rest = Rest.of(table, allowed)
    total = table.base + rest.steps[0][0]
    return float((total + rest.low[0]).min()), float((total + rest.high[0]).max())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rest:
    """A sum restricted to the allowed options.

    Attributes:
        steps: For each slot (options of the slot before, own options): what extending a label adds.
        low, high: For each slot, by its option, the least and the most that all later slots add.
    """

    steps: list[FloatArray]
    low: list[FloatArray]
    high: list[FloatArray]

    @classmethod
    def of(cls, table: SlotSum, allowed: list[IntArray]) -> Rest:
        """Return the steps and what remains behind each."""
        before = [np.zeros(1, dtype=np.int64), *allowed[:-1]]
        steps = []
        for step, previous, own in zip(table.steps(), before, allowed, strict=True):
            rows = step if len(step) == 1 else step[previous]
            steps.append(np.broadcast_to(rows[:, own], (len(previous), len(own))))
        return cls(steps=steps, low=_remaining(steps, np.min), high=_remaining(steps, np.max))

    def least_beyond(self, other: Rest) -> list[FloatArray]:
        """Return for each slot, by its option, the least that later slots add more here than in ``other``."""
        return _remaining([one - two for one, two in zip(self.steps, other.steps, strict=True)], np.min)


def _remaining(steps: list[FloatArray], extreme: Callable[..., FloatArray]) -> list[FloatArray]:
    result = [np.zeros(steps[-1].shape[1])]
    for step in reversed(steps[1:]):
        result.append(extreme(step + result[-1], axis=1))
    return result[::-1]
