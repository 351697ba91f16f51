"""The smallest violation and the binding limits, against enumeration of small random problems."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.core.cost import Budget
from nas.search.exact import AdditiveCosts, SlotSum
from nas.search.exact.requirements import MemoryRequirement, Requirement
from nas.search.feasibility import figures, limits_of, smallest_violation


def problem(seed: int, *, pairs: bool = False) -> AdditiveCosts:
    """Three slots of two to four options, one of them excluded, with every kind of limit."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, 5, size=3)

    def table(base: float = 1.0, *, paired: bool = False) -> SlotSum:
        links = [rng.uniform(0, 1, size=(a, b)) for a, b in pairwise(sizes)] if paired else None
        return SlotSum.of([rng.uniform(0, 3, size=size) for size in sizes], pairs=links, base=base)

    def activations() -> tuple[Any, ...]:
        return tuple(rng.uniform(0, 4, size=size) for size in sizes)

    runs = [np.ones(size, dtype=bool) for size in sizes]
    runs[0][int(rng.integers(sizes[0]))] = False
    costs = AdditiveCosts(
        latency_ms=table(),
        latency_high_ms=table(base=2.0, paired=pairs),
        activation_mb=activations(),
        base_activation_mb=0.5,
        activation_high_ratio=1.3,
        held_high_mb=0.2,
        floor_high_mb=1.0,
        weights_mb=table(),
        parameters=table(),
        runs=tuple(runs),
    )
    limit = float(rng.uniform(2, 9))
    memory = MemoryRequirement(
        name="peak_memory_mb on other", activation_mb=activations(), limit=limit, weights_mb=table(), floor_high_mb=0.3
    )
    package = Requirement(name="package_mb", table=table(), limit=float(rng.uniform(2, 8)))
    return replace(costs, requirements=(package,), memory_requirements=(memory,))


def by_enumeration(costs: AdditiveCosts, budget: Budget) -> tuple[float, list[Any]]:
    """Return the smallest common relaxation and, for each limit, the figures of all that runs."""
    everyone = np.array(list(product(*(row.tolist() for row in costs.allowed()))))
    values = [(limit, figures(limit, everyone)) for limit in limits_of(costs, budget)]
    shares = np.max([row / limit.limit - 1.0 for limit, row in values], axis=0)
    return float(shares.min()), values


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(2.0, 12.0), st.floats(2.0, 12.0), st.integers(1, 10), st.booleans())
def test_smallest_violation_and_binding_limits_equal_enumeration(
    seed: int, latency_ms: float, memory_mb: float, parameters: int, pairs: bool
) -> None:
    costs = problem(seed, pairs=pairs)
    budget = Budget(latency_ms=latency_ms, peak_memory_mb=memory_mb, parameters=parameters)
    least, values = by_enumeration(costs, budget)
    found = smallest_violation(costs, budget)
    assert (found is None) == (least <= 2e-6)
    if found is None:
        return
    assert found.relaxation == pytest.approx(least, rel=1e-4, abs=1e-5)
    inside = {limit.name: row <= limit.limit * (1 + 2e-6) for limit, row in values}
    alone = {name for name, row in inside.items() if not row.any()}
    names = [item.name for item in found.limits]
    if found.alone:
        assert set(names) == alone
    else:
        assert not alone
        assert not np.all([inside[name] for name in names], axis=0).any()
        for fewer in combinations(names, len(names) - 1):
            assert np.all([inside[name] for name in fewer], axis=0).any()
    for item in found.limits:
        limit, row = next((limit, row) for limit, row in values if limit.name == item.name)
        others = np.all([inside[name] for name in inside if name != item.name], axis=0)
        assert item.least == pytest.approx(row.min(), rel=1e-5)
        assert (item.with_others is None) == (not others.any())
        if item.with_others is not None:
            assert item.with_others == pytest.approx(row[others].min(), rel=1e-4)
        assert item.nearest <= limit.limit * (1 + found.relaxation) + 1e-4


def test_a_device_that_runs_nothing_is_told_apart() -> None:
    costs = problem(0)
    nothing = tuple(np.zeros(size, dtype=bool) for size in costs.sizes)
    found = smallest_violation(replace(costs, runs=nothing), Budget())
    assert found is not None
    assert found.limits == ()


def test_no_limits_are_kept_by_everything() -> None:
    costs = replace(problem(1), requirements=(), memory_requirements=())
    assert smallest_violation(costs, Budget()) is None
