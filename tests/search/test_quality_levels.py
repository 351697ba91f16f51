from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
from problem import AdditiveProblem, MemoryJournal, without_times

from nas.core.cost import Budget
from nas.core.errors import InputError, NasError
from nas.core.evaluation import Evaluation, Proposal, Quality
from nas.core.pareto import ParetoFront
from nas.core.schema import from_data, to_data
from nas.search import SearchResult, search
from nas.search.judging import QualityLevel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nas.core.architecture import Architecture

NO_LIMIT = Budget()


@dataclass
class Shifted:
    """Another estimator of the same problem: its scores are far higher, so that mixing them would be seen."""

    problem: AdditiveProblem
    name: str = "cheap"
    fidelity: str = "shifted"

    def estimate(self, architecture: Architecture) -> Quality:
        quality = self.problem.estimate(architecture)
        return replace(quality, score=quality.score + 100.0, estimator=self.name)


class Told:
    """A progress that remembers how far it was told to be."""

    def __init__(self) -> None:
        self.done: list[int] = []

    def update(self, done: int, total: int, message: str = "") -> None:
        assert done <= total, message
        self.done.append(done)


class LevelScript:
    """Proposes (options, level) pairs in order; started afresh it skips what it is told."""

    def __init__(self, problem: AdditiveProblem, script: Sequence[tuple[Sequence[int], int | None]]) -> None:
        self.problem = problem
        self.script = list(script)
        self.place = 0

    def ask(self, count: int) -> list[Proposal]:
        taken = self.script[self.place : self.place + count]
        self.place += len(taken)
        return [
            Proposal(architecture=self.problem.space.from_options(options), level=level) for options, level in taken
        ]

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        self.place = max(self.place, evaluations[-1].number + 1) if evaluations else self.place


def run(problem: AdditiveProblem, script: Sequence[tuple[Sequence[int], int | None]], **changes: Any) -> SearchResult:
    arguments: dict[str, Any] = {
        "cost_model": problem.prices,
        "quality_estimator": levels(problem),
        "budget": NO_LIMIT,
        "journal": MemoryJournal(),
        "evaluations": 10,
        "batch": 4,
    }
    return search(problem.space, LevelScript(problem, script), **{**arguments, **changes})


def levels(problem: AdditiveProblem, *prices: float) -> list[QualityLevel]:
    lower = [QualityLevel(estimator=Shifted(problem), price=price) for price in prices or (0.25,)]
    return [*lower, QualityLevel(estimator=problem)]


def designs(count: int) -> list[tuple[int, int, int, int]]:
    return [(index % 5, index // 5, 0, 0) for index in range(count)]


def test_front_holds_the_highest_level_only() -> None:
    problem = AdditiveProblem()
    result = run(problem, [((0, 0, 0, 0), None), ((1, 1, 1, 1), 0), ((2, 2, 2, 2), 0)])

    assert [member.architecture for member in result.front.members] == [problem.space.from_options((0, 0, 0, 0))]
    assert (result.complete, result.judged_below) == (1, 2)


def test_lower_levels_count_their_price() -> None:
    problem = AdditiveProblem()
    script = [(options, 0) for options in designs(20)]
    result = run(problem, [((4, 4, 4, 4), None), *script], evaluations=3)

    assert result.judged_below == 8
    assert result.stopped == "evaluations"


def test_prices_that_no_float_holds_add_up() -> None:
    problem = AdditiveProblem()
    script = [((4, 4, 4, 4), None), *((options, 0) for options in designs(25))]
    result = run(problem, script, evaluations=2, quality_estimator=levels(problem, 0.05))

    assert result.judged_below == 20


def test_search_ends_less_than_one_price_over_what_it_may_pay() -> None:
    problem = AdditiveProblem()
    script = [((4, 4, 4, 4), 0), *((options, None) for options in designs(20))]
    progress = Told()
    result = run(problem, script, evaluations=2, batch=16, progress=progress)

    assert (result.complete, result.judged_below) == (2, 1)
    assert progress.done == [0, 1, 2]


def test_same_architecture_at_two_levels_is_no_duplicate() -> None:
    problem = AdditiveProblem()
    first = (1, 0, 0, 0)
    result = run(problem, [(first, 0), (first, None), (first, 0), (first, 1), (first, None)])

    assert [record.proposal.level for record in result.evaluations] == [0, None]
    assert result.duplicates == 3


def test_level_equal_to_the_highest_is_written_as_none() -> None:
    problem = AdditiveProblem()
    result = run(problem, [((1, 0, 0, 0), 1)])

    assert [record.proposal.level for record in result.evaluations] == [None]


def test_level_out_of_range_is_named() -> None:
    with pytest.raises(ValueError, match="quality level 2, there are levels 0 to 1"):
        run(AdditiveProblem(), [((1, 0, 0, 0), 2)])


def test_infeasible_candidates_cost_nothing_at_any_level() -> None:
    problem = AdditiveProblem()
    script = [((0, 0, 0, 0), None), ((4, 4, 4, 4), 0), ((4, 4, 4, 4), None)]
    result = run(problem, script, budget=Budget(latency_ms=115.0))

    assert [record.state for record in result.evaluations] == ["complete", "screened", "screened"]
    assert len(problem.judged) == 1


def test_nothing_at_the_highest_level_is_an_error() -> None:
    with pytest.raises(NasError, match="no candidate was judged at the highest level of quality, 3 at lower ones"):
        run(AdditiveProblem(), [(options, 0) for options in designs(3)])


@pytest.mark.parametrize("prices", [(0.5, 0.5), (0.5, 0.2), (1.0,)])
def test_prices_must_rise_to_one(prices: tuple[float, ...]) -> None:
    problem = AdditiveProblem()
    with pytest.raises(ValueError, match="must rise to 1"):
        run(problem, [((0, 0, 0, 0), None)], quality_estimator=levels(problem, *prices))


def test_killed_anywhere_it_resumes_to_the_same_journal() -> None:
    script = [(options, None if index % 3 == 0 else 0) for index, options in enumerate(designs(20))]
    whole = run(AdditiveProblem(), script).evaluations
    for kept in range(1, len(whole)):
        journal = MemoryJournal(capacity=kept)
        with pytest.raises(KeyboardInterrupt):
            run(AdditiveProblem(), script, journal=journal)
        problem = AdditiveProblem()
        result = run(problem, script, journal=MemoryJournal(journal.records))

        assert without_times(result.evaluations) == without_times(whole)
        assert len(problem.judged) == len(whole) - kept


def test_another_level_in_the_journal_is_refused() -> None:
    problem = AdditiveProblem()
    journal = MemoryJournal()
    run(problem, [((1, 0, 0, 0), 0), ((0, 0, 0, 0), None)], journal=journal, batch=8)

    with pytest.raises(InputError, match="at level 0, but the engine now proposes"):
        run(problem, [((1, 0, 0, 0), None), ((0, 0, 0, 0), None)], journal=journal, batch=8, evaluations=20)


def test_journal_without_levels_reads_as_the_highest() -> None:
    problem = AdditiveProblem()
    data = to_data(run(problem, [((1, 0, 0, 0), None)]).evaluations[0])
    del data["proposal"]["level"]
    record = from_data(Evaluation, data)

    assert record.at_highest_level
    assert len(ParetoFront.of([record])) == 1
