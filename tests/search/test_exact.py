from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.core.cost import Budget
from nas.search.exact import (
    AdditiveCosts,
    AdditiveProblem,
    ExactFront,
    MemoryRequirement,
    Requirement,
    SearchCosts,
    SlotSum,
    coarsening,
    solve,
    solver,
)
from nas.search.exact.problem import within


def every(problem: AdditiveProblem) -> Any:
    return np.array(list(product(*map(range, problem.costs.sizes))), dtype=np.int64)


def figures(problem: AdditiveProblem, options: tuple[int, ...]) -> tuple[float, ...]:
    """One architecture's figures by plain Python, the independent reading of the definition.

    Latency, memory, negated quality, parameters; then the upper ends of latency and memory.
    """
    costs = problem.costs

    def peak(rows: Any, base: float) -> float:
        return max(base, *(float(row[option]) for row, option in zip(rows, options, strict=True)))

    activation = peak(costs.activation_mb, costs.base_activation_mb)
    weights = total(costs.weights_mb, options)
    return (
        max(total(table, options) for table in (costs.latency_ms, *costs.other_latencies_ms)),
        max(weights + activation, costs.floor_mb),
        -total(problem.quality, options),
        total(costs.parameters, options),
        total(costs.latency_high_ms or costs.latency_ms, options),
        max(weights + costs.activation_high_ratio * activation + costs.held_high_mb, costs.floor_high_mb),
    )


def total(table: SlotSum | None, options: tuple[int, ...]) -> float:
    if table is None:
        return 0.0
    pairs = table.pairs or ()
    return (
        table.base
        + sum(float(row[option]) for row, option in zip(table.slots, options, strict=True))
        + sum(float(pair[options[slot], options[slot + 1]]) for slot, pair in enumerate(pairs))
    )


def excesses(problem: AdditiveProblem, options: tuple[int, ...], budget: Budget) -> dict[str, float]:
    """By how much each limit is exceeded (below 0: kept), in plain Python."""
    latency_high, memory_high = figures(problem, options)[4:]
    found = {"latency_high": (latency_high, budget.latency_ms), "memory": (memory_high, budget.peak_memory_mb)}
    found["parameters"] = (total(problem.costs.parameters, options), budget.parameters)
    for item in problem.costs.requirements:
        found[item.name] = (total(item.table, options), item.limit)
    for item in problem.costs.memory_requirements:
        rows = zip(item.activation_mb, options, strict=True)
        activation = max(item.base_activation_mb, *(float(row[option]) for row, option in rows))
        highest = total(item.weights_mb, options) + item.activation_high_ratio * activation + item.held_high_mb
        found[item.name] = (max(highest, item.floor_high_mb), item.limit)
    return {name: value - limit for name, (value, limit) in found.items() if limit is not None}


def running(problem: AdditiveProblem) -> list[tuple[int, ...]]:
    runs = problem.costs.runs or tuple([True] * size for size in problem.costs.sizes)
    everyone = product(*map(range, problem.costs.sizes))
    return [options for options in everyone if all(row[option] for row, option in zip(runs, options, strict=True))]


def front_by_enumeration(problem: AdditiveProblem, budget: Budget, num_objectives: int = 3) -> set[tuple[float, ...]]:
    points = {
        figures(problem, options)[:num_objectives]
        for options in running(problem)
        if all(excess <= 0 for excess in excesses(problem, options, budget).values())
    }
    ordered = sorted(points)
    return {
        point
        for point in ordered
        if not any(other != point and all(a <= b for a, b in zip(other, point, strict=True)) for other in ordered)
    }


def slot_sum(data: st.DataObject, sizes: list[int], numbers: st.SearchStrategy[int], *, pairs: bool) -> SlotSum:
    rows = [data.draw(st.lists(numbers, min_size=size, max_size=size)) for size in sizes]
    extra = None
    if pairs:
        extra = [
            [data.draw(st.lists(numbers, min_size=second, max_size=second)) for _ in range(first)]
            for first, second in pairwise(sizes)
        ]
    return SlotSum.of(rows, extra, base=data.draw(numbers))


