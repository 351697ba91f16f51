from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from problem import AdditiveProblem, FlatSpace, MemoryJournal, without_times

from nas.core.cost import Budget
from nas.core.errors import InputError
from nas.core.rng import RandomStreams
from nas.search import engines, search
from nas.search.engines.warm import WarmStarted, good_designs
from nas.search.sensitivities import read_sensitivities

if TYPE_CHECKING:
    from pathlib import Path

    from nas.search import SearchResult
    from nas.search.exact import SlotSum

SPACE = FlatSpace(num_slots=3, num_options=4)
JSON = '{"schema": "nas/sensitivities/1", "space": "flat/1", "changes": [%s]}'


def read(folder: Path, text: str, name: str = "known.csv") -> SlotSum:
    (folder / name).write_text(text)
    return read_sensitivities(folder / name, SPACE)


def test_options_and_kinds_become_a_table(tmp_path: Path) -> None:
    table = read(tmp_path, "slot,kind,option,change\nslot00,,1,0.5\nslot00,,3,1.5\nslot02,2,,-1\n")

    assert [row.tolist() for row in table.slots] == [[0, 0.5, 1.0, 1.5], [0, 0, 0, 0], [0, -1, -1, -1]]


def test_an_options_own_line_goes_before_its_kinds(tmp_path: Path) -> None:
    table = read(tmp_path, "slot,kind,option,change\nslot00,,1,0.5\nslot00,1,,9\n")

    assert table.slots[0][1] == 0.5


def test_json_says_the_same_as_csv(tmp_path: Path) -> None:
    csv = read(tmp_path, "slot,option,change\nslot01,2,0.25\n")
    json = read(tmp_path, JSON % '{"slot": "slot01", "option": 2, "change": 0.25}', "known.json")

    assert all(np.array_equal(one, other) for one, other in zip(csv.slots, json.slots, strict=True))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slot,option,change\nslot0,1,1\n", "line 2: unknown slot 'slot0', .*did you mean 'slot0"),
        ("slot,option,change\nslot00,1,1\nslot00,4,1\n", "line 3: option of slot 'slot00' must be 0 to 3, got '4'"),
        ("slot,kind,change\nslot00,conv,1\n", "line 2: unknown kind of slot 'slot00' 'conv', known are 0, 1, 2, 3"),
        ("slot,option,change\nslot00,1,nan\n", "line 2: change must be a finite number, got 'nan'"),
        ("slot,option,change\nslot00,1\n", "line 2: needs 3 fields"),
        ("slot,kind,option,change\nslot00,1,1,1\n", "line 2: needs a kind or an option, and not both"),
        ("slot,option,change\nslot00,1,1\nslot00,1,2\n", "line 3: speaks of the same as line 2"),
        ("slot,gain\n", "line 1: columns must be slot, kind, option, change.* got slot, gain"),
        ("slot,option,change\n", "holds no change"),
        ("slot,option,change\na,1,x\nb,1,1\n", "line 2: change must be .*; line 3: unknown slot 'b'"),
    ],
)
def test_faults_are_named_with_their_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "line 1: is not JSON"),
        ("{}", "schema is None, this version reads 'nas/sensitivities/1'"),
        ('{"schema": "nas/sensitivities/2"}', "schema is 'nas/sensitivities/2'"),
        ('{"schema": "nas/sensitivities/1", "space": "flat/2"}', "holds for space 'flat/2', the run searches 'flat/1'"),
        ('{"schema": "nas/sensitivities/1", "space": "flat/1", "changes": 3}', "must be a list of objects"),
        (JSON % '{"slot": "slot00", "opt": 1, "change": 1}', "change 1: unknown key 'opt'"),
    ],
)
def test_faulty_json_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(tmp_path, text, "known.json")


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.csv: does not exist"):
        read_sensitivities(tmp_path / "none.csv", SPACE)


def warm(problem: AdditiveProblem, journal: MemoryJournal, *, evaluations: int = 12) -> SearchResult:
    budget, costs = Budget(latency_ms=200.0), problem.costs
    truth = problem_quality(problem)
    engine = engines.build("random", problem.space, {}, RandomStreams(0))
    started = WarmStarted(engine, problem.space, good_designs(costs, budget, [truth], count=6))
    return search(
        problem.space,
        started,
        cost_model=problem.prices,
        quality_estimator=problem,
        budget=budget,
        journal=journal,
        evaluations=evaluations,
        batch=4,
    )


def problem_quality(problem: AdditiveProblem) -> SlotSum:
    from nas.search.exact import SlotSum

    return SlotSum.of(problem.score)


def test_warm_designs_are_the_known_front_and_inside_the_budget() -> None:
    problem, budget = AdditiveProblem(), Budget(latency_ms=200.0)
    truth = problem_quality(problem)
    designs = good_designs(problem.costs, budget, [truth], count=6)
    front = {tuple(row) for row in problem.costs.front(truth, budget).options.tolist()}

    assert len(set(designs)) == 6
    assert set(designs) <= front


def test_several_sources_share_the_designs() -> None:
    problem, budget = AdditiveProblem(), Budget(latency_ms=200.0)
    designs = good_designs(problem.costs, budget, [problem_quality(problem), problem.costs.hint_ms], count=6)

    assert 3 < len(set(designs)) <= 6


def test_warm_started_search_resumes_to_the_same_journal() -> None:
    whole = warm(AdditiveProblem(), MemoryJournal()).evaluations
    for kept in (1, 3, 5, 9):
        journal = MemoryJournal(capacity=kept)
        with pytest.raises(KeyboardInterrupt):
            warm(AdditiveProblem(), journal)
        again = warm(AdditiveProblem(), MemoryJournal(journal.records)).evaluations

        assert without_times(again) == without_times(whole)
