from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest
from problem import AdditiveProblem, FlatSpace, MemoryJournal, without_times

from nas.core.cost import Budget, Interval
from nas.core.errors import ArchitectureError, BudgetError, InputError, NasError
from nas.core.evaluation import Proposal, WorkerFailure
from nas.core.pareto import dominates, objectives
from nas.core.rng import RandomStreams
from nas.runs.journal import Journal
from nas.search import SearchResult, engines, search
from nas.search.executors.serial import SerialExecutor
from nas.search.synchronous import DRAWS_PER_CANDIDATE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from nas.core.architecture import Architecture
    from nas.core.cost import CostEstimate
    from nas.core.evaluation import Evaluation

LIMIT = Budget(latency_ms=190.0)


class ScriptedEngine:
    """Proposes the given options in order and remembers what it is told."""

    def __init__(self, space: FlatSpace, script: Sequence[Sequence[int]]) -> None:
        self.space = space
        self.script = list(script)
        self.told: list[list[Evaluation]] = []

    def ask(self, count: int) -> list[Proposal]:
        taken, self.script = self.script[:count], self.script[count:]
        return [Proposal(architecture=self.space.from_options(options)) for options in taken]

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        self.told.append(list(evaluations))


def run(problem: AdditiveProblem, engine: Any, **changes: Any) -> SearchResult:
    arguments: dict[str, Any] = {
        "cost_model": problem.prices,
        "quality_estimator": problem,
        "budget": LIMIT,
        "journal": MemoryJournal(),
        "evaluations": 40,
        "batch": 8,
    }
    return search(problem.space, engine, **{**arguments, **changes})


def build(problem: AdditiveProblem, name: str = "random", **options: Any) -> Any:
    return engines.build(name, problem.space, options, RandomStreams(3))


def test_exhaustive_search_finds_the_exact_front() -> None:
    problem = AdditiveProblem(FlatSpace(3, 4))
    result = run(problem, build(problem, "exhaustive"), evaluations=1000)
    inside = [one for one in problem.space.all() if not LIMIT.violations(problem.cost(one))]
    points = {
        one.digest: (problem.cost(one).latency_ms, problem.cost(one).peak_memory_mb, -problem.estimate(one).score)
        for one in inside
    }
    exact = {
        digest for digest, point in points.items() if not any(dominates(other, point) for other in points.values())
    }
    assert result.stopped == "exhausted"
    assert {member.architecture.digest for member in result.front.members} == exact
    assert result.complete == len(inside)
    assert result.complete + result.screened == problem.space.count()


def test_screened_candidates_are_kept_and_never_judged() -> None:
    problem = AdditiveProblem()
    result = run(problem, build(problem))
    screened = [one for one in result.evaluations if one.state == "screened"]
    assert screened
    assert all(one.cost.latency_interval_ms.high > 190.0 and one.quality is None for one in screened)
    assert not {one.architecture.digest for one in screened} & set(problem.judged)
    assert result.complete == len(problem.judged) == 40


def test_candidate_that_no_compute_unit_runs_is_screened_unpaid_with_the_reason(tmp_path: Path) -> None:
    problem = AdditiveProblem(stuck=frozenset({(0, 1), (2, 3)}))
    journal = Journal(tmp_path / "evaluations.jsonl")
    result = run(problem, build(problem), budget=Budget(), journal=journal)
    stuck = [one for one in journal.read() if one.state == "screened"]
    assert stuck
    assert {one.violations[0].limit for one in stuck} == {"placement"}
    assert {one.violations[0].reason for one in stuck} <= {
        "slot0 on cpu: option 1 is stuck (test)",
        "slot2 on cpu: option 3 is stuck (test)",
    }
    assert not {one.architecture.digest for one in stuck} & set(problem.judged)
    assert result.complete == 40


def test_when_nothing_runs_the_error_says_which_block_and_why() -> None:
    problem = AdditiveProblem(stuck=frozenset((0, option) for option in range(5)))
    with pytest.raises(
        BudgetError, match="placement: 1 blocks run on no allowed compute unit, first slot0 on cpu"
    ) as e:
        run(problem, build(problem), budget=Budget(), patience=50)
    assert "choose other compute units" in (e.value.hint or "")


