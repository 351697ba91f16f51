"""Costs over several scenarios: the merged front equals enumeration, bulk and single figures agree."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, product
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.core.cost import Budget
from nas.search.exact import AdditiveCosts, JointCosts, SearchCosts, SlotSum
from nas.search.exact.joint import _in_scenario, _not_beaten

if TYPE_CHECKING:
    from collections.abc import Sequence

SIZES = (3, 2, 3)
# Whole numbers, so that sums are exact and ties occur.
FIGURES = st.integers(0, 6)


def slot_sum(draw: st.DrawFn, sizes: Sequence[int], *, pairs: bool, low: int = 0) -> SlotSum:
    number = st.integers(low, 6)
    rows = [draw(st.lists(number, min_size=size, max_size=size)) for size in sizes]
    shapes = list(pairwise(sizes)) if pairs else []
    tables = [np.array(draw(st.lists(number, min_size=a * b, max_size=a * b))).reshape(a, b) for a, b in shapes]
    return SlotSum.of(rows, tables if pairs else None, base=draw(number))


@st.composite
def joint_costs(draw: st.DrawFn) -> JointCosts:
    parts = []
    for _ in range(draw(st.integers(1, 3))):
        latency = slot_sum(draw, SIZES, pairs=draw(st.booleans()))
        part = AdditiveCosts(
            latency_ms=latency,
            latency_high_ms=draw(st.sampled_from([None, latency.scaled(1.5)])),
            activation_mb=tuple(
                np.array(draw(st.lists(FIGURES, min_size=size, max_size=size)), dtype=float) for size in SIZES
            ),
            base_activation_mb=float(draw(FIGURES)),
            weights_mb=slot_sum(draw, SIZES, pairs=False),
            runs=tuple(np.array(draw(st.lists(st.booleans(), min_size=size, max_size=size))) for size in SIZES),
        )
        parts.append(part)
    return JointCosts(parts=tuple(parts))


@st.composite
def problems(draw: st.DrawFn) -> tuple[JointCosts, SlotSum]:
    costs = draw(joint_costs())
    return costs, slot_sum(draw, costs.sizes, pairs=draw(st.booleans()), low=-6)


def every(sizes: Sequence[int]) -> np.ndarray:
    return np.array(list(product(*map(range, sizes))), dtype=np.int64)


def test_joint_costs_offer_what_engines_ask_of_costs() -> None:
    part = AdditiveCosts(latency_ms=SlotSum.zeros((2,)), activation_mb=(np.zeros(2),))
    costs: SearchCosts = JointCosts(parts=(part, part))
    assert costs.sizes == costs.hint_ms.sizes == (2, 2)


@given(problems(), st.sampled_from([None, 8.0, 16.0]), st.sampled_from([None, 6.0, 12.0]))
@settings(max_examples=80)
def test_the_front_over_all_scenarios_equals_enumeration(
    problem: tuple[JointCosts, SlotSum], latency_ms: float | None, memory_mb: float | None
) -> None:
    costs, quality = problem
    budget = Budget(latency_ms=latency_ms, peak_memory_mb=memory_mb)
    points = set()
    for options in every(costs.sizes):  # each priced by its own scenario's table alone
        part, own = costs.parts[options[-1]], options[None, :-1]
        if part.feasible(own, budget)[0]:
            scored = part.score(own)
            row = options[None, :]
            points.add((scored.latency_ms[0], scored.peak_memory_mb[0], -quality.total(row)[0]))
    expected = {
        point
        for point in points
        if not any(other != point and all(a <= b for a, b in zip(other, point, strict=True)) for other in points)
    }
    front = costs.front(quality, budget)
    assert {tuple(point) for point in front.points().tolist()} == expected
    assert len(front) == len(expected)
    assert front.certificate.exact
    assert costs.feasible(front.options, budget).all()


@given(problems(), st.integers(1, 4))
@settings(max_examples=50)
def test_a_coarsened_front_misses_no_more_than_its_certificate_says(
    problem: tuple[JointCosts, SlotSum], max_labels: int
) -> None:
    costs, quality = problem
    everyone = every(costs.sizes)
    runs = everyone[costs.feasible(everyone, Budget())]
    scored = costs.score(runs)
    points = np.stack([scored.latency_ms, scored.peak_memory_mb, -quality.total(runs)], axis=1)
    front = costs.front(quality, Budget(), max_labels=max_labels)
    found = front.certificate
    losses = np.array([found.latency_loss_ms, found.memory_loss_mb, found.quality_loss]) + 1e-9
    matched = (front.points()[None, :, :] <= (points + losses)[:, None, :]).all(axis=2).any(axis=1)
    assert matched.all()


@given(joint_costs())
@settings(max_examples=50)
def test_bulk_scores_are_those_of_each_scenarios_own_table(costs: JointCosts) -> None:
    options = np.random.default_rng(0).permutation(every(costs.sizes))
    scored = costs.score(options)
    for index, row in enumerate(options):
        own = costs.parts[row[-1]].score(row[None, :-1])
        assert scored.latency_ms[index] == own.latency_ms[0]
        assert scored.memory_high_mb[index] == own.memory_high_mb[0]
        assert scored.runs[index] == own.runs[0]


@given(problems())
@settings(max_examples=50)
def test_quality_in_one_scenario_is_quality_with_that_option_last(problem: tuple[JointCosts, SlotSum]) -> None:
    costs, quality = problem
    inner = every(SIZES)
    for scenario in range(len(costs.parts)):
        rows = np.concatenate([inner, np.full((len(inner), 1), scenario)], axis=1)
        assert _in_scenario(quality, scenario).total(inner) == pytest.approx(quality.total(rows))


def test_a_scenario_that_is_dearer_and_no_better_is_not_solved() -> None:
    part = AdditiveCosts(latency_ms=SlotSum.of([[1.0, 2.0]]), activation_mb=(np.ones(2),))
    dearer = replace(part, latency_ms=part.latency_ms.scaled(2.0))
    flat, better = SlotSum.zeros((2,)), SlotSum.of([[0.0, 0.0]], base=1.0)
    assert _not_beaten([part, dearer], [flat, flat]) == [0]
    assert _not_beaten([part, dearer], [flat, better]) == [0, 1]
    assert _not_beaten([dearer, part], [flat, flat]) == [1]
    assert _not_beaten([part, part], [flat, flat]) == [0]


def test_hints_are_the_mean_effect_of_each_option() -> None:
    parts = [
        AdditiveCosts(latency_ms=SlotSum.of([[0.0, slope]], base=10.0 * slope), activation_mb=(np.zeros(2),))
        for slope in (1.0, 3.0)
    ]
    hint = JointCosts(parts=tuple(parts)).hint_ms
    assert hint.slots[0].tolist() == [0.0, 2.0]
    assert hint.slots[1].tolist() == [9.5, 30.5]  # on average 10.5 and 31.5, of which the slot has 1
    assert hint.base == 0.0


def test_parts_over_other_options_are_refused() -> None:
    one, other = (AdditiveCosts(latency_ms=SlotSum.zeros((n,)), activation_mb=(np.zeros(n),)) for n in (2, 3))
    with pytest.raises(ValueError, match="parts over the same options, got 2"):
        JointCosts(parts=(one, other))
