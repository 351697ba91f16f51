"""Measuring many jobs: shuffled passes, resume without measuring twice, nothing lost on failure."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from latency_models.jobs import MeasurementJob, MeasurementPlan
from latency_models.measuring import measure_all
from latency_models.profiles import read_profile
from nas.core.errors import MeasurementError, ProfileError, UnavailableError

if TYPE_CHECKING:
    from pathlib import Path


def make_nothing() -> Any:
    raise AssertionError("the counting backend builds nothing")


JOBS = [MeasurementJob(subject=f"job{index}", level="network", make=make_nothing) for index in range(6)]
PLAN = MeasurementPlan(scenario="label", passes=3)


def test_every_job_is_measured_once_a_pass_in_another_order(tmp_path: Path, counting_backend: Any) -> None:
    backend = counting_backend()
    profiles = measure_all(backend, JOBS, PLAN, tmp_path / "r.jsonl")
    subjects = [subject for subject, _ in backend.calls]
    assert Counter(subjects) == dict.fromkeys((job.subject for job in JOBS), 3)
    assert len({tuple(subjects[start : start + 6]) for start in (0, 6, 12)}) == 3
    assert len(profiles.records) == 18


def test_memory_is_traced_once_per_subject(tmp_path: Path, counting_backend: Any) -> None:
    backend = counting_backend()
    measure_all(backend, JOBS, PLAN, tmp_path / "r.jsonl")
    assert Counter(subject for subject, memory in backend.calls if memory) == Counter(job.subject for job in JOBS)


@pytest.mark.parametrize("fail_at", [0, 1, 7, 17])
def test_a_resumed_profile_measures_only_what_is_missing(tmp_path: Path, counting_backend: Any, fail_at: int) -> None:
    path = tmp_path / "r.jsonl"
    with pytest.raises(MeasurementError, match="failed on host-cpu: device lost"):
        measure_all(counting_backend(fail_at=fail_at), JOBS, PLAN, path)
    assert len(read_profile(path).records) == fail_at
    second = counting_backend()
    profiles = measure_all(second, JOBS, PLAN, path)
    assert len(second.calls) == 18 - fail_at
    assert len(profiles.records) == 18


def test_a_finished_profile_measures_nothing(tmp_path: Path, counting_backend: Any) -> None:
    path = tmp_path / "r.jsonl"
    measure_all(counting_backend(), JOBS, PLAN, path)
    again = counting_backend()
    measure_all(again, JOBS, PLAN, path)
    assert again.calls == []


def test_records_of_another_machine_are_not_continued(tmp_path: Path, counting_backend: Any) -> None:
    path = tmp_path / "r.jsonl"
    first = counting_backend()
    measure_all(first, JOBS, PLAN, path)
    other = counting_backend(device=replace(first.device, chip="newer"))
    with pytest.raises(ProfileError, match="measured with chip 'test', this machine has 'newer'"):
        measure_all(other, JOBS, PLAN, path)


def test_records_of_another_scenario_are_not_continued(tmp_path: Path, counting_backend: Any) -> None:
    path = tmp_path / "r.jsonl"
    measure_all(counting_backend(), JOBS, PLAN, path)
    with pytest.raises(ProfileError, match="this run is for 'bigger'"):
        measure_all(counting_backend(), JOBS, replace(PLAN, scenario="bigger"), path)


def test_two_jobs_of_one_subject_are_refused(tmp_path: Path, counting_backend: Any) -> None:
    with pytest.raises(ProfileError, match="appear in several jobs, first 'job0'"):
        measure_all(counting_backend(), [*JOBS, JOBS[0]], PLAN, tmp_path / "r.jsonl")


def test_a_backend_that_cannot_measure_says_why(tmp_path: Path, counting_backend: Any) -> None:
    with pytest.raises(UnavailableError, match="cannot measure here: no such GPU"):
        measure_all(counting_backend(missing="no such GPU"), JOBS, PLAN, tmp_path / "r.jsonl")


def test_progress_ends_at_the_total(tmp_path: Path, counting_backend: Any) -> None:
    seen: list[tuple[int, int]] = []

    class Watcher:
        def update(self, done: int, total: int, message: str = "") -> None:
            del message
            seen.append((done, total))

    measure_all(counting_backend(), JOBS, PLAN, tmp_path / "r.jsonl", progress=Watcher())
    assert seen[0] == (0, 18)
    assert seen[-1] == (18, 18)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"passes": 0}, "passes"), ({"max_repeats": 1}, "max_repeats >= min_repeats"), ({"seconds": 0.0}, "above 0")],
)
def test_a_senseless_plan_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(PLAN, **change)


def test_a_drifting_record_is_measured_again_then_kept_with_a_warning(
    tmp_path: Path, counting_backend: Any, record: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class Drifting(counting_backend):  # type: ignore[misc,valid-type]  # a fixture's class
        def measure(self, job: MeasurementJob, plan: MeasurementPlan, *, memory: bool) -> Any:
            del plan, memory
            self.calls.append((job.subject, False))
            samples = tuple(1.0 + 0.1 * index for index in range(20))
            return record(job.subject, scenario="label", samples_ms=samples, warmup=0)

    backend = Drifting()
    measure_all(backend, JOBS[:1], replace(PLAN, passes=1, attempts=3), tmp_path / "r.jsonl")
    assert len(backend.calls) == 3
    assert "job0 still drifts by" in caplog.text


def test_a_damaged_line_is_named_and_its_job_measured_again(
    tmp_path: Path, counting_backend: Any, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "r.jsonl"
    measure_all(counting_backend(), JOBS, PLAN, path)
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([lines[0], b'{"broken', *lines[2:]]))
    again = counting_backend()
    profiles = measure_all(again, JOBS, PLAN, path)
    assert len(again.calls) == 1
    assert len(profiles.records) == 18
    assert "line 2: damaged record" in caplog.text