def test_budget_is_held_against_the_upper_end_of_the_interval() -> None:
    problem = AdditiveProblem(margin=1.5)
    result = run(problem, build(problem), evaluations=5)
    assert all(one.cost.latency_ms * 1.5 <= 190.0 for one in result.front.members)


def test_duplicates_are_never_judged_twice() -> None:
    problem = AdditiveProblem(FlatSpace(2, 4))
    result = run(problem, build(problem), budget=Budget(), evaluations=100, patience=500)
    assert result.stopped == "patience"
    assert sorted(problem.judged) == sorted(set(problem.judged))
    assert result.complete == 16
    assert result.duplicates >= 500


def test_duplicates_inside_one_batch_and_of_earlier_ones_are_dropped() -> None:
    problem = AdditiveProblem()
    engine = ScriptedEngine(problem.space, [[0] * 4, [0] * 4, [1, 0, 0, 0], [0] * 4, [0, 1, 0, 0]])
    result = run(problem, engine, batch=2, budget=Budget())
    assert [problem.space.to_options(one.architecture) for one in result.evaluations] == [
        (0, 0, 0, 0),
        (1, 0, 0, 0),
        (0, 1, 0, 0),
    ]
    assert result.duplicates == 2


def test_journal_holds_a_batch_before_it_is_told() -> None:
    problem = AdditiveProblem()
    journal = MemoryJournal()

    class Watching(ScriptedEngine):
        def tell(self, evaluations: Sequence[Evaluation]) -> None:
            assert journal.records[-len(evaluations) :] == list(evaluations)
            super().tell(evaluations)

    engine = Watching(problem.space, [[option, 0, 0, 0] for option in range(5)])
    run(problem, engine, journal=journal, batch=2)
    assert sum(map(len, engine.told)) == 5


def test_batch_ends_after_a_bounded_number_of_draws_so_that_engines_learn_what_does_not_fit() -> None:
    problem = AdditiveProblem(FlatSpace(4, 5))
    engine = build(problem)
    told = []
    original = engine.tell
    engine.tell = lambda evaluations: told.append(len(evaluations)) or original(evaluations)
    with pytest.raises(BudgetError):
        run(problem, engine, budget=Budget(latency_ms=50.0), batch=4)
    assert max(told) <= 4 * DRAWS_PER_CANDIDATE


def test_impossible_budget_ends_with_the_nearest_miss() -> None:
    problem = AdditiveProblem(FlatSpace(4, 5))
    journal = MemoryJournal()
    with pytest.raises(BudgetError, match="nearest miss") as caught:
        run(problem, build(problem), budget=Budget(latency_ms=55.0, peak_memory_mb=50.0), journal=journal)
    cheapest = problem.space.from_options([0, 0, 0, 0])  # 110 ms and 55 MB at the upper ends: 100 % and 10 % over
    assert caught.value.exit_code == 4
    assert cheapest.digest in caught.value.message
    assert "latency_ms: 110 ms, the upper end of its 90% interval, against 55 ms allowed, 100% over" in str(
        caught.value
    )
    assert "peak_memory_mb: 55 MB" in caught.value.message
    assert [problem.path for problem in caught.value.problems] == ["budget.latency_ms", "budget.peak_memory_mb"]
    assert "the binding limit is latency_ms: allow at least 110 ms" in str(caught.value.hint)
    assert problem.judged == []
    assert 400 <= len(journal.records) <= problem.space.count()


def test_failures_are_recorded_and_the_search_goes_on() -> None:
    space = FlatSpace()
    broken = frozenset({space.from_options([0] * 4).digest})
    problem = AdditiveProblem(space, failing=broken)
    result = run(problem, build(problem), evaluations=10)
    failed = [one for one in result.evaluations if one.state == "failed"]
    assert [one.architecture.digest for one in failed] == list(broken)
    assert str(failed[0].error).startswith("TrainingError: loss is not a number")
    assert (result.complete, result.failed) == (9, 1)


