"""Feasible architectures near known ones, by a table of costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nas.search.exact.problem import stack

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from nas.core.cost import Budget
    from nas.search.exact import AdditiveCosts

TRIES = 1000

Row = tuple[int, ...]


def cheapest(costs: AdditiveCosts) -> Row:
    """Return the option of lowest latency in every slot that runs (of all where none does), of equals the first."""
    row = []
    for latency, runs in zip(costs.latency_ms.slots, costs.allowed(), strict=True):
        own = runs if len(runs) else np.arange(len(latency))
        row.append(int(own[np.argmin(latency[own])]))
    return tuple(row)


def new_neighbour(
    parents: Sequence[Row],
    seen: Collection[Row],
    costs: AdditiveCosts,
    budget: Budget,
    generator: np.random.Generator,
    *,
    most_changes: int = 3,
) -> Row | None:
    """Return a feasible architecture that is not in ``seen`` and differs from a parent in a few slots.

    ``None`` after ``TRIES`` failures: everything near the parents is known or over the budget.
    """
    sizes = costs.sizes
    for _ in range(TRIES):
        row = list(parents[int(generator.integers(len(parents)))])
        for _ in range(int(generator.integers(1, most_changes + 1))):
            slot = int(generator.integers(len(sizes)))
            row[slot] = int(generator.integers(sizes[slot]))
        if tuple(row) not in seen and costs.feasible(stack([row], len(sizes)), budget)[0]:
            return tuple(row)
    return None
