from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.core.cost import Budget
from nas.search.exact import AdditiveCosts, SlotSum, TabulatedCosts

SIZES = (3, 4, 2)


def additive(seed: int = 0) -> AdditiveCosts:
    rng = np.random.default_rng(seed)
    latency = SlotSum.of([rng.uniform(1, 9, size) for size in SIZES], base=4.0)
    memory = tuple(rng.integers(1, 6, size).astype(float) for size in SIZES)
    return AdditiveCosts(latency_ms=latency, latency_high_ms=latency.scaled(1.2), activation_mb=memory)


def listed(rows: list[list[int]], latency: list[float]) -> TabulatedCosts:
    return TabulatedCosts.measured(SIZES, np.array(rows), np.array(latency))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), limit=st.floats(5.0, 40.0))
def test_table_of_a_whole_space_gives_the_costs_and_the_front_of_the_solver(seed: int, limit: float) -> None:
    costs = additive(seed)
    table, budget = TabulatedCosts.of(costs), Budget(latency_ms=limit)
    quality = SlotSum.of([np.random.default_rng(seed).normal(size=size) for size in SIZES])
    front, expected = (one.front(quality, budget) for one in (table, costs))
    assert front.points() == pytest.approx(expected.points())
    assert front.certificate.exact
    rows = np.random.default_rng(seed).integers(SIZES, size=(20, 3))
    for one in fields(costs.score(rows)):
        assert getattr(table.score(rows), one.name) == pytest.approx(getattr(costs.score(rows), one.name))


def test_front_of_listed_qualities_equals_enumeration() -> None:
    table = TabulatedCosts.of(additive())
    quality = np.random.default_rng(1).normal(size=24)
    points = np.stack([table.costs.latency_ms, table.costs.peak_memory_mb, -quality], axis=1)
    best = [point for point in points if not ((points <= point).all(axis=1) & (points < point).any(axis=1)).any()]
    assert table.front(quality, Budget()).points() == pytest.approx(np.array(sorted(map(tuple, best))))


def test_what_is_not_listed_does_not_run() -> None:
    table = listed([[0, 0, 0], [2, 3, 1]], [5.0, 7.0])
    rows = np.array([[2, 3, 1], [1, 1, 1], [0, 0, 0]])
    assert table.feasible(rows, Budget()).tolist() == [True, False, True]
    assert table.score(rows).latency_ms.tolist() == [7.0, np.inf, 5.0]
    assert table.positions(rows).tolist() == [1, -1, 0]


def test_hint_is_the_latency_where_it_is_a_sum() -> None:
    costs = additive()
    table = TabulatedCosts.of(costs)
    assert table.hint_ms.total(table.options) == pytest.approx(costs.latency_ms.total(table.options), abs=1e-2)


@pytest.mark.parametrize(
    ("rows", "latency", "message"),
    [
        ([[0, 0, 0], [0, 0, 0]], [1.0, 2.0], "hold an architecture twice"),
        ([[0, 4, 0]], [1.0], r"must lie in 0 to the sizes \(3, 4, 2\) less 1"),
        ([[0, -1, 0]], [1.0], r"must lie in 0 to the sizes \(3, 4, 2\) less 1"),
        ([[0, 0, 0]], [float("nan")], "latency_ms must be finite, got NaN or infinity"),
        ([[0, 0, 0]], [1.0, 2.0], r"must be of shape \(1,\), got \(2,\)"),
        ([[0, 0]], [1.0], r"must be of shape \(N, 3\) and not empty, got \(1, 2\)"),
    ],
)
def test_faulty_tables_are_refused(rows: list[list[int]], latency: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        listed(rows, latency)


def test_large_spaces_are_not_tabulated() -> None:
    sizes = (9,) * 6
    costs = AdditiveCosts(latency_ms=SlotSum.zeros(sizes), activation_mb=SlotSum.zeros(sizes).slots)
    with pytest.raises(ValueError, match="at most 100000 architectures can be tabulated, got 531441"):
        TabulatedCosts.of(costs)