def test_when_every_estimate_fails_the_first_error_is_shown() -> None:
    space = FlatSpace(2, 3)
    problem = AdditiveProblem(space, failing=frozenset(one.digest for one in space.all()))
    with pytest.raises(NasError, match="any of 9 candidates; first: TrainingError: loss is not a number"):
        run(problem, build(problem, "exhaustive"), budget=Budget())


def test_a_bug_in_an_estimator_is_raised() -> None:
    problem = AdditiveProblem()

    class Buggy(AdditiveProblem):
        def estimate(self, architecture: Any) -> Any:  # noqa: ARG002  # the protocol's
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(problem, build(problem), quality_estimator=Buggy())


def test_lost_workers_are_failures() -> None:
    problem = AdditiveProblem()

    class LosingExecutor(SerialExecutor):
        def wait(self) -> list[tuple[Any, Any]]:
            ((key, result),) = super().wait()
            return [(key, WorkerFailure(message="the worker died") if len(problem.judged) == 2 else result)]

    result = run(problem, build(problem), evaluations=8, executor=LosingExecutor(together_s=0.0))
    assert [one.error for one in result.evaluations if one.state == "failed"] == ["the worker died"]


def test_architectures_of_another_space_are_refused() -> None:
    problem = AdditiveProblem(FlatSpace(4, 5))
    with pytest.raises(ArchitectureError):
        run(problem, ScriptedEngine(FlatSpace(3, 5), [[0, 0, 0]]))


class BackwardsExecutor(SerialExecutor):
    """Finishes the latest item first, as one of many workers might, and ``together`` at a time."""

    def __init__(self, together: int = 1) -> None:
        super().__init__(together_s=0.0)
        self.together = together

    def wait(self) -> list[tuple[Any, Any]]:
        finished = []
        for _ in range(min(self.together, len(self._queue))):
            self._queue.rotate(1)
            finished += super().wait()
        return finished

    def room(self, resources: Any = None) -> int:  # noqa: ARG002  # the protocol's
        return 5 - len(self._queue)


def test_journal_does_not_depend_on_the_order_workers_finish_in() -> None:
    problem = AdditiveProblem()
    results = [run(problem, build(problem, "optuna", population=10), executor=executor) for executor in
               (SerialExecutor(), BackwardsExecutor(3))]  # fmt: skip
    assert without_times(results[0].evaluations) == without_times(results[1].evaluations)


ENGINES: list[tuple[str, dict[str, Any]]] = [
    ("random", {}),
    ("exhaustive", {}),
    ("optuna", {"sampler": "nsga2", "population": 5}),
    ("optuna", {"sampler": "nsga3", "population": 5}),
    ("optuna", {"sampler": "random"}),
    ("optuna", {"sampler": "qmc"}),
]


@pytest.mark.parametrize(("name", "options"), ENGINES)
def test_search_killed_after_any_record_ends_as_if_it_was_not(name: str, options: dict[str, Any]) -> None:
    problem = AdditiveProblem(FlatSpace(3, 5))
    limit, evaluations = Budget(latency_ms=190.0), 14
    whole = MemoryJournal()
    expected = run(
        problem, build(problem, name, **options), journal=whole, budget=limit, evaluations=evaluations, batch=4
    )
    for capacity in range(len(whole.records)):
        journal = MemoryJournal(capacity=capacity)
        with pytest.raises(KeyboardInterrupt):
            run(
                problem,
                build(problem, name, **options),
                journal=journal,
                budget=limit,
                evaluations=evaluations,
                batch=4,
            )
        journal.capacity = None
        result = run(
            problem, build(problem, name, **options), journal=journal, budget=limit, evaluations=evaluations, batch=4
        )
        assert without_times(journal.records) == without_times(whole.records), f"killed after {capacity}"
        assert result.front.points() == expected.front.points()


