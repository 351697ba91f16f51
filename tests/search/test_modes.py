"""Work that finishes out of turn, and the asynchronous mode: wherever they are killed, nothing is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problem import AdditiveProblem, FlatSpace, MemoryJournal, without_times

from nas.core.cost import Budget
from nas.core.errors import BudgetError, InputError, NasError
from nas.core.evaluation import Proposal
from nas.core.resources import Resources
from nas.core.rng import RandomStreams
from nas.runs.journal import Journal
from nas.runs.outcomes import Outcomes
from nas.search import engines, search
from nas.search.executors.serial import SerialExecutor
from nas.search.judging import MOST_WAITING, QualityLevel

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from nas.core.evaluation import Evaluation, FinishedOutcome
    from nas.search import SearchResult

LIMIT = Budget(latency_ms=190.0)
STRUCTURED = ("evolving", "model_based", "regularised")
ENGINES: list[tuple[str, dict[str, Any]]] = [
    ("random", {}),
    ("exhaustive", {}),
    ("optuna", {"sampler": "nsga2", "population": 5}),
    ("optuna", {"sampler": "tpe"}),
    ("evolving", {}),
    ("regularised", {"population": 8, "tournament": 3}),
    ("model_based", {"start": 6}),
]


class MixingExecutor(SerialExecutor):
    """Several workers that finish in an order drawn from ``order``, and a process that is killed after ``waits``."""

    def __init__(self, workers: int = 3, order: Sequence[int] = (2, 0, 1, 1), waits: int | None = None) -> None:
        super().__init__(together_s=0.0)
        self.workers = workers
        self.order = order
        self.waits = waits
        self.done = 0

    def wait(self) -> list[tuple[Any, Any]]:
        if self.done == self.waits:
            raise KeyboardInterrupt
        self._queue.rotate(-self.order[self.done % len(self.order)])
        self.done += 1
        return super().wait()

    def room(self, resources: Any = None) -> int:  # noqa: ARG002  # the protocol's
        return self.workers - len(self._queue)


class MemoryOutcomes:
    def __init__(self) -> None:
        self.outcomes: list[FinishedOutcome] = []

    def append(self, outcomes: Sequence[FinishedOutcome]) -> None:
        self.outcomes.extend(outcomes)

    def read(self) -> list[FinishedOutcome]:
        return list(self.outcomes)

    def clear(self) -> None:
        self.outcomes.clear()


def build(problem: AdditiveProblem, name: str, options: dict[str, Any], budget: Budget = LIMIT) -> Any:
    costs = problem.costs if name in STRUCTURED else None
    return engines.build(name, problem.space, options, RandomStreams(3), costs=costs, budget=budget)


def run(problem: AdditiveProblem, name: str = "random", options: Any = None, **changes: Any) -> SearchResult:
    arguments: dict[str, Any] = {
        "cost_model": problem.prices,
        "quality_estimator": problem,
        "budget": LIMIT,
        "journal": MemoryJournal(),
        "evaluations": 24,
        "batch": 8,
        "executor": MixingExecutor(),
    }
    arguments |= changes
    return search(problem.space, build(problem, name, options or {}, arguments["budget"]), **arguments)


@settings(deadline=None, max_examples=25)
@given(order=st.lists(st.integers(0, 7), min_size=1, max_size=6), kills=st.lists(st.integers(0, 9), max_size=4))
def test_synchronous_search_killed_with_work_out_of_turn_judges_nothing_twice(
    order: list[int], kills: list[int]
) -> None:
    expected = run(AdditiveProblem(), executor=SerialExecutor())
    problem, journal, outcomes = AdditiveProblem(), MemoryJournal(), MemoryOutcomes()
    for waits in [*kills, None]:
        executor = MixingExecutor(8, order, waits)
        try:
            run(problem, journal=journal, outcomes=outcomes, executor=executor)
        except KeyboardInterrupt:
            continue
    assert without_times(journal.records) == without_times(expected.evaluations)
    assert len(problem.judged) == len(set(problem.judged)) == 24
    assert outcomes.outcomes == []


def test_what_finishes_out_of_turn_is_on_disk_at_once(tmp_path: Path) -> None:
    problem, journal = AdditiveProblem(), Journal(tmp_path / "evaluations.jsonl")
    outcomes = Outcomes(tmp_path / "outcomes.jsonl")
    with pytest.raises(KeyboardInterrupt):
        run(problem, journal=journal, outcomes=outcomes, executor=MixingExecutor(8, (5, 4, 3), 3))
    kept = {item.digest for item in outcomes.read()}
    assert len(kept) == 3
    assert kept == set(problem.judged)
    assert not kept & {record.architecture.digest for record in journal.read()}


def test_what_finishes_together_is_kept_before_the_journal_is_written() -> None:
    class Together(SerialExecutor):
        def wait(self) -> list[tuple[Any, Any]]:
            first, _, third = (super(Together, self).wait() for _ in range(3))
            return [*first, *third]

    class Killed(MemoryJournal):
        def append(self, records: Sequence[Any]) -> None:  # noqa: ARG002  # the protocol's
            raise KeyboardInterrupt

    outcomes = MemoryOutcomes()
    with pytest.raises(KeyboardInterrupt):
        run(AdditiveProblem(), journal=Killed(), outcomes=outcomes, executor=Together(together_s=0.0))
    assert len(outcomes.outcomes) == 1


def test_without_a_place_for_outcomes_the_search_still_ends_the_same() -> None:
    expected, journal = run(AdditiveProblem(), executor=SerialExecutor()), MemoryJournal()
    with pytest.raises(KeyboardInterrupt):
        run(AdditiveProblem(), journal=journal, executor=MixingExecutor(8, (5, 4, 3), 3))
    assert without_times(run(AdditiveProblem(), journal=journal).evaluations) == without_times(expected.evaluations)


def asynchronously(problem: AdditiveProblem, name: str = "random", options: Any = None, **changes: Any) -> Any:
    return run(problem, name, options, mode="asynchronous", **changes)


def exact_front(problem: AdditiveProblem) -> Any:
    return run(AdditiveProblem(problem.space), "exhaustive", budget=LIMIT, evaluations=1000).front.points()


@pytest.mark.parametrize(("name", "options"), ENGINES)
def test_asynchronous_search_pays_for_all_evaluations_and_repeats_none(name: str, options: dict[str, Any]) -> None:
    problem = AdditiveProblem(FlatSpace(4, 5))
    result = asynchronously(problem, name, options)
    assert result.stopped == "evaluations"
    assert result.complete == len(problem.judged) == len(set(problem.judged)) == 24
    if name not in ("random",):  # the others never propose what they wait for
        assert result.duplicates == 0
    assert [record.number for record in result.evaluations] == list(range(len(result.evaluations)))


@pytest.mark.parametrize(("name", "options"), ENGINES)
def test_asynchronous_search_killed_anywhere_loses_only_what_was_running(name: str, options: dict[str, Any]) -> None:
    problem, journal = AdditiveProblem(FlatSpace(4, 5)), MemoryJournal()
    for _ in range(4):
        before = list(journal.records)
        with pytest.raises(KeyboardInterrupt):
            asynchronously(problem, name, options, journal=journal, executor=MixingExecutor(waits=5))
        assert journal.records[: len(before)] == before
        assert sum(record.state == "complete" for record in journal.records) == len(problem.judged)
    result = asynchronously(problem, name, options, journal=journal)
    assert result.complete == len(problem.judged) == len(set(problem.judged)) == 24
    assert result.evaluations == tuple(journal.records)


@pytest.mark.parametrize("name", ["exhaustive", "optuna", "model_based"])
def test_asynchronous_search_of_a_whole_space_finds_its_front(name: str) -> None:
    problem = AdditiveProblem(FlatSpace(2, 5))
    result = asynchronously(problem, name, evaluations=1000)
    assert set(result.front.points()) == set(exact_front(problem))


def test_free_worker_gets_the_next_candidate_before_the_slow_one_ends() -> None:
    problem = AdditiveProblem()

    class OneIsSlow(MixingExecutor):
        """The first item ends only when nothing else is left."""

        def wait(self) -> list[tuple[Any, Any]]:
            if len(self._queue) > 1 and self._queue[0][0][1] == 0:
                self._queue.rotate(-1)
                finished = SerialExecutor.wait(self)
                self._queue.rotate(1)
                return finished
            return SerialExecutor.wait(self)

    result = asynchronously(problem, executor=OneIsSlow(2))
    judged = [record for record in result.evaluations if record.state == "complete"]
    assert judged[-1].proposal.note["asked"] == 0
    assert len(judged) == 24


class TwoKinds(SerialExecutor):
    """One place for tasks with a GPU and two for others; ``finish`` says which kind ends next."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds: list[Resources | None] = []
        self.most: dict[Resources | None, int] = {}

    def submit(self, key: Any, function: Any, item: Any, resources: Resources | None = None) -> None:
        super().submit(key, function, item)
        self.kinds.append(resources)
        self.most[resources] = max(self.most.get(resources, 0), self.kinds.count(resources))

    def wait(self) -> list[tuple[Any, Any]]:
        place = next((at for at, kind in enumerate(self.kinds) if kind is None), 0)  # trainings are slow
        self._queue.rotate(-place)
        del self.kinds[place]
        key, function, item = self._queue.popleft()
        self._queue.rotate(place)
        return [(key, function(item))]

    def room(self, resources: Resources | None = None) -> int:
        return (2 if resources is None else 1) - self.kinds.count(resources)


