"""Feasible architectures near known ones, by a table of costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nas.core.cost import Budget
from nas.search.exact.tables import SlotSum, stack, within
from nas.search.exact.tabulated import TabulatedCosts

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from nas.search.exact import SearchCosts

TRIES = 1000
_MOST_LABELS = 200

Row = tuple[int, ...]


def cheapest(costs: SearchCosts) -> Row:
    """Return the architecture of lowest latency of those that run; where none does, the options of lowest latency."""
    front = costs.front(SlotSum.zeros(costs.sizes), Budget(), max_labels=_MOST_LABELS)
    if len(front) == 0:
        return tuple(int(np.argmin(row)) for row in costs.hint_ms.slots)
    return tuple(front.options[0].tolist())


def new_neighbour(
    parents: Sequence[Row],
    seen: Collection[Row],
    costs: SearchCosts,
    budget: Budget,
    generator: np.random.Generator,
    *,
    most_changes: int = 3,
) -> Row | None:
    """Return a feasible architecture that is not in ``seen`` and differs from a parent in a few slots.

    Where architectures are listed, it is any of the list. ``None`` after ``TRIES`` failures: everything near the
    parents is known or over the budget.
    """
    if isinstance(costs, TabulatedCosts):
        return _new_of_list(seen, costs, budget, generator)
    sizes = costs.sizes
    for _ in range(TRIES):
        row = list(parents[int(generator.integers(len(parents)))])
        for _ in range(int(generator.integers(1, most_changes + 1))):
            slot = int(generator.integers(len(sizes)))
            row[slot] = int(generator.integers(sizes[slot]))
        if tuple(row) not in seen and costs.feasible(stack([row], len(sizes)), budget)[0]:
            return tuple(row)
    return None


def _new_of_list(
    seen: Collection[Row], costs: TabulatedCosts, budget: Budget, generator: np.random.Generator
) -> Row | None:
    for row in generator.permutation(costs.options[within(costs.costs, budget)]):
        if tuple(row.tolist()) not in seen:
            return tuple(row.tolist())
    return None