def test_search_killed_again_and_again_ends_as_if_it_was_not() -> None:
    problem = AdditiveProblem()
    options = {"sampler": "nsga2", "population": 10}
    whole, torn = MemoryJournal(), MemoryJournal()
    run(problem, build(problem, "optuna", **options), journal=whole)
    paid = len(problem.judged)
    problem.judged.clear()
    for capacity in range(0, len(whole.records), 3):
        torn.capacity = capacity
        with pytest.raises(KeyboardInterrupt):
            run(problem, build(problem, "optuna", **options), journal=torn, executor=SerialExecutor(together_s=0.0))
    torn.capacity = None
    run(problem, build(problem, "optuna", **options), journal=torn)
    assert without_times(torn.records) == without_times(whole.records)
    killed = len(range(0, len(whole.records), 3))
    assert len(problem.judged) <= paid + killed  # each kill loses at most the candidate in work


def test_search_goes_on_from_a_file_with_a_torn_line(tmp_path: Path) -> None:
    problem = AdditiveProblem()
    options = {"sampler": "nsga2", "population": 10}
    whole = Journal(tmp_path / "whole.jsonl")
    run(problem, build(problem, "optuna", **options), journal=whole)
    data = whole.path.read_bytes()
    for share in (0.1, 0.37, 0.73, 0.995):
        torn = Journal(tmp_path / f"torn-{share}.jsonl")
        torn.path.write_bytes(data[: int(len(data) * share)])
        run(problem, build(problem, "optuna", **options), journal=torn)
        assert without_times(torn.read()) == without_times(whole.read())


def test_finished_search_is_repeated_without_judging_anything() -> None:
    problem = AdditiveProblem()
    journal = MemoryJournal()
    first = run(problem, build(problem), journal=journal)
    problem.judged.clear()
    again = run(problem, build(problem), journal=journal)
    assert problem.judged == []
    assert again.evaluations == first.evaluations


def test_more_evaluations_go_on_with_a_finished_search() -> None:
    problem = AdditiveProblem()
    journal = MemoryJournal()
    first = run(problem, build(problem), journal=journal, evaluations=20)
    longer = run(problem, build(problem), journal=journal, evaluations=33)
    assert longer.evaluations[: len(first.evaluations)] == first.evaluations
    assert longer.complete == 33


def test_fewer_evaluations_than_the_journal_holds_change_nothing() -> None:
    problem = AdditiveProblem()
    journal = MemoryJournal()
    first = run(problem, build(problem), journal=journal)
    shorter = run(problem, build(problem), journal=journal, evaluations=3)
    assert shorter.evaluations == first.evaluations


def test_journal_of_another_seed_is_refused() -> None:
    problem = AdditiveProblem()
    journal = MemoryJournal()
    run(problem, build(problem), journal=journal)
    other = engines.build("random", problem.space, {}, RandomStreams(4))
    with pytest.raises(InputError, match=r"the engine now proposes .* written with other settings"):
        run(problem, other, journal=journal, evaluations=50)


@dataclass(frozen=True)
class Counted:
    """The problem's prices, and whose were asked for."""

    problem: AdditiveProblem
    priced: list[str] = field(default_factory=list)

    def estimate(self, architecture: Architecture) -> CostEstimate:
        self.priced.append(architecture.digest)
        return self.problem.cost(architecture)


@dataclass(frozen=True)
class Repriced:
    """The problem's prices after another calibration."""

    problem: AdditiveProblem
    changes: dict[str, Any]

    def estimate(self, architecture: Architecture) -> CostEstimate:
        return replace(self.problem.cost(architecture), **self.changes)


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"latency_ms": 123.25}, r"latency_ms was .* and is 123\.25"),
        ({"latency_interval_ms": Interval(low=1.0, high=151.5, coverage=0.9)}, r"upper end of latency_ms .* 151\.5"),
        ({"memory_interval_mb": Interval(low=1.0, high=80.0, coverage=0.9)}, "upper end of peak_memory_mb .* is 80"),
        ({"predictor": "other"}, "predictor was 'test' and is 'other'"),
        ({"device": "other"}, "device was 'test' and is 'other'"),
        ({"scenario": "other"}, "scenario was 'test' and is 'other'"),
    ],
)
def test_journal_of_another_calibration_is_refused_before_the_engine_learns_from_it(
    tmp_path: Path, changes: dict[str, Any], difference: str
) -> None:
    problem = AdditiveProblem()
    journal = Journal(tmp_path / "evaluations.jsonl")
    run(problem, build(problem), journal=journal, evaluations=12)
    before = journal.path.read_bytes()
    engine = ScriptedEngine(problem.space, [])
    with pytest.raises(InputError, match=rf"evaluations\.jsonl: evaluation 0 was priced .*{difference}") as caught:
        run(problem, engine, journal=journal, cost_model=Repriced(problem, changes))
    assert caught.value.hint == "start the search afresh: nas search RUN --force"
    assert engine.told == []
    assert journal.path.read_bytes() == before


