"""Profile records: what a record may and may not say, both memory numbers, placement shares."""

from __future__ import annotations

from typing import Any

import pytest

from nas.core.architecture import Architecture
from nas.core.profile import (
    DeviceInfo,
    Failure,
    LoadTimes,
    MemoryReadings,
    OutputCheck,
    PackageInfo,
    PlannedOperation,
    ProfileRecord,
    ProfileSet,
    RunConditions,
)
from nas.core.schema import from_data, to_data
from nas.core.workload import BlockSpec

DEVICE = DeviceInfo(
    name="iphone16_pro_max",
    chip="A18 Pro",
    compute_unit="neural_engine",
    threads=1,
    memory_mb=None,
    os_build="22B83",
    software="Core ML",
    product="iPhone17,2",
    os="iOS 18.1",
)


def make(**changes: Any) -> ProfileRecord:
    values: dict[str, Any] = {
        "subject": "net",
        "level": "network",
        "scenario": "",
        "device": DEVICE,
        "samples_ms": (3.0, 2.0),
        "warmup": 1,
        "peak_memory_mb": None,
        "memory_method": None,
        "tool": "runner",
        "taken_at": "2026-11-21T10:00:00Z",
        "origin": "measured",
        "source": "test",
    }
    return ProfileRecord(**{**values, **changes})


def test_every_field_survives_plain_data() -> None:
    block = BlockSpec.of("conv", channels=8)
    record = make(
        subject=block.signature,
        level="block",
        block=block,
        load=LoadTimes(compile_ms=900.0, first_load_ms=80.0, cached_load_ms=4.0, first_call_ms=9.0),
        memory=MemoryReadings(footprint_before_mb=10.0, footprint_peak_mb=14.0),
        plan=(PlannedOperation(name="a", kind="conv", preferred="gpu", supported=("gpu", "cpu"), cost_share=1.0),),
        package=PackageInfo(file="a.mlpackage", inputs=(("x", (1, 8), "float16"),), weight_bits=4.0, chunk=1, chunks=2),
        conditions=RunConditions(requested_units="cpu_and_ne", lowering="einsum", low_power=False),
        outputs_check=OutputCheck(reference="torch float32", psnr_db=60.0),
    )
    assert from_data(ProfileRecord, to_data(record)) == record


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples_ms": (), "warmup": 0}, "has no samples, and neither failure nor plan, memory or load times"),
        ({"failure": Failure(stage="load", message="x")}, "failed at load, yet has 2 samples"),
        ({"statistic": "median"}, "a median is one figure, got 2"),
        ({"samples_ms": (0.0, 2.0)}, "above 0 ms, got 0.0"),
        ({"block": BlockSpec.of("conv", channels=8)}, r"not the signature of its block, 'conv\(channels=8\)'"),
        ({"architecture": Architecture("tiny/1", {"a": 1})}, "not the digest of its architecture"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**changes)


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        ({"stage": "load", "limit_ms": 5.0}, "limit_ms belongs to stage 'timeout', got stage 'load'"),
        ({"stage": "out_of_memory", "limit_mb": -1.0}, "limit_mb must be finite and above 0"),
    ],
)
def test_a_limit_belongs_to_its_stage(failure: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Failure(message="", **failure)


def test_failures_are_not_among_the_timed_records() -> None:
    failed = make(samples_ms=(), warmup=0, failure=Failure(stage="compile", message="rank 6"))
    planned = make(samples_ms=(), warmup=0, plan=(PlannedOperation(name="a", kind="conv", preferred="neural_engine"),))
    profiles = ProfileSet(records=(failed, make(), planned))
    assert profiles.of_level("network") == (make(),)
    assert profiles.failures() == profiles.failures("network") == (failed,)
    assert profiles.failures("block") == ()


def test_system_memory_is_the_larger_of_wired_gained_and_free_lost() -> None:
    readings = MemoryReadings(
        footprint_unloaded_mb=90.0,
        footprint_before_mb=100.0,
        footprint_peak_mb=160.0,
        system_free_before_mb=3000.0,
        system_free_min_mb=600.0,
        system_wired_before_mb=1000.0,
        system_wired_max_mb=3500.0,
    )
    assert readings.footprint_rise_mb == 60.0
    assert readings.system_rise_mb == 2500.0
    assert MemoryReadings(footprint_peak_mb=160.0).footprint_rise_mb is None
    assert MemoryReadings(system_wired_max_mb=160.0).system_rise_mb is None


def test_placement_counts_by_cost_only_where_every_operation_has_one() -> None:
    ops = [("a", "neural_engine", 0.75), ("b", "cpu", 0.25), ("c", "cpu", 0.0)]
    costed = tuple(PlannedOperation(name=n, kind="k", preferred=u, cost_share=c) for n, u, c in ops)
    assert make(plan=costed).placement_ratio == {"neural_engine": 0.75, "cpu": 0.25}
    bare = (PlannedOperation(name="d", kind="k", preferred="cpu"), *costed)
    assert make(plan=bare).placement_ratio == {"neural_engine": 0.25, "cpu": 0.75}