@st.composite
def problems(draw: Any) -> AdditiveProblem:
    """Whole numbers, few of them: sums are exact, and ties and equal levels are frequent."""
    data = draw(st.data())
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    costs, scores = st.integers(0, 6), st.integers(-4, 8)
    with_pairs = draw(st.booleans())
    latency = slot_sum(data, sizes, costs, pairs=with_pairs and draw(st.booleans()))
    high = draw(st.sampled_from(["same", "double", "own"]))
    weights = draw(st.sampled_from(["none", "own"]))
    more = draw(st.sampled_from(["nothing", "nothing", "requirements", "memory", "latencies", "all"]))
    parameters = draw(st.sampled_from(["none", "own", "weights"]))
    weights_mb = None if weights == "none" else slot_sum(data, sizes, costs, pairs=False)
    floor = draw(st.sampled_from([0, 0, 4, 9]))
    flags = st.sampled_from([True, True, True, False])

    def activations() -> tuple[Any, ...]:
        return tuple(np.array(data.draw(st.lists(costs, min_size=size, max_size=size)), dtype=float) for size in sizes)

    requirements = [
        Requirement(name=f"size {index}", table=table, limit=float(draw(st.integers(2, 25))))
        for index, table in enumerate(
            [slot_sum(data, sizes, costs, pairs=draw(st.booleans())), latency.scaled(3.0), latency.scaled(2.0)]
        )
    ]
    memory = [
        MemoryRequirement(
            name=f"phone {index}",
            activation_mb=activations(),
            weights_mb=own,
            limit=float(draw(st.integers(2, 25))),
            base_activation_mb=float(draw(costs)),
            activation_high_ratio=draw(st.sampled_from([1.0, 1.5])),
            held_high_mb=float(draw(st.integers(0, 2))),
            floor_high_mb=float(draw(st.sampled_from([0, 0, 6]))),
        )
        for index, own in enumerate([slot_sum(data, sizes, costs, pairs=False), None])
    ]
    latencies = [slot_sum(data, sizes, costs, pairs=with_pairs and draw(st.booleans())), latency.scaled(2.0)]
    runs = tuple(np.array(data.draw(st.lists(flags, min_size=size, max_size=size)), dtype=bool) for size in sizes)
    return AdditiveProblem(
        costs=AdditiveCosts(
            latency_ms=latency,
            latency_high_ms={"same": None, "double": latency.scaled(2.0)}.get(
                high, slot_sum(data, sizes, costs, pairs=False)
            ),
            activation_mb=activations(),
            requirements=tuple(requirements[: draw(st.integers(1, 3))]) if more in ("requirements", "all") else (),
            memory_requirements=tuple(memory[: draw(st.integers(1, 2))]) if more in ("memory", "all") else (),
            other_latencies_ms=tuple(latencies[: draw(st.integers(1, 2))]) if more in ("latencies", "all") else (),
            base_activation_mb=float(draw(costs)),
            activation_high_ratio=draw(st.sampled_from([1.0, 1.5])),
            held_high_mb=float(draw(st.integers(0, 2))),
            floor_mb=float(floor),
            floor_high_mb=float(floor + draw(st.integers(0, 3))),
            weights_mb=weights_mb,
            runs=draw(st.sampled_from([None, runs])),
            parameters={"none": None, "weights": None if weights_mb is None else weights_mb.scaled(3.0)}.get(
                parameters, slot_sum(data, sizes, costs, pairs=False)
            ),
        ),
        quality=slot_sum(data, sizes, scores, pairs=with_pairs),
    )


budgets = st.builds(
    Budget,
    latency_ms=st.none() | st.integers(2, 30).map(float),
    peak_memory_mb=st.none() | st.integers(2, 25).map(float),
    parameters=st.none() | st.integers(0, 25),
)


@settings(deadline=None, max_examples=200)
@given(problem=problems(), budget=budgets, num_objectives=st.sampled_from([3, 4]))
def test_front_equals_enumeration(problem: AdditiveProblem, budget: Budget, num_objectives: int) -> None:
    front = solve(problem, budget, parameters_objective=num_objectives == 4)
    assert front.certificate.exact
    assert sorted(map(tuple, front.points().tolist())) == sorted(front_by_enumeration(problem, budget, num_objectives))
    for options, point in zip(front.options.tolist(), front.points().tolist(), strict=True):
        assert figures(problem, tuple(options))[:num_objectives] == tuple(point)


