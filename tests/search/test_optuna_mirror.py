"""The copy for optuna-dashboard holds every evaluation, as Optuna's own storage reads it, and harms no search."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from problem import AdditiveProblem, MemoryJournal

from nas.core.cost import Budget
from nas.core.evaluation import Evaluation, Proposal, Quality
from nas.core.pareto import ParetoFront
from nas.core.rng import RandomStreams
from nas.search import engines
from nas.search.loop import search
from nas.search.optuna_mirror import MirroredJournal, OptunaMirror
from nas.search.screening import total_excess

if TYPE_CHECKING:
    from pathlib import Path

LIMIT = Budget(latency_ms=220.0)
STATES = {"complete": TrialState.COMPLETE, "screened": TrialState.PRUNED, "failed": TrialState.FAIL}


def run(path: Path, journal: Any, problem: AdditiveProblem, *, evaluations: int = 12, **changes: Any) -> None:
    mirrored = MirroredJournal(journal, OptunaMirror(path, problem.space, "test"))
    search(
        problem.space,
        engines.build("random", problem.space, {}, RandomStreams(3)),
        **{
            "cost_model": problem.prices,
            "quality_estimator": problem,
            "budget": LIMIT,
            "journal": mirrored,
            "watcher": mirrored,
            "evaluations": evaluations,
            "batch": 4,
            **changes,
        },
    )


def study_of(path: Path) -> optuna.Study:
    return optuna.load_study(study_name="test", storage=JournalStorage(JournalFileBackend(str(path))))


def assert_copied(path: Path, evaluations: list[Evaluation]) -> None:
    trials = {one.user_attrs["evaluation"]: one for one in study_of(path).trials if "evaluation" in one.user_attrs}
    assert sorted(trials) == list(range(len(evaluations)))
    for one in evaluations:
        trial = trials[one.number]
        assert trial.state == STATES[one.state]
        assert trial.params == dict(one.architecture)
        assert trial.user_attrs["digest"] == one.architecture.digest
        assert trial.user_attrs["latency_high_ms"] == one.cost.latency_interval_ms.high
        assert trial.system_attrs["constraints"] == [total_excess(one.violations)]
        if one.quality is not None:
            assert trial.values == [one.cost.latency_ms, one.cost.peak_memory_mb, one.quality.score]


@pytest.mark.parametrize("mode", ["synchronous", "asynchronous"])
def test_every_evaluation_is_a_trial_of_the_study(tmp_path: Path, mode: str) -> None:
    problem = AdditiveProblem()
    problem.failing = frozenset([problem.space.from_options([0, 0, 0, 0]).digest])  # always drawn first
    journal = MemoryJournal()
    run(tmp_path / "copy", journal, problem, evaluations=60, mode=mode)
    assert {one.state for one in journal.records} == {"complete", "screened", "failed"}
    assert_copied(tmp_path / "copy", journal.records)
    study = study_of(tmp_path / "copy")
    assert study.metric_names == ["latency_ms", "peak_memory_mb", "quality"]
    front = {member.architecture.digest for member in ParetoFront.of(journal.records).members}
    assert {one.user_attrs["digest"] for one in study.best_trials} == front


def test_candidates_are_running_trials_while_they_are_judged(tmp_path: Path) -> None:
    problem = AdditiveProblem()
    seen: list[set[str]] = []

    class Looking:
        name, fidelity = "looking", "exact"

        def estimate(self, architecture: Any) -> Quality:
            running = [one for one in study_of(tmp_path / "copy").trials if one.state == TrialState.RUNNING]
            seen.append({one.user_attrs["digest"] for one in running})
            assert architecture.digest in seen[-1]
            return problem.estimate(architecture)

    run(tmp_path / "copy", MemoryJournal(), problem, quality_estimator=Looking())
    assert len(seen[0]) == 4  # a batch
    assert not [one for one in study_of(tmp_path / "copy").trials if one.state == TrialState.RUNNING]


@pytest.mark.parametrize("capacity", [1, 6, 7])
@pytest.mark.parametrize("torn", [0, 1, 40])
def test_copy_of_a_killed_search_is_gone_on_with_or_written_anew(tmp_path: Path, capacity: int, torn: int) -> None:
    problem, path = AdditiveProblem(), tmp_path / "copy"
    dying = MemoryJournal(capacity=capacity)
    with pytest.raises(KeyboardInterrupt):
        run(path, dying, problem)
    path.write_bytes(path.read_bytes()[: -torn or None])
    journal = MemoryJournal(dying.records)
    run(path, journal, problem)
    assert_copied(path, journal.records)
    lost = [one for one in study_of(path).trials if "evaluation" not in one.user_attrs]
    assert all(one.state == TrialState.FAIL for one in lost)
    assert bool(lost) is (torn == 0)


def test_missing_copy_is_written_from_the_journal(tmp_path: Path) -> None:
    problem, path, journal = AdditiveProblem(), tmp_path / "copy", MemoryJournal()
    run(path, journal, problem)
    path.unlink()
    run(path, journal, problem)
    assert_copied(path, journal.records)


def test_copy_that_is_behind_gets_what_it_lacks(tmp_path: Path) -> None:
    problem, path, journal = AdditiveProblem(), tmp_path / "copy", MemoryJournal()
    run(path, journal, problem, evaluations=4)
    before = path.read_bytes()
    search_without_copy = MemoryJournal(journal.records)
    run(tmp_path / "elsewhere", search_without_copy, problem, evaluations=12)
    OptunaMirror(path, problem.space, "test").catch_up(search_without_copy.records)
    assert path.read_bytes().startswith(before)
    assert_copied(path, search_without_copy.records)


def test_copy_of_another_search_is_written_anew(tmp_path: Path) -> None:
    problem, path, journal = AdditiveProblem(), tmp_path / "copy", MemoryJournal()
    run(path, MemoryJournal(), problem, evaluations=30)
    run(path, journal, problem, evaluations=4)
    assert_copied(path, journal.records)


def test_notes_of_the_dashboard_stay(tmp_path: Path) -> None:
    problem, path, journal = AdditiveProblem(), tmp_path / "copy", MemoryJournal()
    run(path, journal, problem, evaluations=4)
    study_of(path).set_user_attr("remark", "look at the third")
    run(path, journal, problem, evaluations=12)
    assert_copied(path, journal.records)
    assert study_of(path).user_attrs == {"remark": "look at the third"}


def test_lower_levels_are_pruned_trials_with_their_score_between(tmp_path: Path) -> None:
    problem, path = AdditiveProblem(), tmp_path / "copy"
    mirror = OptunaMirror(path, problem.space, "test")
    architecture = problem.space.from_options([1, 0, 0, 0])
    low = Evaluation(
        number=0, proposal=Proposal(architecture=architecture, level=0), cost=problem.cost(architecture),
        quality=Quality(score=0.3, estimator="cheap", fidelity="short"), violations=(), state="complete",
    )  # fmt: skip
    mirror.catch_up([low])
    (trial,) = study_of(path).trials
    assert (trial.state, trial.values, trial.intermediate_values) == (TrialState.PRUNED, None, {0: 0.3})
    assert trial.user_attrs["level"] == 0


def test_copy_that_cannot_be_written_is_given_up_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    problem, journal = AdditiveProblem(), MemoryJournal()
    (tmp_path / "copy").mkdir()
    with caplog.at_level(logging.WARNING):
        run(tmp_path / "copy", journal, problem)
    assert len(journal.records) >= 12
    (record,) = caplog.records
    assert "is no longer written" in record.message
