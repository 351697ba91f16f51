from __future__ import annotations

from itertools import combinations
from math import prod

import numpy as np
import optuna._hypervolume
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.core.architecture import Architecture
from nas.core.cost import Budget, CostEstimate, Interval, Violation
from nas.core.errors import ConfigError, InputError
from nas.core.evaluation import Evaluation, Proposal, Quality
from nas.core.pareto import ParetoFront, dominates, hypervolume, non_dominated, objectives, reference_point


def make_evaluation(
    number: int, latency_ms: float, memory_mb: float, score: float | None, *, margin: float = 1.0, feasible: bool = True
) -> Evaluation:
    violations = () if feasible else (Violation(limit="latency_ms", allowed=1.0, value=latency_ms * margin),)
    return Evaluation(
        number=number,
        proposal=Proposal(architecture=Architecture("test/1", {"slot.kind": number})),
        cost=CostEstimate(
            latency_ms=latency_ms,
            latency_interval_ms=Interval(low=latency_ms / margin, high=latency_ms * margin, coverage=0.9),
            peak_memory_mb=memory_mb,
            memory_interval_mb=Interval(low=memory_mb / margin, high=memory_mb * margin, coverage=0.9),
            parameters=10,
            blocks=(),
            device="test",
            scenario="test",
            predictor="test",
            origin="simulated",
        ),
        quality=None if score is None else Quality(score=score, estimator="test", fidelity="exact"),
        violations=violations,
        state="screened" if score is None else "complete",
    )


def by_inclusion_exclusion(points: list[tuple[float, ...]], reference: tuple[float, ...]) -> float:
    """Volume of a union of boxes from the volumes of all their intersections."""
    total = 0.0
    for size in range(1, len(points) + 1):
        for chosen in combinations(points, size):
            corner = [max(column) for column in zip(*chosen, strict=True)]
            box = prod(max(end - start, 0.0) for start, end in zip(corner, reference, strict=True))
            total += box if size % 2 else -box
    return total


whole = st.integers(0, 6).map(float)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [((1, 2), (2, 2), True), ((1, 2), (1, 2), False), ((1, 3), (2, 2), False), ((2, 2), (1, 2), False)],
)
def test_dominance(first: tuple[float, ...], second: tuple[float, ...], expected: bool) -> None:
    assert dominates(first, second) is expected


@pytest.mark.parametrize("dimensions", [2, 3])
def test_non_dominated_equals_comparing_all_pairs(dimensions: int) -> None:
    @settings(max_examples=200, deadline=None)
    @given(st.lists(st.tuples(*[whole] * dimensions), max_size=30))
    def check(points: list[tuple[float, ...]]) -> None:
        expected = [index for index, point in enumerate(points) if not any(dominates(other, point) for other in points)]
        assert non_dominated(points) == expected

    check()


@pytest.mark.parametrize("dimensions", [2, 3])
def test_hypervolume_equals_inclusion_and_exclusion(dimensions: int) -> None:
    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.tuples(*[whole] * dimensions), max_size=8))
    def check(points: list[tuple[float, ...]]) -> None:
        reference = (5.0,) * dimensions
        assert hypervolume(points, reference) == pytest.approx(by_inclusion_exclusion(points, reference), abs=1e-9)

    check()


@pytest.mark.parametrize("dimensions", [2, 3])
def test_hypervolume_equals_optuna_on_a_large_set(dimensions: int) -> None:
    points = np.random.default_rng(0).random((150, dimensions))
    expected = optuna._hypervolume.compute_hypervolume(points, np.ones(dimensions))
    assert hypervolume(points.tolist(), (1.0,) * dimensions) == pytest.approx(expected, rel=1e-12)


def test_hypervolume_of_points_beyond_the_reference_is_nothing() -> None:
    assert hypervolume([(1.0, 6.0), (5.0, 1.0)], (5.0, 5.0)) == 0.0


def test_hypervolume_of_four_objectives_is_refused() -> None:
    with pytest.raises(ValueError, match="2 or 3 objectives, got 4"):
        hypervolume([(0.0,) * 4], (1.0,) * 4)


def test_quality_enters_negated() -> None:
    assert objectives(make_evaluation(0, 10.0, 20.0, 0.7)) == (10.0, 20.0, -0.7)


def test_screened_evaluation_has_no_objectives() -> None:
    with pytest.raises(ValueError, match=r"evaluation 3 \(screened\) has no quality"):
        objectives(make_evaluation(3, 10.0, 20.0, None))


def test_front_holds_complete_feasible_members_by_latency() -> None:
    front = ParetoFront.of(
        [
            make_evaluation(0, 30.0, 1.0, 0.9),
            make_evaluation(1, 10.0, 1.0, 0.5),
            make_evaluation(2, 20.0, 1.0, 0.4),  # dominated by 1
            make_evaluation(3, 1.0, 1.0, None),  # screened
            make_evaluation(4, 2.0, 1.0, 0.99, feasible=False),
        ]
    )
    assert [member.number for member in front.members] == [1, 0]