class EveryThirdTrained:
    """Proposes the space in order, every third architecture for the dear level."""

    def __init__(self, space: FlatSpace) -> None:
        self.script = [Proposal(architecture=one, level=0 if at % 3 else None) for at, one in enumerate(space.all())]

    def ask(self, count: int) -> list[Proposal]:
        taken, self.script = self.script[:count], self.script[count:]
        return taken

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Learn nothing."""


def test_cheap_scores_go_on_while_some_trainings_wait() -> None:
    problem, executor = AdditiveProblem(FlatSpace(3, 5)), TwoKinds()
    gpu = Resources(gpus=1)
    result = search(
        problem.space,
        EveryThirdTrained(problem.space),
        cost_model=problem.prices,
        quality_estimator=[
            QualityLevel(estimator=problem, price=0.1),
            QualityLevel(estimator=problem, resources=gpu),
        ],
        budget=Budget(),
        journal=MemoryJournal(),
        evaluations=1000,
        executor=executor,
        mode="asynchronous",
    )
    scored_before_first_training = [one.at_highest_level for one in result.evaluations].index(True)
    assert scored_before_first_training >= 2 * MOST_WAITING
    assert MOST_WAITING <= executor.most[gpu] <= MOST_WAITING + 2
    assert (result.stopped, len(result.evaluations)) == ("exhausted", problem.space.count())


def test_engine_is_told_in_the_order_of_the_asking_when_the_search_goes_on() -> None:
    problem, journal = AdditiveProblem(), MemoryJournal()
    asynchronously(problem, journal=journal)
    asked = [record.proposal.note["asked"] for record in journal.records]
    assert asked != sorted(asked)
    engine, told = build(problem, "random", {}), []
    engine.tell = lambda evaluations: told.extend(one.proposal.note["asked"] for one in evaluations)
    search(
        problem.space,
        engine,
        cost_model=problem.prices,
        quality_estimator=problem,
        budget=LIMIT,
        journal=journal,
        evaluations=24,
        mode="asynchronous",
    )
    assert told == sorted(asked)


def test_asynchronous_search_with_an_impossible_budget_ends_with_the_nearest_miss() -> None:
    with pytest.raises(BudgetError, match="nearest miss"):
        asynchronously(AdditiveProblem(), budget=Budget(latency_ms=55.0), patience=50)


def test_asynchronous_search_where_every_estimate_fails_shows_the_first_error() -> None:
    space = FlatSpace(2, 3)
    problem = AdditiveProblem(space, failing=frozenset(one.digest for one in space.all()))
    with pytest.raises(NasError, match="any of 9 candidates; first: TrainingError: loss is not a number"):
        asynchronously(problem, "exhaustive", budget=Budget(), evaluations=100)


@pytest.mark.parametrize(("first", "second"), [("synchronous", "asynchronous"), ("asynchronous", "synchronous")])
def test_journal_of_the_other_mode_is_refused(first: str, second: str) -> None:
    journal = MemoryJournal()
    run(AdditiveProblem(), journal=journal, mode=first)
    with pytest.raises(InputError, match="cannot be resumed") as caught:
        run(AdditiveProblem(), journal=journal, mode=second, evaluations=30)
    assert "search.mode" in str(caught.value.hint)


def test_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match=r"search\.mode must be one of synchronous, asynchronous, got 'parallel'"):
        run(AdditiveProblem(), mode="parallel")
