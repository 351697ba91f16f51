"""Later passes run in processes of their own, which fail in the parent's words and end with it."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

import pytest

from latency_models import measure_all
from latency_models.backends.fresh_process import FreshProcessBackend
from latency_models.backends.torch_host import TorchHostBackend
from latency_models.jobs import Availability, MeasurementJob, MeasurementPlan, Prepared
from nas.core.errors import MeasurementError
from nas.core.profile import DeviceInfo, ProfileRecord
from tests.latency_models.conftest import DEVICE

if TYPE_CHECKING:
    from pathlib import Path


class ProcessBackend:
    """Writes the process it ran in as the record's tool; the job says how it ends."""

    name = "host-cpu"
    origin = "measured"

    def availability(self) -> Availability:
        return Availability(available=True)

    def describe(self) -> DeviceInfo:
        return DEVICE

    def measure(self, job: MeasurementJob, plan: MeasurementPlan, *, memory: bool) -> ProfileRecord:  # noqa: ARG002
        job.make()
        return ProfileRecord(
            subject=job.subject,
            level=job.level,
            scenario=plan.scenario,
            device=DEVICE,
            samples_ms=(1.0, 1.0),
            warmup=0,
            peak_memory_mb=None,
            memory_method=None,
            tool=str(os.getpid()),
            taken_at=f"2026-01-01T00:00:00.{os.getpid()}{job.subject}",
            origin="measured",
            source="test",
        )


def ready() -> Prepared:
    return ready, ()


def multiplication() -> Prepared:
    import torch

    return torch.matmul, (torch.ones(8, 8), torch.ones(8, 8))


def fail_in_another_process(parent: int) -> Prepared:
    if os.getpid() != parent:
        raise RuntimeError("no room")
    return ready, ()


def die_in_another_process(parent: int) -> Prepared:
    if os.getpid() != parent:
        os._exit(9)
    return ready, ()


def measure(path: Path, *jobs: MeasurementJob, passes: int) -> list[int]:
    plan = MeasurementPlan(scenario="s", passes=passes)
    with FreshProcessBackend(ProcessBackend()) as backend:
        profiles = measure_all(backend, jobs, plan, path)
    return [int(record.tool) for record in profiles.records]


def test_first_pass_runs_here_and_each_other_in_a_process_of_its_own(tmp_path: Path) -> None:
    jobs = [MeasurementJob(subject=name, level="network", make=ready) for name in "ab"]
    found = measure(tmp_path / "records.jsonl", *jobs, passes=3)
    assert found[:2] == [os.getpid()] * 2
    assert found[2] == found[3]
    assert found[4] == found[5]
    assert len(set(found)) == 3


@pytest.mark.parametrize(
    ("make", "message"), [(fail_in_another_process, "no room"), (die_in_another_process, "process died")]
)
def test_failure_in_the_process_is_named_and_earlier_records_stay(tmp_path: Path, make: object, message: str) -> None:
    job = MeasurementJob(subject="a", level="network", make=partial(make, os.getpid()))  # type: ignore[operator]
    path = tmp_path / "records.jsonl"
    with pytest.raises(MeasurementError, match=message):
        measure(path, job, passes=2)
    assert len(path.read_bytes().splitlines()) == 1


def test_leaving_the_backend_ends_its_process(tmp_path: Path) -> None:
    job = MeasurementJob(subject="a", level="network", make=ready)
    process = measure(tmp_path / "records.jsonl", job, passes=2)[-1]
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_host_backend_goes_to_another_process_after_it_has_measured_here() -> None:
    backend = TorchHostBackend("cpu")
    job = MeasurementJob(subject="a", level="block", make=multiplication)
    plan = MeasurementPlan(scenario="s", seconds=0.001, max_repeats=6)
    with FreshProcessBackend(backend) as fresh:
        here = fresh.measure(job, plan, memory=False)
        fresh.renew()
        there = fresh.measure(job, plan, memory=False)
    assert there.device == here.device
    assert there.anchor_ms