@settings(deadline=None, max_examples=60)
@given(problem=problems(), budget=budgets)
def test_front_at_upper_ends_equals_enumeration(problem: AdditiveProblem, budget: Budget) -> None:
    front = solve(replace(problem, costs=problem.costs.at_upper_ends()), budget)
    points = {
        (*figures(problem, options)[4:6], figures(problem, options)[2])
        for options in running(problem)
        if all(excess <= 0 for excess in excesses(problem, options, budget).values())
    }
    expected = {
        one for one in points if not any(o != one and all(a <= b for a, b in zip(o, one, strict=True)) for o in points)
    }
    assert sorted(map(tuple, front.points().tolist())) == sorted(expected)


def lacks(front: ExactFront, problem: AdditiveProblem, budget: Budget) -> list[tuple[int, ...]]:
    """Architectures that the certificate promises a match for, and that have none."""
    certificate = front.certificate
    spare = {
        "latency_high": certificate.latency_high_loss_ms,
        "memory": certificate.memory_loss_mb,
        "parameters": certificate.parameters_loss,
        **dict(certificate.requirement_losses),
    }
    members = front.points()
    losses = np.array(certificate.objective_losses[: members.shape[1]]) + 1e-9
    missing = []
    for options in running(problem):
        kept = excesses(problem, options, budget)
        if all(excess + spare.get(name, 0.0) <= 1e-9 for name, excess in kept.items()):
            point = np.array(figures(problem, options)[: members.shape[1]])
            if not (members <= point + losses).all(axis=1).any():
                missing.append(options)
    return missing


@settings(deadline=None, max_examples=80)
@given(problem=problems(), budget=budgets, max_labels=st.integers(1, 12), parameters=st.booleans())
def test_certificate_bounds_what_a_coarsened_front_lacks(
    problem: AdditiveProblem, budget: Budget, max_labels: int, parameters: bool
) -> None:
    front = solve(problem, budget, max_labels=max_labels, parameters_objective=parameters)
    assert within(front.costs, budget).all()
    assert lacks(front, problem, budget) == []


