"""Records that cannot be used are dropped by name, contradictions are kept and named."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from latency_models.record_checks import Located, check_records
from nas.core.profile import MemoryReadings, RunConditions

if TYPE_CHECKING:
    from collections.abc import Callable

    from latency_models.record_checks import Checked
    from nas.core.profile import ProfileRecord

    Maker = Callable[..., ProfileRecord]


def check(*records: ProfileRecord, **options: Any) -> Checked:
    located = [Located(record=item, file="r.jsonl", line=number) for number, item in enumerate(records, start=1)]
    return check_records(located, **options)


def timed(record: Maker, time_ms: float, subject: str = "net", **changes: Any) -> ProfileRecord:
    return record(subject, samples_ms=(time_ms,) * 3, warmup=0, taken_at=f"at {time_ms}", **changes)


def test_a_repeated_record_is_dropped_and_its_first_line_named(record: Maker) -> None:
    checked = check(record("a"), record("b"), record("a"))
    assert [item.line for item in checked.kept] == [1, 2]
    assert [(p.line, p.message) for p in checked.dropped] == [(3, "'a' repeats line 1")]


def test_two_measurements_of_one_moment_cannot_both_be_true(record: Maker) -> None:
    checked = check(record(samples_ms=(2.0, 2.0)), record(samples_ms=(3.0, 3.0)))
    assert [item.line for item in checked.kept] == [1]
    assert "too, with other figures; the first is kept" in checked.dropped[0].message


def test_published_figures_share_their_date_and_are_no_repeats(record: Maker) -> None:
    rows = [record(f"m{n % 2}", samples_ms=(5.0 + n,), warmup=0, origin="published") for n in range(4)]
    assert len(check(*rows).kept) == 4


@pytest.mark.parametrize("odd", [0.004, 4000.0])
def test_samples_of_two_units_are_dropped(record: Maker, odd: float) -> None:
    checked = check(record("a", samples_ms=(4.1, 4.0, odd, 3.9), warmup=0), record("b"))
    assert [item.record.subject for item in checked.kept] == ["b"]
    assert f"'a' has samples of mixed units: {odd:g} beside a median of" in checked.dropped[0].message


def test_a_slow_sample_is_no_mixed_unit(record: Maker) -> None:
    assert check(record(samples_ms=(4.1, 4.0, 400.0, 3.9), warmup=0)).dropped == ()


def test_the_repeat_in_another_unit_is_dropped_by_majority(record: Maker) -> None:
    checked = check(timed(record, 5.0), timed(record, 5100.0), timed(record, 5.2))
    assert [item.line for item in checked.kept] == [1, 3]
    assert "measured in mixed units: 5100 and 5 ms in line 1" in checked.dropped[0].message


def test_two_repeats_a_thousandfold_apart_are_both_dropped(record: Maker) -> None:
    checked = check(timed(record, 5.0), timed(record, 5100.0))
    assert checked.kept == ()
    assert sorted(problem.line or 0 for problem in checked.dropped) == [1, 2]


def test_contradicting_records_are_kept_and_both_named(record: Maker) -> None:
    checked = check(timed(record, 5.0), timed(record, 11.0))
    assert len(checked.kept) == 2
    assert [(p.line, p.message) for p in checked.warnings] == [
        (2, "'net' takes 11, but 5 in line 1: 2.2 times, under equal conditions; both are kept")
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"thermal_states": ("serious",)},
        {"conditions": RunConditions(requested_units="cpu_only")},
        {"scenario": "another"},
        {"level": "block"},
    ],
)
def test_another_condition_is_no_contradiction(record: Maker, changes: dict[str, Any]) -> None:
    assert check(timed(record, 5.0), timed(record, 11.0, **changes)).warnings == ()


def test_a_slow_machine_is_no_contradiction_where_its_anchor_was_as_slow(record: Maker) -> None:
    fast = timed(record, 5.0, anchor_ms=(1.0,) * 3)
    assert check(fast, timed(record, 15.0, anchor_ms=(3.0,) * 3)).warnings == ()
    assert check(fast, timed(record, 15.0, anchor_ms=(1.0,) * 3)).warnings != ()


def test_memory_beyond_the_device_is_a_wrong_unit(record: Maker) -> None:
    readings = MemoryReadings(footprint_peak_mb=2.5e9)
    checked = check(record("a"), record("b", memory=readings), record("c", memory_mb=3.0e6))
    assert [item.record.subject for item in checked.kept] == ["a"]
    assert "peak of 2.5e+09 MB on a device of at most 10000 MB: check the unit" in checked.dropped[0].message


def test_bytes_that_say_mb_are_seen_on_a_device_of_unknown_memory(record: Maker) -> None:
    phone = replace(record().device, memory_mb=None)
    checked = check(record("a", device=phone, memory_mb=9e5), record("b", device=phone, memory_mb=3e8))
    assert [item.record.subject for item in checked.kept] == ["a"]


def test_a_file_in_another_unit_than_stated_is_seen_by_the_prior(record: Maker) -> None:
    records = [timed(record, value / 1000.0, f"net{value}") for value in (10, 20, 30)]
    checked = check(*records, expected_ms={"net10": 12.0, "net20": 15.0, "net30": 40.0})
    assert checked.kept == ()
    assert "so are all times of this file: another unit than stated" in checked.dropped[0].message


def test_single_records_in_another_unit_are_seen_by_the_prior(record: Maker) -> None:
    records = [timed(record, value, f"net{index}") for index, value in enumerate((10.0, 0.02, 30.0, 25.0))]
    checked = check(*records, expected_ms={"net0": 12.0, "net1": 15.0, "net2": 40.0})
    assert [item.line for item in checked.kept] == [1, 3, 4]
    assert "the device's prior says 15 ms; unlike the rest: mixed units" in checked.dropped[0].message


def test_a_prior_that_is_ten_times_off_drops_nothing(record: Maker) -> None:
    records = [timed(record, value, f"net{value}") for value in (10.0, 200.0)]
    assert check(*records, expected_ms={"net10.0": 100.0, "net200.0": 20.0}).dropped == ()


def test_calls_shorter_than_a_dispatch_are_in_another_unit(record: Maker) -> None:
    phone = replace(record().device, compute_unit="neural_engine")
    calls = [timed(record, 0.001 * value, f"net{value}", device=phone) for value in (2, 5)]
    assert check(*calls).kept == ()
    assert len(check(*calls, timed(record, 0.3, "net9", device=phone)).kept) == 3


def test_a_time_below_what_any_chip_of_the_kind_needs_is_dropped(record: Maker) -> None:
    checked = check(timed(record, 2.0, "net1"), timed(record, 2.1, "net2"), least_ms={"net1": 2.1})
    assert [item.record.subject for item in checked.kept] == ["net2"]
    assert "takes 2 ms, and this chip's units together could not do it in 2.1 ms" in checked.dropped[0].message
