"""Profile files: round trip, faults by file and line, records of another run refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from latency_models.profiles import (
    append_record,
    call_label,
    generation_label,
    read_profile,
    record_data,
    scan_profile,
    single_device,
)
from nas.core.errors import ProfileError
from nas.core.files import JsonLines
from nas.core.profile import Failure, PlannedOperation, ProfileSet
from nas.core.workload import BlockSpec
from tests.latency_models.conftest import DEVICE

if TYPE_CHECKING:
    from nas.core.scenario import Scenario


def test_records_come_back_equal_and_in_order(tmp_path: Path, record: Any) -> None:
    path = tmp_path / "records.jsonl"
    records = [
        record("b", level="block", anchor_ms=(1.0,) * 7),
        record("a", plan=(PlannedOperation(name="op", kind="conv", preferred="gpu"),)),
    ]
    for item in records:
        append_record(path, item)
    assert read_profile(path).records == tuple(records)


def test_a_missing_file_is_an_empty_profile(tmp_path: Path) -> None:
    assert read_profile(tmp_path / "none.jsonl").records == ()


def test_an_unfinished_last_line_is_dropped(tmp_path: Path, record: Any) -> None:
    path = tmp_path / "records.jsonl"
    append_record(path, record())
    with path.open("ab") as stream:
        stream.write(b'{"subject": "x", "lev')
    assert len(read_profile(path).records) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples_ms": [1.0, -1.0, 1.0]}, "above 0 ms"),
        ({"warmup": 9}, "9 of them warm-up"),
        ({"level": "layer"}, "level"),
        ({"anchor_ms": [1.0]}, "1 anchor times"),
    ],
)
def test_a_faulty_record_is_named_by_file_and_line(
    tmp_path: Path, record: Any, change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "records.jsonl"
    append_record(path, record())
    JsonLines(path).append({**record_data(record()), **change})
    with pytest.raises(ProfileError, match=rf"records\.jsonl: line 2.*{message}"):
        read_profile(path)


def test_a_damaged_line_is_named_even_after_blank_lines(tmp_path: Path, record: Any) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text("\n\n")
    append_record(path, record(scenario="other"))
    with pytest.raises(ProfileError, match="line 3: 'net' was measured for scenario 'other', this run is for 'mine'"):
        read_profile(path, scenario="mine")


def test_records_of_another_device_are_refused(tmp_path: Path, record: Any) -> None:
    path = tmp_path / "records.jsonl"
    append_record(path, record())
    with pytest.raises(ProfileError, match="for device 'host-cpu', this run is for 'iphone15_pro'"):
        read_profile(path, device="iphone15_pro")


def test_call_label_leaves_out_what_does_not_change_a_call(scenario: Scenario) -> None:
    assert call_label(scenario) == "8x32x32 float32 cpu_only"
    assert generation_label(scenario) == "8x32x32 float32 cpu_only 4 steps guided"


def test_no_records_have_no_device() -> None:
    with pytest.raises(ProfileError, match="found no records"):
        single_device(ProfileSet(records=()))


def test_records_of_the_first_version_still_load() -> None:
    first, second = read_profile(Path(__file__).parent / "data" / "records_version_1.jsonl").records
    assert first.steady_ms == (0.52, 0.5)
    assert first.load is None
    assert second.load is not None
    assert second.load.first_load_ms == 310.0
    assert [(op.name, op.preferred) for op in second.plan] == [("conv_0", "neural_engine")]


def test_a_record_of_a_later_version_is_refused(tmp_path: Path, record: Any) -> None:
    path = tmp_path / "records.jsonl"
    JsonLines(path).append({**record_data(record()), "schema": "nas/profile_record/9"})
    with pytest.raises(ProfileError, match=r"line 1: record: schema is 'nas/profile_record/9'"):
        read_profile(path)


def test_faulty_lines_are_named_and_the_rest_is_kept(tmp_path: Path, record: Any) -> None:
    path = tmp_path / "records.jsonl"
    append_record(path, record("a", taken_at="1"))
    with path.open("ab") as stream:
        stream.write(b'{"torn": \n')
    JsonLines(path).append({**record_data(record("b")), "samples_ms": [1.0, 0.0]})
    append_record(path, record("c", device=replace(DEVICE, name="iphone15_pro")))
    append_record(path, record("d", taken_at="2"))
    reading = scan_profile(path, device="host-cpu")
    assert [item.subject for item in reading.profiles.records] == ["a", "d"]
    assert [problem.line for problem in reading.dropped] == [2, 3, 4]
    assert "damaged record" in reading.dropped[0].message
    assert "above 0 ms, got 0.0" in reading.dropped[1].message
    assert reading.lines()[2] == (
        f"{path}: line 4: 'c' was measured for device 'iphone15_pro', this run is for 'host-cpu'; left out"
    )


def test_strict_reading_names_every_faulty_line(tmp_path: Path, record: Any) -> None:
    path = tmp_path / "records.jsonl"
    for number in range(7):
        append_record(path, record(f"net{number}", scenario="other"))
    with pytest.raises(ProfileError, match=r"line 1: .*line 5: .*; and 2 more") as caught:
        read_profile(path, scenario="mine")
    assert [problem.line for problem in caught.value.problems] == list(range(1, 8))


def test_records_of_the_second_version_load_with_every_part() -> None:
    measured, failed = read_profile(Path(__file__).parent / "data" / "records_version_2.jsonl").records
    assert measured.block == BlockSpec.of("conv1d", channels=48, frames=8, kernel=3)
    assert measured.steady_ms == (0.52, 0.5, 0.51)
    assert measured.placement_ratio == {"neural_engine": 0.75, "cpu": 0.25}
    assert measured.memory is not None
    assert measured.memory.system_rise_mb == pytest.approx(314.5728)
    assert measured.load is not None
    assert measured.load.cached_load_ms == 12.0
    assert failed.architecture is not None
    assert failed.architecture.space == "tiny/1"
    assert failed.failure == Failure(stage="out_of_memory", message="memory pressure critical", limit_mb=3300.0)