@settings(deadline=None, max_examples=80)
@given(problem=problems(), budget=budgets, epsilon=st.sampled_from([0.05, 0.2, 0.5]), parameters=st.booleans())
def test_a_stated_tolerance_is_kept(problem: AdditiveProblem, budget: Budget, epsilon: float, parameters: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:  # so that small problems are coarsened at all
        patch.setattr(coarsening, "_FEWEST_LABELS", 1)
        patch.setattr(solver, "_SKETCH_LABELS", 2)
        front = solve(problem, budget, epsilon_ratio=epsilon, parameters_objective=parameters)
    assert within(front.costs, budget).all()
    assert front.loss_ratio() <= epsilon
    assert lacks(front, problem, budget) == []


@pytest.mark.parametrize("seed", range(12))
def test_labels_of_one_option_stand_for_another_within_the_stated_loss(seed: int) -> None:
    # Interactions as strong as single options, and few labels: what follows may turn the order of two labels around.
    rng = np.random.default_rng(seed)
    slots, pairs = rng.integers(0, 12, (2, 5, 3)).tolist(), rng.integers(-12, 12, (4, 3, 3)).tolist()
    problem = AdditiveProblem(
        costs=AdditiveCosts(latency_ms=SlotSum.of(slots[0]), activation_mb=tuple(np.zeros(3) for _ in range(5))),
        quality=SlotSum.of(slots[1], pairs),
    )
    front = solve(problem, Budget(), max_labels=6)
    assert not front.certificate.exact
    assert lacks(front, problem, Budget()) == []


@pytest.mark.parametrize("seed", range(6))
def test_the_largest_latency_of_several_devices_is_the_objective(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tables = [SlotSum.of(rng.integers(0, 12, (5, 3)).tolist()) for _ in range(4)]
    problem = AdditiveProblem(
        costs=AdditiveCosts(
            latency_ms=tables[0],
            activation_mb=tuple(np.zeros(3) for _ in range(5)),
            other_latencies_ms=(tables[1], tables[2]),
        ),
        quality=tables[3],
    )
    assert sorted(map(tuple, solve(problem, Budget()).points().tolist())) == sorted(
        front_by_enumeration(problem, Budget())
    )


def test_a_limit_on_the_faster_of_two_devices_keeps_what_the_slower_would_drop() -> None:
    # The second option of the first slot is better and no slower on the slower device, but leaves the first device no
    # time for the better option of the second slot.
    problem = AdditiveProblem(
        costs=AdditiveCosts(
            latency_ms=SlotSum.of([[0, 8], [0, 5]]),
            activation_mb=(np.zeros(2), np.zeros(2)),
            other_latencies_ms=(SlotSum.of([[20, 20], [0, 0]]),),
        ),
        quality=SlotSum.of([[0, 1], [0, 10]]),
    )
    assert solve(problem, Budget(latency_ms=10.0)).options.tolist() == [[0, 1]]


def test_a_label_far_from_a_limit_is_not_stood_for_by_one_near_it() -> None:
    # The first option is 5 below where it could still break the limit, and the faster one 2 above: a difference of 7.
    problem = AdditiveProblem(
        costs=AdditiveCosts(
            latency_ms=SlotSum.of([[1, 0], [0, 0]]),
            activation_mb=(np.zeros(2), np.zeros(2)),
            parameters=SlotSum.of([[0, 7], [0, 15]]),
        ),
        quality=SlotSum.of([[5, 5], [0, 10]]),
    )
    budget = Budget(parameters=20)
    assert lacks(solve(problem, budget, max_labels=1), problem, budget) == []


def test_losses_in_one_latency_after_another_add_up() -> None:
    # Found by chance: the largest of three latencies loses in the second of them, then in the third.
    rng = np.random.default_rng(1184)
    first, second, third, quality = [SlotSum.of(rng.integers(0, 30, (4, 3)).tolist()) for _ in range(4)]
    problem = AdditiveProblem(
        costs=AdditiveCosts(
            latency_ms=first, activation_mb=tuple(np.zeros(3) for _ in range(4)), other_latencies_ms=(second, third)
        ),
        quality=quality,
    )
    assert lacks(solve(problem, Budget(), max_labels=1), problem, Budget()) == []


def synthetic(num_slots: int, num_options: int, *, seed: int = 0, pairs: bool = False) -> AdditiveProblem:
    rng = np.random.default_rng(seed)
    latency = [np.r_[0.0, rng.uniform(5, 50, num_options - 1)] for _ in range(num_slots)]
    quality = [np.r_[0.0, row[1:] * rng.uniform(0.005, 0.02, num_options - 1)] for row in latency]
    square = (num_options, num_options)
    return AdditiveProblem(
        costs=AdditiveCosts(
            latency_ms=SlotSum.of(latency, base=100.0),
            latency_high_ms=SlotSum.of(latency, base=100.0).scaled(1.2),
            activation_mb=tuple(np.r_[0.0, 10.0 * rng.integers(1, 7, num_options - 1)] for _ in range(num_slots)),
            weights_mb=SlotSum.of([np.r_[0.0, rng.integers(1, 20, num_options - 1)] for _ in range(num_slots)]),
            activation_high_ratio=1.1,
        ),
        quality=SlotSum.of(quality, [rng.normal(0, 0.1, square) for _ in range(num_slots - 1)] if pairs else None),
    )


def best_by_milp(problem: AdditiveProblem, budget: Budget, *, latency_ms: float, memory_mb: float) -> float:
    """Highest quality at no more latency and peak memory, by an integer programme: one binary an option, one a pair."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import lil_array

    costs, quality = problem.costs, problem.quality
    sizes = costs.sizes
    starts = np.concatenate([[0], np.cumsum(sizes)])
    num_ones = int(starts[-1])
    pair_starts = num_ones + np.concatenate([[0], np.cumsum([first * second for first, second in pairwise(sizes)])])
    size = int(pair_starts[-1]) + 1  # the last variable is the activation peak
    gain = np.zeros(size)
    gain[:num_ones] = np.concatenate(quality.slots)
    if quality.pairs is not None:
        gain[num_ones:-1] = np.concatenate([pair.ravel() for pair in quality.pairs])
    rows, low, high = [], [], []

    def add(row: Any, least: float, most: float) -> None:
        rows.append(row)
        low.append(least)
        high.append(most)

    for slot, count in enumerate(sizes):
        row = np.zeros(size)
        row[starts[slot] : starts[slot] + count] = 1
        add(row, 1, 1)
        row = np.zeros(size)
        row[starts[slot] : starts[slot] + count] = costs.activation_mb[slot]
        row[-1] = -1
        add(row, -np.inf, 0)
    for slot, (first, second) in enumerate(pairwise(sizes)):
        flow = pair_starts[slot] + np.arange(first * second).reshape(first, second)
        for option in range(first):
            row = np.zeros(size)
            row[flow[option]], row[starts[slot] + option] = 1, -1
            add(row, 0, 0)
        for option in range(second):
            row = np.zeros(size)
            row[flow[:, option]], row[starts[slot + 1] + option] = 1, -1
            add(row, 0, 0)

    def limited(table: SlotSum, activation: float, limit: float) -> None:
        row = np.zeros(size)
        row[:num_ones] = np.concatenate(table.slots)
        row[-1] = activation
        add(row, -np.inf, limit - table.base + 1e-7)

    limited(costs.latency_ms, 0.0, latency_ms)
    limited(costs.weights_mb, 1.0, memory_mb)
    limited(costs.latency_high_ms, 0.0, budget.latency_ms)
    limited(costs.weights_mb, costs.activation_high_ratio, budget.peak_memory_mb)
    integrality = np.zeros(size)
    integrality[:num_ones] = 1
    upper = np.ones(size)
    upper[-1] = np.inf
    found = milp(
        -gain,
        constraints=LinearConstraint(lil_array(np.array(rows)).tocsr(), low, high),
        integrality=integrality,
        bounds=Bounds(np.zeros(size), upper),
        options={"mip_rel_gap": 0.0},
    )
    assert found.success, found.message
    return float(-found.fun) + quality.base


@pytest.mark.parametrize("pairs", [False, True])
def test_sampled_members_are_optimal_by_an_integer_programme(pairs: bool) -> None:
    problem = synthetic(8, 5, pairs=pairs)
    budget = Budget(latency_ms=330.0, peak_memory_mb=110.0)
    front = solve(problem, budget)
    chosen = np.random.default_rng(1).choice(len(front), size=6, replace=False)
    best = [
        best_by_milp(
            problem,
            budget,
            latency_ms=float(front.costs.latency_ms[index]),
            memory_mb=float(front.costs.peak_memory_mb[index]),
        )
        for index in chosen
    ]
    assert front.quality[chosen] == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("figure", ["parameters", "latency_high_ms", "weights_mb"])
def test_a_binding_limit_on_another_figure_keeps_what_dominance_alone_would_drop(figure: str, seed: int) -> None:
    # The better and faster of two labels may break the limit later, so it must not displace the other.
    rng = np.random.default_rng(seed)
    slots, pairs = rng.integers(0, 50, (3, 6, 3)).tolist(), rng.integers(-20, 20, (5, 3, 3)).tolist()
    other = SlotSum.of(slots[2])
    problem = AdditiveProblem(
        costs=AdditiveCosts(
            latency_ms=SlotSum.of(slots[0]), activation_mb=tuple(np.zeros(3) for _ in range(6)), **{figure: other}
        ),
        quality=SlotSum.of(slots[1], pairs if seed % 2 else None),
    )
    limit = float(np.quantile(other.total(every(problem)), 0.1))
    budgets = {
        "parameters": Budget(parameters=round(limit)),
        "latency_high_ms": Budget(latency_ms=limit),
        "weights_mb": Budget(peak_memory_mb=limit),
    }
    front = solve(problem, budgets[figure])
    expected = front_by_enumeration(problem, budgets[figure])
    assert sorted(map(tuple, front.points().tolist())) == sorted(expected)


def test_limits_hold_against_upper_ends() -> None:
    problem = synthetic(6, 4)
    budget = Budget(latency_ms=250.0, peak_memory_mb=70.0)
    front = solve(problem, budget)
    assert front.costs.latency_high_ms.max() <= 250.0 < 1.2 * front.costs.latency_high_ms.max()
    assert front.costs.memory_high_mb.max() <= 70.0


def test_costs_give_their_own_front() -> None:
    problem, budget = synthetic(6, 4), Budget(latency_ms=250.0)
    costs: SearchCosts = problem.costs
    assert costs.hint_ms.sizes == costs.sizes
    front = costs.front(problem.quality, budget)
    expected = np.array(sorted(front_by_enumeration(problem, budget)))
    assert np.unique(front.points(), axis=0) == pytest.approx(expected)
    assert not costs.front(problem.quality, budget, max_labels=5).certificate.exact


def test_a_space_of_one_point_is_its_own_front() -> None:
    costs = AdditiveCosts(latency_ms=SlotSum.of([[3.0]]), activation_mb=(np.array([4.0]),))
    problem = AdditiveProblem(costs=costs, quality=SlotSum.of([[0.5]]))
    assert solve(problem, Budget()).points().tolist() == [[3.0, 4.0, -0.5]]
    assert solve(problem, Budget(), epsilon_ratio=0.01).certificate.exact
    assert len(solve(problem, Budget(latency_ms=2.0))) == 0


def test_contradictory_limits_give_an_empty_front() -> None:
    size = SlotSum.of([[1.0, 2.0], [1.0, 2.0]])
    limits = (
        Requirement(name="few", table=size, limit=3.0),
        Requirement(name="many", table=size.scaled(-1), limit=-4.0),
    )
    problem = synthetic(2, 2)
    limited = replace(problem, costs=replace(problem.costs, requirements=limits))
    assert len(solve(replace(problem, costs=replace(problem.costs, requirements=limits[:1])), Budget())) > 0
    front = solve(limited, Budget())
    assert (len(front), front.certificate.exact, front.loss_ratio()) == (0, True, 0.0)
    assert len(solve(limited, Budget(), epsilon_ratio=0.1)) == 0


def test_impossible_budget_gives_an_empty_front() -> None:
    front = solve(synthetic(4, 3), Budget(latency_ms=50.0))
    assert len(front) == 0
    assert front.points().shape == (0, 3)


@pytest.mark.parametrize("pairs", [False, True])
def test_coarsening_keeps_to_the_number_of_labels(pairs: bool) -> None:
    certificate = solve(synthetic(10, 6, pairs=pairs), Budget(), max_labels=120).certificate
    assert certificate.labels <= 120
    assert not certificate.exact
    assert certificate.quality_loss > 0


def test_tables_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(ValueError, match=r"pairs must have shapes \[\(2, 3\)\], got \[\(3, 2\)\]"):
        SlotSum.of([[0, 1], [0, 1, 2]], [[[0, 0], [0, 0], [0, 0]]])
    with pytest.raises(ValueError, match="must be finite, got NaN"):
        SlotSum.of([[0.0, float("nan")]])
    with pytest.raises(ValueError, match=r"activation_mb has \(1,\) options by slot, latency_ms has \(2,\)"):
        AdditiveCosts(latency_ms=SlotSum.of([[0, 1]]), activation_mb=(np.zeros(1),))
    costs = AdditiveCosts(latency_ms=SlotSum.of([[0, 1]]), activation_mb=(np.zeros(2),))
    with pytest.raises(ValueError, match=r"quality has \(3,\) options by slot, costs have \(2,\)"):
        AdditiveProblem(costs=costs, quality=SlotSum.zeros([3]))
    problem = AdditiveProblem(costs=costs, quality=SlotSum.zeros([2]))
    with pytest.raises(ValueError, match="max_labels must be at least 1, got 0"):
        solve(problem, Budget(), max_labels=0)
    with pytest.raises(ValueError, match="epsilon_ratio must lie above 0 and below 1, got 0"):
        solve(problem, Budget(), epsilon_ratio=0.0)
    with pytest.raises(ValueError, match=r"budget.latency_ms must be finite, got nan"):
        solve(problem, Budget(latency_ms=float("nan")))
    with pytest.raises(ValueError, match="the limit of requirement 'package' must be finite, got nan"):
        Requirement(name="package", table=SlotSum.zeros([2]), limit=float("nan"))
    with pytest.raises(ValueError, match="memory of requirement 'phone' must be finite, got NaN"):
        MemoryRequirement(name="phone", activation_mb=(np.array([1.0, np.nan]),), limit=1.0)
    with pytest.raises(ValueError, match=r"requirement 'package' has \(3,\) options by slot, latency_ms has \(2,\)"):
        replace(costs, requirements=(Requirement(name="package", table=SlotSum.zeros([3]), limit=1.0),))
