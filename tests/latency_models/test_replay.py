"""A recorded profile measured again gives itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from latency_models.backends.replay import ReplayBackend
from latency_models.jobs import MeasurementJob, MeasurementPlan
from latency_models.measuring import measure_all
from nas.core.errors import MeasurementError, ProfileError
from nas.core.profile import Failure, ProfileSet

if TYPE_CHECKING:
    from pathlib import Path


def make_nothing() -> Any:
    raise AssertionError("a replay builds nothing")


def job(subject: str) -> MeasurementJob:
    return MeasurementJob(subject=subject, level="network", make=make_nothing)


def test_measuring_a_replay_gives_its_records_back(tmp_path: Path, record: Any) -> None:
    failed = record("b", samples_ms=(), warmup=0, memory_mb=None, failure=Failure(stage="load", message="no"))
    recorded = ProfileSet(records=(record("a", taken_at="1"), failed, record("a", taken_at="2")))
    plan = MeasurementPlan(scenario=failed.scenario, passes=1)
    backend = ReplayBackend(recorded)
    measured = measure_all(backend, [job("a"), job("b")], plan, tmp_path / "r.jsonl")
    assert set(measured.records) == {recorded.records[0], failed}
    assert backend.remaining(job("a")) == 1


@pytest.mark.parametrize(("subject", "reason"), [("a", "all its records were served"), ("x", "it was not recorded")])
def test_nothing_is_served_twice_or_made_up(record: Any, subject: str, reason: str) -> None:
    backend = ReplayBackend(ProfileSet(records=(record("a"),)))
    plan = MeasurementPlan(scenario=record().scenario)
    backend.measure(job("a"), plan)
    with pytest.raises(MeasurementError, match=f"'{subject}' cannot be replayed: {reason}"):
        backend.measure(job(subject), plan)


def test_a_record_of_another_scenario_is_not_replayed(record: Any) -> None:
    backend = ReplayBackend(ProfileSet(records=(record("a"),)))
    with pytest.raises(MeasurementError, match="not for 'bigger'"):
        backend.measure(job("a"), MeasurementPlan(scenario="bigger"))


def test_a_replay_is_of_one_origin(record: Any) -> None:
    with pytest.raises(ProfileError, match="one origin, got measured, simulated"):
        ReplayBackend(ProfileSet(records=(record("a"), record("b", origin="simulated"))))
