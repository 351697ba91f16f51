from __future__ import annotations

from itertools import product
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from problem import AdditiveProblem, FlatSpace, MemoryJournal, without_times

from nas.core.architecture import ChoiceSpec
from nas.core.cost import Budget
from nas.core.errors import BudgetError, ConfigError
from nas.core.evaluation import Evaluation, Proposal
from nas.core.pareto import hypervolume
from nas.core.rng import RandomStreams
from nas.search import engines, search
from nas.search.engines.model_based import start_of
from nas.search.exact import SlotSum, TabulatedCosts
from nas.search.posterior import option_traits
from search_spaces.categorical import CategoricalSpace

if TYPE_CHECKING:
    from nas.search.loop import SearchResult

NAMES = ("evolving", "model_based", "regularised")
SMALL: dict[str, dict[str, Any]] = {
    "evolving": {"probe_ratio": 0.3},
    "model_based": {"start": 5},
    "regularised": {"population": 8, "tournament": 3},
}
BUDGET = Budget(latency_ms=250.0, peak_memory_mb=100.0)


def build(name: str, problem: AdditiveProblem, *, seed: int = 0, budget: Budget = BUDGET) -> Any:
    streams = RandomStreams(seed)
    return engines.build(name, problem.space, SMALL.get(name, {}), streams, costs=problem.costs, budget=budget)


def go(
    name: str,
    problem: AdditiveProblem,
    journal: MemoryJournal,
    *,
    evaluations: int,
    seed: int = 0,
    budget: Budget = BUDGET,
) -> SearchResult:
    return search(
        problem.space,
        build(name, problem, seed=seed, budget=budget),
        cost_model=problem.prices,
        quality_estimator=problem,
        budget=budget,
        journal=journal,
        evaluations=evaluations,
        batch=5,
    )


def costs_match_estimates(problem: AdditiveProblem) -> bool:
    rows = np.array(list(product(range(problem.space.num_options), repeat=problem.space.num_slots)))
    scored = problem.costs.score(rows)
    estimates = [problem.cost(problem.space.from_options(row)) for row in rows.tolist()]
    return bool(
        np.allclose(scored.latency_high_ms, [one.latency_interval_ms.high for one in estimates])
        and np.allclose(scored.memory_high_mb, [one.memory_interval_mb.high for one in estimates])
    )


def test_tables_agree_with_estimates() -> None:
    assert costs_match_estimates(AdditiveProblem(FlatSpace(3, 4)))


@pytest.mark.parametrize("name", NAMES)
def test_engine_restarted_at_every_batch_equals_the_uninterrupted_one(name: str) -> None:
    problem = AdditiveProblem(FlatSpace(6, 5))
    whole, pieces = MemoryJournal(), MemoryJournal()
    go(name, problem, whole, evaluations=40)
    for evaluations in range(5, 41, 5):
        go(name, problem, pieces, evaluations=evaluations)
    assert without_times(pieces.records) == without_times(whole.records)


@pytest.mark.parametrize("name", NAMES)
def test_engine_killed_in_a_batch_goes_on_as_if_nothing_happened(name: str) -> None:
    problem = AdditiveProblem(FlatSpace(6, 5))
    whole, torn = MemoryJournal(), MemoryJournal(capacity=23)
    go(name, problem, whole, evaluations=40)
    with pytest.raises(KeyboardInterrupt):
        go(name, problem, torn, evaluations=40)
    torn.capacity = None
    go(name, problem, torn, evaluations=40)
    assert without_times(torn.records) == without_times(whole.records)


@pytest.mark.parametrize("name", NAMES)
def test_another_seed_gives_another_search(name: str) -> None:
    problem = AdditiveProblem(FlatSpace(6, 5))
    runs = [go(name, problem, MemoryJournal(), evaluations=20, seed=seed) for seed in range(2)]
    first, second = ([one.architecture.digest for one in run.evaluations] for run in runs)
    assert first != second


@pytest.mark.parametrize("name", NAMES)
def test_nothing_over_the_budget_and_nothing_twice_is_proposed(name: str) -> None:
    problem = AdditiveProblem(FlatSpace(8, 6))
    result = go(name, problem, MemoryJournal(), evaluations=60)
    digests = [one.architecture.digest for one in result.evaluations]
    assert (result.complete, result.screened, result.duplicates) == (60, 0, 0)
    assert len(set(digests)) == 60