def test_of_a_long_journal_a_sample_is_priced_again() -> None:
    problem = AdditiveProblem(FlatSpace(num_slots=6))
    journal = MemoryJournal()
    run(problem, build(problem), journal=journal, evaluations=1800, batch=100)
    prices = Counted(problem)
    run(problem, build(problem), journal=journal, evaluations=1800, batch=100, cost_model=prices)
    assert len(prices.priced) < 1500  # the sample, and the last batch, which is asked again
    assert {one.architecture.digest for one in (journal.records[0], journal.records[-1])} <= set(prices.priced)
    with pytest.raises(InputError, match="evaluation 0 was priced with another calibration"):
        run(problem, build(problem), journal=journal, cost_model=Repriced(problem, {"latency_ms": 1.0}))


def test_journal_of_another_budget_is_refused() -> None:
    problem = AdditiveProblem()
    journal = MemoryJournal()
    run(problem, build(problem), journal=journal, evaluations=12)
    with pytest.raises(InputError, match=r"the journal: evaluation .*: whether it is inside the budget"):
        run(problem, build(problem), journal=journal, budget=Budget(latency_ms=1.0))


def test_journal_without_batches_is_refused() -> None:
    problem = AdditiveProblem()
    journal = MemoryJournal()
    run(problem, build(problem), journal=journal)
    bare = [one.__class__(**{**fields_of(one), "proposal": Proposal(architecture=one.architecture)}) for one in
            journal.records]  # fmt: skip
    with pytest.raises(InputError, match="evaluation 0 of the journal has no 'batch'"):
        run(problem, build(problem), journal=MemoryJournal(bare))


def fields_of(evaluation: Evaluation) -> dict[str, Any]:
    return {name: getattr(evaluation, name) for name in evaluation.__slots__}


@pytest.mark.parametrize("name", ["evaluations", "batch", "patience"])
def test_counts_below_one_are_refused(name: str) -> None:
    problem = AdditiveProblem()
    with pytest.raises(ValueError, match=f"search.{name} must be at least 1, got 0"):
        run(problem, build(problem), **{name: 0})


def test_progress_counts_paid_evaluations_to_the_end() -> None:
    problem = AdditiveProblem()
    seen = []

    class Listening:
        def update(self, done: int, total: int, message: str = "") -> None:
            seen.append((done, total, message))

    run(problem, build(problem), evaluations=12, progress=Listening())
    assert [done for done, _, _ in seen] == list(range(1, 13))
    assert all(total == 12 and "quality" in message for _, total, message in seen)


def test_progress_of_a_resumed_search_begins_where_it_was() -> None:
    problem = AdditiveProblem()
    journal = MemoryJournal()
    run(problem, build(problem), journal=journal, evaluations=12)
    seen = []

    class Listening:
        def update(self, done: int, total: int, message: str = "") -> None:  # noqa: ARG002  # the protocol's
            seen.append(done)

    run(problem, build(problem), journal=journal, evaluations=15, progress=Listening())
    assert seen == [12, 13, 14, 15]


def test_front_of_the_result_is_that_of_its_evaluations() -> None:
    problem = AdditiveProblem()
    result = run(problem, build(problem))
    points = [objectives(one) for one in result.evaluations if one.state == "complete"]
    front = set(result.front.points())
    assert front == {point for point in points if not any(dominates(other, point) for other in points)}
