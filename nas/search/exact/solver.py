"""The complete Pareto front of an additive problem by label-setting dynamic programming.

For every distinct activation level the options above it are set aside, and a sweep over the slots extends partial
architectures (labels) by all options: labels that cannot keep a limit even with the cheapest rest are dropped, then
those that another label with the same last option dominates (any last option will do where no pairs follow). What a
label is compared in: latency, quality, and, where they vary, weights, the latency's upper end and parameters. A
limit-only figure counts no further than it can still matter: labels whose limit cannot be broken any more are equal
in it. The fronts of all levels together, filtered once more, are the front.

When labels explode they are coarsened: of the labels of one cell of a grid over quality (and over the other columns but
latency) the fastest is kept. Latency then never gets worse, so a tight time limit stays exact; what is lost in the
other figures is summed over the slots as it happens and stated in the certificate.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from nas.search.exact import dominance
from nas.search.exact.tables import CostArrays, FloatArray, IntArray, SlotSum, within

if TYPE_CHECKING:
    from nas.core.cost import Budget
    from nas.search.exact.problem import AdditiveCosts, AdditiveProblem

# Sums of the same numbers in another order differ by rounding; limits are checked strictly on the final totals.
_ROUNDING_RATIO = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """How complete a front is.

    Every architecture that keeps the budget with ``memory_loss_mb``, ``latency_high_loss_ms`` and ``parameters_loss``
    to spare is matched by a member with no higher latency, at most ``memory_loss_mb`` more memory, and at most
    ``quality_loss`` less quality. All are 0 when ``exact``.

    Attributes:
        labels: Most labels kept at once, a measure of the work.
        levels: Activation levels solved.

    Source of the claim under a memory floor: architectures are compared in memory without the floor, and raising two
    figures to a common floor neither changes their order nor widens their distance.
    """

    quality_loss: float
    memory_loss_mb: float
    latency_high_loss_ms: float
    parameters_loss: float
    labels: int
    levels: int

    @property
    def exact(self) -> bool:
        """Whether nothing is missing."""
        return not any((self.quality_loss, self.memory_loss_mb, self.latency_high_loss_ms, self.parameters_loss))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExactFront:
    """The front, by rising latency; one architecture for every distinct point.

    Attributes:
        options: Option indices (N, L).
        costs: Costs of the members.
        quality: Qualities (N,).
    """

    options: IntArray
    costs: CostArrays
    quality: FloatArray
    certificate: Certificate

    def __len__(self) -> int:
        return len(self.options)

    def points(self) -> FloatArray:
        """Return (N, 3): latency ms, peak memory MB, negated quality, as ``nas.core.pareto`` orders objectives."""
        return np.stack([self.costs.latency_ms, self.costs.peak_memory_mb, -self.quality], axis=1)


def solve(problem: AdditiveProblem, budget: Budget, *, max_labels: int | None = None) -> ExactFront:
    """Return the Pareto front of highest quality, lowest latency and lowest peak memory inside ``budget``.

    Limits hold against the upper ends of latency and memory, and against parameters; the front is empty when nothing
    keeps them.

    Args:
        problem: The tables.
        budget: Limits; those left out do not bind.
        max_labels: Labels kept after a slot at one activation level; more are coarsened. No limit when left out.

    Raises:
        ValueError: ``max_labels`` is below 1.
    """
    if max_labels is not None and max_labels < 1:
        raise ValueError(f"max_labels must be at least 1, got {max_labels}")
    costs = problem.costs
    losses: dict[str, float] = {}
    most_labels = 0
    found = []
    levels = _levels(costs, budget)
    for level in levels:
        sweep = _Sweep(_columns(problem, budget, level), costs, level, max_labels)
        found.append(sweep.run())
        most_labels = max(most_labels, sweep.most_labels)
        for name, loss in sweep.losses.items():
            losses[name] = max(losses.get(name, 0.0), loss)
    options = np.concatenate(found) if found else np.zeros((0, len(costs.sizes)), dtype=np.int64)
    scored = costs.score(options)
    options = options[within(scored, budget)]
    scored, quality = costs.score(options), problem.quality.total(options)
    kept = dominance.keep([scored.latency_ms, scored.peak_memory_mb, -quality])
    return ExactFront(
        options=options[kept],
        costs=costs.score(options[kept]),
        quality=quality[kept],
        certificate=Certificate(
            quality_loss=losses.get("quality", 0.0),
            memory_loss_mb=losses.get("weights", 0.0),
            latency_high_loss_ms=losses.get("latency_high", 0.0),
            parameters_loss=losses.get("parameters", 0.0),
            labels=most_labels,
            levels=len(levels),
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Column:
    """One figure of a label, minimised.

    ``compared`` says whether dominance looks at it, ``objective`` whether it does so even below the limit.
    """

    name: str
    table: SlotSum
    limit: float | None
    compared: bool = True
    objective: bool = False


def _columns(problem: AdditiveProblem, budget: Budget, level: float) -> list[_Column]:
    """Return the columns for one activation level; latency and negated quality come first."""
    costs = problem.costs
    plain = costs.latency_high_ms is None
    columns = [
        _Column(name="latency", table=costs.latency_ms, limit=budget.latency_ms if plain else None, objective=True),
        _Column(name="quality", table=problem.quality.scaled(-1.0), limit=None, objective=True),
    ]
    if costs.weights_mb is not None and not costs.weights_mb.is_constant:
        limit = None if budget.peak_memory_mb is None else budget.peak_memory_mb - _highest_mb(costs, level)
        columns.append(_Column(name="weights", table=costs.weights_mb, limit=limit, objective=True))
    if costs.latency_high_ms is not None and budget.latency_ms is not None:
        compared = not _proportional(costs.latency_high_ms, costs.latency_ms)
        table = costs.latency_high_ms
        columns.append(_Column(name="latency_high", table=table, limit=budget.latency_ms, compared=compared))
    if costs.parameters is not None and budget.parameters is not None:
        compared = costs.weights_mb is None or not _proportional(costs.parameters, costs.weights_mb)
        table = costs.parameters
        columns.append(_Column(name="parameters", table=table, limit=float(budget.parameters), compared=compared))
    return columns


def _levels(costs: AdditiveCosts, budget: Budget) -> list[float]:
    """Return the activation levels that peak memory can have inside the budget, ascending."""
    running = [row[own] for row, own in zip(costs.activation_mb, costs.allowed(), strict=True)]
    if any(len(row) == 0 for row in running):
        return []
    lowest = max(costs.base_activation_mb, *(float(row.min()) for row in running))
    levels = sorted({lowest, *(float(value) for row in running for value in row if value > lowest)})
    if budget.peak_memory_mb is None:
        return levels
    allowed_mb = budget.peak_memory_mb + _slack(budget.peak_memory_mb)
    if costs.weights_mb is not None:
        table = _Table.of(_Column(name="weights", table=costs.weights_mb, limit=None), costs.allowed())
        allowed_mb -= float((table.base + table.steps[0][0] + table.rest_low[0]).min())
    if costs.floor_high_mb > budget.peak_memory_mb:
        return []
    return [level for level in levels if _highest_mb(costs, level) <= allowed_mb]


def _highest_mb(costs: AdditiveCosts, level: float) -> float:
    return float(costs.highest_mb(np.array([level]))[0])


def _slack(limit: float) -> float:
    return _ROUNDING_RATIO * (1.0 + abs(limit))


def _proportional(first: SlotSum, second: SlotSum) -> bool:
    """Return whether ``first`` rises by a positive factor times what ``second`` rises by, base aside."""
    pairs = [np.broadcast_arrays(*both) for both in zip(first.steps(), second.steps(), strict=True)]
    one = np.concatenate([pair[0].ravel() for pair in pairs])
    other = np.concatenate([pair[1].ravel() for pair in pairs])
    largest = int(np.argmax(np.abs(other)))
    if other[largest] == 0:
        return False
    factor = one[largest] / other[largest]
    return bool(factor > 0 and np.allclose(one, factor * other, rtol=1e-12, atol=1e-12 * float(np.abs(one).max())))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Table:
    """A column restricted to the allowed options.

    Attributes:
        steps: For each slot (options of the slot before, own options): what extending a label adds.
        rest_low, rest_high: For each slot, by its option, the least and the most that all later slots add.
    """

    column: _Column
    base: float
    steps: list[FloatArray]
    rest_low: list[FloatArray]
    rest_high: list[FloatArray]

    @classmethod
    def of(cls, column: _Column, allowed: list[IntArray]) -> _Table:
        before = [np.zeros(1, dtype=np.int64), *allowed[:-1]]
        steps = []
        for step, previous, own in zip(column.table.steps(), before, allowed, strict=True):
            rows = step if len(step) == 1 else step[previous]
            steps.append(np.broadcast_to(rows[:, own], (len(previous), len(own))))
        low, high = [np.zeros(len(allowed[-1]))], [np.zeros(len(allowed[-1]))]
        for step in reversed(steps[1:]):
            low.append((step + low[-1]).min(axis=1))
            high.append((step + high[-1]).max(axis=1))
        return cls(column=column, base=column.table.base, steps=steps, rest_low=low[::-1], rest_high=high[::-1])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Labels:
    """Partial architectures: figures (columns, N), the option taken last, and the label each was extended from."""

    values: FloatArray
    last: IntArray
    parent: IntArray

    def take(self, kept: IntArray) -> _Labels:
        return _Labels(values=self.values[:, kept], last=self.last[kept], parent=self.parent[kept])


class _Sweep:
    """One sweep over the slots at one activation level."""

    def __init__(self, columns: list[_Column], costs: AdditiveCosts, level: float, max_labels: int | None) -> None:
        pairs = zip(costs.activation_mb, costs.allowed(), strict=True)
        self._allowed = [own[row[own] <= level] for row, own in pairs]
        self._tables = [_Table.of(column, self._allowed) for column in columns]
        self._grouped = any(column.table.has_pairs for column in columns)
        self._max_labels = max_labels
        self.losses: dict[str, float] = {}
        self.most_labels = 0

    def run(self) -> IntArray:
        """Return the options (N, L) of the level's front; parts of it may be dominated at a lower level."""
        labels = _Labels(
            values=np.array([[table.base] for table in self._tables]),
            last=np.zeros(1, dtype=np.int64),
            parent=np.zeros(1, dtype=np.int64),
        )
        history = []
        for slot in range(len(self._allowed)):
            labels = self._extend(labels, slot)
            self.most_labels = max(self.most_labels, len(labels.last))
            history.append(labels)
        options = np.zeros((len(labels.last), len(self._allowed)), dtype=np.int64)
        index = np.arange(len(labels.last))
        for slot in reversed(range(len(self._allowed))):
            options[:, slot] = self._allowed[slot][history[slot].last[index]]
            index = history[slot].parent[index]
        return options

    def _extend(self, labels: _Labels, slot: int) -> _Labels:
        """Return the labels after ``slot``: every label with every option, but for what cannot reach the front."""
        extended = self._with_every_option(labels, slot)
        num_options = len(self._allowed[slot])
        edges = [0, len(extended.last)]
        if self._grouped and slot < len(self._allowed) - 1:
            edges = np.searchsorted(extended.last, np.arange(num_options + 1)).tolist()
        capacity = None if self._max_labels is None else max(1, self._max_labels // (len(edges) - 1))
        compared = self._compared(extended, slot)
        losses: dict[str, float] = {}
        kept = [np.zeros(0, dtype=np.int64)]
        for start, stop in pairwise(edges):
            if stop > start:
                columns = {name: row[start:stop] for name, row in compared.items()}
                kept.append(start + _filtered(columns, capacity, losses))
        for name, loss in losses.items():
            self.losses[name] = self.losses.get(name, 0.0) + loss
        return extended.take(np.concatenate(kept))

    def _with_every_option(self, labels: _Labels, slot: int) -> _Labels:
        """Return ``labels`` extended, option by option, without those that break a limit whatever follows."""
        added = np.stack([table.steps[slot].T[:, labels.last] for table in self._tables])
        values = labels.values[:, None, :] + added  # (columns, options, labels)
        inside = np.ones(values.shape[1:], dtype=bool)
        for table, rows in zip(self._tables, values, strict=True):
            limit = table.column.limit
            if limit is not None:
                inside &= rows + table.rest_low[slot][:, None] <= limit + _slack(limit)
        option, parent = np.nonzero(inside)
        return _Labels(values=values[:, option, parent], last=option, parent=parent)

    def _compared(self, labels: _Labels, slot: int) -> dict[str, FloatArray]:
        """Return the columns that dominance looks at; latency and quality first."""
        result = {}
        for table, row in zip(self._tables, labels.values, strict=True):
            column = table.column
            if not column.compared:
                continue
            if not column.objective and column.limit is not None:
                row = np.maximum(row, column.limit - table.rest_high[slot][labels.last])
            if column.name in ("latency", "quality") or bool((row != row[:1]).any()):
                result[column.name] = row
        return result


def _filtered(columns: dict[str, FloatArray], capacity: int | None, losses: dict[str, float]) -> IntArray:
    """Return the positions of labels that none dominates, thinned out to ``capacity``."""
    kept = dominance.keep(list(columns.values()))
    if capacity is not None and len(kept) > capacity:
        return _thinned(columns, kept, capacity, losses)
    return kept


def _thinned(columns: dict[str, FloatArray], kept: IntArray, capacity: int, losses: dict[str, float]) -> IntArray:
    """Return the fastest label of every cell of a grid over all columns but latency; ``kept`` is sorted by latency.

    Quality gets most of the cells. Adds to ``losses`` the most that a dropped label was better by in its column.
    """
    others = [name for name in columns if name not in ("latency", "quality")]
    num_bins = dict.fromkeys(others, max(1, round((capacity / 4) ** (1 / (1 + len(others))))))
    num_bins["quality"] = max(1, capacity // int(np.prod([num_bins[name] for name in others])))
    cell = np.zeros(len(kept), dtype=np.int64)
    for name, bins in num_bins.items():
        row = columns[name][kept]
        span = float(np.ptp(row)) or 1.0
        cell = cell * bins + np.minimum(((row - row.min()) / span * bins).astype(np.int64), bins - 1)
    _, first, inverse = np.unique(cell, return_index=True, return_inverse=True)
    for name in num_bins:
        row = columns[name][kept]
        losses[name] = max(losses.get(name, 0.0), float((row[first][inverse] - row).max()))
    return kept[np.sort(first)]