@pytest.mark.parametrize("name", NAMES)
def test_impossible_budget_ends_with_the_nearest_miss(name: str) -> None:
    problem = AdditiveProblem(FlatSpace(4, 4))
    with pytest.raises(BudgetError, match=r"none of 1 candidates meets the budget.*latency_ms: 110 ms"):
        go(name, problem, MemoryJournal(), evaluations=20, budget=Budget(latency_ms=100.0))


@pytest.mark.parametrize("name", NAMES)
def test_search_of_a_small_space_ends_with_the_whole_front(name: str) -> None:
    problem = AdditiveProblem(FlatSpace(3, 4))
    result = go(name, problem, MemoryJournal(), evaluations=64)
    everything = go("exhaustive", problem, MemoryJournal(), evaluations=64)
    assert set(result.front.points()) == set(everything.front.points())


@pytest.mark.parametrize("name", NAMES)
def test_failed_candidates_are_not_proposed_again(name: str) -> None:
    space = FlatSpace(5, 4)
    first = go(name, AdditiveProblem(space), MemoryJournal(), evaluations=10)
    broken = frozenset(one.architecture.digest for one in first.evaluations[3:6])
    result = go(name, AdditiveProblem(space, failing=broken), MemoryJournal(), evaluations=30)
    assert result.failed >= 1
    assert result.duplicates == 0


@pytest.mark.parametrize("name", NAMES)
def test_engine_without_costs_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"'{name}' works on a table of costs by slot and option"):
        engines.build(name, FlatSpace(), {}, RandomStreams(0))


def test_costs_of_another_space_are_refused() -> None:
    problem = AdditiveProblem(FlatSpace(3, 4))
    with pytest.raises(ConfigError, match=r"has \(4, 4, 4\) options by slot, space 'flat/1' has \(5, 5, 5, 5\)"):
        engines.build("model_based", FlatSpace(4, 5), {}, RandomStreams(0), costs=problem.costs)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("model_based", {"start": 0}, "start must be at least 1, got 0"),
        ("model_based", {"temperature": -1.0}, "temperature must be at least 0, got -1.0"),
        ("evolving", {"probe_ratio": 0.0}, "probe_ratio must lie above 0 and up to 1, got 0.0"),
        ("evolving", {"spread": -0.1}, "spread must be at least 0, got -0.1"),
        ("regularised", {"tournament": 51}, r"tournament must lie in 1 to population \(50\), got 51"),
    ],
)
def test_wrong_options_are_named(name: str, options: dict[str, Any], message: str) -> None:
    problem = AdditiveProblem()
    with pytest.raises(ConfigError, match=message):
        engines.build(name, problem.space, options, RandomStreams(0), costs=problem.costs)


def volume(evaluations: tuple[Evaluation, ...]) -> float:
    points = [(one.cost.latency_ms, -one.quality.score) for one in evaluations if one.quality]
    return hypervolume(points, (250.0, 0.0))


def test_engines_that_know_the_structure_beat_screened_random_search() -> None:
    volumes: dict[str, list[float]] = {name: [] for name in (*NAMES, "random")}
    for seed in range(3):
        problem = AdditiveProblem(FlatSpace(12, 6), seed=seed)
        for name, found in volumes.items():
            found.append(volume(go(name, problem, MemoryJournal(), evaluations=80, seed=seed).evaluations))
    medians = {name: median(found) for name, found in volumes.items()}
    assert medians["model_based"] > medians["evolving"] > medians["random"]
    assert medians["regularised"] > medians["random"]


def test_traits_are_the_values_of_an_options_choices() -> None:
    space = CategoricalSpace(
        "pair",
        1,
        {
            slot: [
                ChoiceSpec(name=f"{slot}.kind", values=("none", "conv")),
                ChoiceSpec(name=f"{slot}.kernel", values=(3, 5), active_when=((f"{slot}.kind", ("conv",)),)),
            ]
            for slot in ("a", "b")
        },
    )
    first, second = option_traits(space)
    assert first.tolist() == second.tolist()
    assert (first @ first.T).tolist() == [[1, 0, 0], [0, 2, 1], [0, 1, 2]]  # shared values: none; conv 3; conv 5
    assert [table.tolist() for table in option_traits(FlatSpace(2, 3))] == [np.eye(3).tolist()] * 2