def test_front_is_mutually_non_dominated_and_covers_the_rest() -> None:
    rng = np.random.default_rng(1)
    everything = [make_evaluation(number, *row) for number, row in enumerate(rng.uniform(1, 9, (200, 3)).tolist())]
    members = ParetoFront.of(everything).members
    numbers = {member.number for member in members}
    assert not any(dominates(objectives(a), objectives(b)) for a in members for b in members)
    assert all(
        any(dominates(objectives(member), objectives(other)) for member in members)
        for other in everything
        if other.number not in numbers
    )


def test_knee_is_the_point_furthest_below_the_line() -> None:
    # With equal memory the front is a curve; scaled it runs (0, 1), (0.1, 0.2), (0.5, 0.1), (1, 0).
    front = ParetoFront.of(
        [
            make_evaluation(0, 100.0, 50.0, 0.0),
            make_evaluation(1, 110.0, 50.0, 0.8),
            make_evaluation(2, 150.0, 50.0, 0.9),
            make_evaluation(3, 200.0, 50.0, 1.0),
        ]
    )
    assert front.knee().number == 1


def test_knee_in_three_objectives_uses_the_plane_of_the_extremes() -> None:
    # Scaled (latency, memory, -quality): the extremes are the axes' unit corners, whose plane has the sum 1.
    rows = [(0.0, 1.0, 0.0), (1.0, 0.0, 0.0), (1.0, 1.0, 1.0), (0.4, 0.4, 0.5), (0.9, 0.9, 0.95)]
    front = ParetoFront.of([make_evaluation(number, *row) for number, row in enumerate(rows)])
    assert front.knee().number == 3


def test_knee_is_found_although_it_shares_the_lowest_memory() -> None:
    rows = [(100.0, 50.0, 0.0), (110.0, 50.0, 0.8), (150.0, 60.0, 0.9), (200.0, 60.0, 1.0)]
    front = ParetoFront.of([make_evaluation(number, *row) for number, row in enumerate(rows)])
    assert front.knee().number == 1


def test_knee_of_a_single_member_is_that_member() -> None:
    assert ParetoFront.of([make_evaluation(7, 1.0, 1.0, 1.0)]).knee().number == 7


@pytest.fixture
def front() -> ParetoFront:
    return ParetoFront.of(
        [
            make_evaluation(0, 100.0, 50.0, 0.1, margin=1.2),
            make_evaluation(1, 150.0, 60.0, 0.8, margin=1.2),
            make_evaluation(2, 300.0, 90.0, 0.9, margin=1.2),
        ]
    )


@pytest.mark.parametrize(("rule", "number"), [("fastest", 0), ("knee", 1), ("best", 2)])
def test_selection_by_rule(front: ParetoFront, rule: str, number: int) -> None:
    assert front.select(rule).number == number


def test_selection_by_the_start_of_a_digest(front: ParetoFront) -> None:
    digest = front.members[1].architecture.digest
    assert front.select(digest[:10]).number == 1


def test_unknown_selection_names_what_is_allowed(front: ParetoFront) -> None:
    with pytest.raises(ConfigError, match=r"selection 'quickest' is no rule .* allowed: knee, fastest, best") as caught:
        front.select("quickest")
    assert front.members[0].architecture.digest in str(caught.value.hint)


def test_selection_from_an_empty_front_is_an_input_error() -> None:
    with pytest.raises(InputError, match="front is empty"):
        ParetoFront(()).select("knee")


def test_within_uses_the_upper_ends_of_intervals(front: ParetoFront) -> None:
    assert [member.number for member in front.within(Budget(latency_ms=180.0)).members] == [0, 1]
    assert [member.number for member in front.within(Budget(latency_ms=179.0)).members] == [0]


@pytest.mark.parametrize(
    ("goal", "number"), [({"latency_ms": 120.0}, 0), ({"score": 0.95}, 2), ({"latency_ms": 310.0, "score": 0.8}, 2)]
)
def test_nearest_member(front: ParetoFront, goal: dict[str, float], number: int) -> None:
    assert front.nearest(**goal).number == number


def test_nearest_needs_a_figure(front: ParetoFront) -> None:
    with pytest.raises(ValueError, match="at least one of"):
        front.nearest()


def test_frame_has_a_row_a_member(front: ParetoFront) -> None:
    frame = front.to_frame()
    assert list(frame["latency_ms"]) == [100.0, 150.0, 300.0]
    assert list(frame["quality"]) == [0.1, 0.8, 0.9]
    assert frame["digest"].is_unique


def test_reference_is_the_budget_where_there_is_one_and_beyond_the_worst_elsewhere() -> None:
    evaluations = [make_evaluation(0, 100.0, 50.0, 0.2), make_evaluation(1, 200.0, 40.0, 0.7)]
    reference = reference_point(evaluations, Budget(latency_ms=250.0))
    assert reference == pytest.approx((250.0, 55.0, -0.15))
