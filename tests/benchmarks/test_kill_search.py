"""A short run of the benchmark that kills a search on Ray again and again; it checks by itself that nothing is lost."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import kill_search
import pytest
from kill_search import SlowQuality, Watch, measure
from table_problem import TableProblem, TableQuality

from nas.core.evaluation import FinishedOutcome, Outcome
from nas.runs.outcomes import Outcomes

if TYPE_CHECKING:
    from pathlib import Path

    from nas.core.architecture import Architecture


@pytest.mark.slow
def test_search_survives_kills_of_its_process_and_of_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Random, "choice", lambda _, victims: next(order) if victims == BOTH else victims[0])
    order = iter(("worker", "driver", "worker"))
    summary = measure(tmp_path, "synchronous", 3, evaluations=120, seed=0)
    assert summary["kills"] == {"driver": 1, "worker": 2}
    assert summary["driver_lives"] == 3
    assert summary["same_front_as_undisturbed"]
    assert set(summary["faults"].values()) == {0}


BOTH = ("driver", "worker")


def architectures(count: int) -> list[Architecture]:
    space = TableProblem(num_slots=2).space
    return [space.from_options([0, option]) for option in range(count)]


def test_estimate_of_what_was_recorded_is_noticed(tmp_path: Path) -> None:
    watch, quality = Watch(tmp_path), SlowQuality(TableQuality.of(TableProblem(num_slots=2)), tmp_path / "finished.txt")
    first, second = architectures(2)
    outcome = Outcome(quality=quality.estimate(first), error=None, seconds=0.0)
    Outcomes(tmp_path / "outcomes.jsonl").append([FinishedOutcome(batch=0, digest=first.digest, outcome=outcome)])
    watch.note()
    quality.estimate(second)
    assert watch.judged_again() == 0
    quality.estimate(first)
    assert watch.judged_again() == 1


def test_busy_workers_are_told_from_others() -> None:
    import psutil

    assert not kill_search.is_busy(psutil.Process())