@pytest.mark.parametrize("name", NAMES)
def test_engines_that_know_the_costs_propose_nothing_that_does_not_run(name: str) -> None:
    stuck = frozenset({(0, 1), (1, 2), (3, 4)})
    result = go(name, AdditiveProblem(stuck=stuck), MemoryJournal(), evaluations=25, budget=Budget(latency_ms=400.0))
    assert not [one for one in result.evaluations if one.violations and one.violations[0].limit == "placement"]
    assert result.complete == 25


def told(problem: AdditiveProblem, **more: Any) -> Any:
    """A model-based engine that knows 40 architectures."""
    rows = np.random.default_rng(0).integers(problem.space.num_options, size=(40, problem.space.num_slots))
    engine = engines.build("model_based", problem.space, {}, RandomStreams(0), costs=problem.costs, **more)
    architectures = [problem.space.from_options(row) for row in np.unique(rows, axis=0).tolist()]
    engine.tell(
        [
            Evaluation(
                number=number,
                proposal=Proposal(architecture=one),
                cost=problem.cost(one),
                quality=problem.estimate(one),
                violations=(),
                state="complete",
            )
            for number, one in enumerate(architectures)
        ]
    )
    return engine


def test_hints_are_asked_for_at_every_model_and_sharpen_it() -> None:
    problem = AdditiveProblem(FlatSpace(12, 6))
    asked: list[int] = []

    def truth() -> tuple[SlotSum, ...]:
        asked.append(1)
        return (SlotSum.of(problem.score),)

    unseen = np.random.default_rng(1).integers(6, size=(200, 12))
    expected = SlotSum.of(problem.score).total(unseen)
    plain, hinted = told(problem), told(problem, hints=truth)
    errors = [float(np.abs(engine.predict(unseen)[0] - expected).mean()) for engine in (plain, hinted)]
    assert asked
    assert errors[1] < 0.2 * errors[0]


def test_hints_of_an_engine_that_takes_none_are_ignored() -> None:
    problem = AdditiveProblem()
    assert engines.build("random", problem.space, {}, RandomStreams(0), hints=lambda: ())


def test_prediction_without_judged_candidates_is_refused() -> None:
    problem = AdditiveProblem()
    engine = build("model_based", problem)
    with pytest.raises(ValueError, match="needs at least 2 judged architectures, got 0"):
        engine.predict(np.zeros((1, 4), dtype=np.int64))


def test_pending_proposals_are_not_repeated_while_others_are_told() -> None:
    problem = AdditiveProblem(FlatSpace(12, 6))
    engine = told(problem)
    first = engine.ask(6)
    evaluation = Evaluation(
        number=40,
        proposal=first[3],
        cost=problem.cost(first[3].architecture),
        quality=problem.estimate(first[3].architecture),
        violations=(),
        state="complete",
    )
    engine.tell([evaluation])
    both = [one.architecture.digest for one in (*first, *engine.ask(6))]
    assert len(set(both)) == 12


def test_search_of_listed_architectures_stays_in_the_list() -> None:
    problem = AdditiveProblem(FlatSpace(6, 5))
    rows = np.unique(np.random.default_rng(0).integers(5, size=(60, 6)), axis=0)
    costs = TabulatedCosts(sizes=(5,) * 6, options=rows, costs=problem.costs.score(rows))
    engine = engines.build("model_based", problem.space, SMALL["model_based"], RandomStreams(0), costs=costs)
    result = search(
        problem.space,
        engine,
        cost_model=problem.prices,
        quality_estimator=problem,
        budget=Budget(),
        journal=MemoryJournal(),
        evaluations=100,
        batch=5,
    )
    assert result.stopped == "exhausted"
    found = {problem.space.to_options(one.architecture) for one in result.evaluations}
    assert found == set(map(tuple, rows.tolist()))


@pytest.mark.parametrize(("evaluations", "start"), [(4, 8), (24, 8), (60, 15), (96, 24), (1000, 24)])
def test_short_searches_start_with_fewer_designs(evaluations: int, start: int) -> None:
    assert start_of(evaluations) == start
