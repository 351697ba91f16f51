"""A run without a calibration leaves out what the imported records of its device say does not run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from latency_models import append_records, call_label
from nas.core.errors import InputError
from nas.core.profile import DeviceInfo, Failure, ProfileRecord
from nas.core.protocols import SilentProgress
from nas.pipeline.costs import load_cost_table, load_predictor
from nas.pipeline.stages import perform
from nas.runs.journal import Journal
from tests.pipeline.test_packages import run_of

if TYPE_CHECKING:
    from pathlib import Path

    from nas.core.architecture import Architecture
    from nas.pipeline.context import Context

PHONE = DeviceInfo(
    name="iphone16_pro_max",
    chip="A18 Pro",
    compute_unit="neural_engine",
    threads=1,
    memory_mb=8000.0,
    os_build="22A",
    software="Core ML",
)


def failed(context: Context, subject: str, level: str, architecture: Architecture | None = None) -> ProfileRecord:
    return ProfileRecord(
        subject=subject,
        level=level,  # type: ignore[arg-type]  # one of the two
        architecture=architecture,
        scenario=call_label(context.scenario),
        device=PHONE,
        samples_ms=(),
        warmup=0,
        peak_memory_mb=None,
        memory_method=None,
        failure=Failure(stage="compile", message="error 11"),
        tool="test",
        taken_at="2026-01-01T00:00:00",
        origin="measured",
        source="test",
    )


def searched(context: Context) -> None:
    with context.directory.lock():
        perform(context, ("search",), force=False, progress=lambda _: SilentProgress(), say=lambda _: None)


def test_recorded_failures_screen_candidates_of_an_uncalibrated_run(tmp_path: Path) -> None:
    first = run_of(tmp_path / "first")
    searched(first)
    victim = Journal(first.path("search", "evaluations.jsonl")).read()[0].architecture
    own = run_of(tmp_path / "own")
    path = own.path("profile", "records.jsonl")
    path.parent.mkdir(parents=True)
    append_records(path, [failed(own, victim.digest, "network", victim)])
    searched(own)
    found = {item.architecture: item for item in Journal(own.path("search", "evaluations.jsonl")).read()}
    assert found[victim].state == "screened"
    assert found[victim].violations[0].reason == "network on neural_engine: compile: error 11 " + (
        "(profile of iphone16_pro_max)"
    )
    assert {item.architecture for item in found.values() if item.cost.infeasible} == {victim}
    append_records(path, [failed(own, own.space.largest().digest, "network", own.space.largest())])
    with pytest.raises(InputError, match=r"stale: profile/records\.jsonl changed"):
        searched(own)


def test_a_recorded_failure_of_a_block_takes_out_every_network_with_it(tmp_path: Path) -> None:
    context = run_of(tmp_path)
    largest, smallest = context.space.largest(), context.space.smallest()
    shared = {spec.signature for _, spec in context.space.workload(smallest, context.scenario).blocks}
    temporal = [spec for _, spec in context.space.workload(largest, context.scenario).blocks]
    signature = next(spec.signature for spec in temporal if spec.signature not in shared)
    path = context.path("profile", "records.jsonl")
    path.parent.mkdir(parents=True)
    append_records(path, [failed(context, signature, "block")])
    table = load_cost_table(context)
    assert "compile: error 11" in {fault.reason for fault in table.estimate(largest).infeasible}
    assert table.estimate(smallest).infeasible == ()


def test_failures_in_other_conditions_count_for_nothing(tmp_path: Path) -> None:
    context = run_of(tmp_path)
    largest = context.space.largest()
    path = context.path("profile", "records.jsonl")
    path.parent.mkdir(parents=True)
    smaller = call_label(replace(context.scenario, height=32, width=32))
    append_records(path, [replace(failed(context, largest.digest, "network", largest), scenario=smaller)])
    assert load_predictor(context).network_faults(largest.digest) == ()
