"""Summaries are robust to slow phases, outliers and warm-up, and find drift."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from latency_models.summaries import (
    AnchorReference,
    anchor_reference,
    centre_ms,
    detect_warmup,
    drift_ratio,
    machine_swing_ratio,
    median_deviation,
    summarise,
)
from nas.core.errors import ProfileError
from nas.core.profile import ProfileSet


def test_median_deviation_of_a_worked_example() -> None:
    assert median_deviation([1.0, 1.0, 2.0, 2.0, 4.0, 6.0, 9.0]) == 1.0


def test_slow_phase_of_the_machine_cancels_with_the_anchor(record: Any) -> None:
    speed = np.repeat([1.0, 1.6, 1.2], 10)
    item = record(samples_ms=tuple(5.0 * speed), anchor_ms=tuple(0.5 * speed), warmup=0)
    reference = AnchorReference(source="test", time_ms=0.5)
    assert centre_ms(item, reference=reference) == pytest.approx(5.0)


def test_without_anchor_the_faster_half_counts(record: Any) -> None:
    item = record(samples_ms=(50.0, *[2.0] * 6, *[9.0] * 5), warmup=1)
    assert centre_ms(item) == 2.0


def test_another_anchor_is_refused(record: Any) -> None:
    item = record(anchor_ms=(1.0,) * 7)
    with pytest.raises(ProfileError, match="measured beside 'test', the reference is 'other'"):
        centre_ms(item, reference=AnchorReference(source="other", time_ms=1.0))


def test_reference_is_the_median_anchor_of_the_level_without_warmup(record: Any) -> None:
    records = (
        record(anchor_ms=(99.0, 1.0, 2.0, 3.0, 3.0, 4.0, 5.0)),
        record("block", level="block", anchor_ms=(7.0,) * 7),
    )
    assert anchor_reference(ProfileSet(records=records), "network") == AnchorReference(source="test", time_ms=3.0)
    assert anchor_reference(ProfileSet(records=(record(),)), "network") is None


def test_records_of_two_anchors_do_not_mix(record: Any) -> None:
    records = tuple(record(anchor_ms=(1.0,) * 7, source=source) for source in ("one", "two"))
    with pytest.raises(ProfileError, match="used 2 anchors: 'one', 'two'"):
        anchor_reference(ProfileSet(records=records), "network")


def test_machine_swing_is_the_ratio_of_slow_to_fast_anchors(record: Any) -> None:
    records = (record(samples_ms=(1.0,) * 100, anchor_ms=(1.0,) * 50 + (2.0,) * 50),)
    assert machine_swing_ratio(ProfileSet(records=records)) == pytest.approx(2.0)


def test_summary_takes_the_median_of_repeats_and_says_how_they_differ(record: Any) -> None:
    repeats = [record(samples_ms=(value,) * 7, memory_mb=value) for value in (2.0, 2.2, 3.0)]
    found = summarise(repeats)
    assert (found.centre_ms, found.repeat_ratio, found.num_samples) == (2.2, 1.5, 18)
    assert found.peak_memory_mb == 3.0


def test_summary_of_several_subjects_is_refused(record: Any) -> None:
    with pytest.raises(ProfileError, match="of one subject, got 2"):
        summarise([record("a"), record("b")])


@pytest.mark.parametrize(
    ("values", "expected"),
    [([5.0, 3.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0], 2), ([1.0] * 8, 0), ([1.0], 0), ([9.0] * 3 + [1.0] * 3, 3)],
)
def test_warmup_is_what_lies_above_the_later_half(values: list[float], expected: int) -> None:
    assert detect_warmup(values) == expected


def test_drift_is_found_in_a_rising_series_and_not_in_noise() -> None:
    noise = np.random.default_rng(0).normal(0.0, 0.01, 60)
    assert drift_ratio(list(1.0 + noise)) == pytest.approx(0.0, abs=0.02)
    assert drift_ratio(list(np.linspace(1.0, 1.5, 60) + noise)) == pytest.approx(0.4, abs=0.02)


def test_drift_of_equal_samples_is_zero() -> None:
    assert drift_ratio([2.0] * 20) == 0.0


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # the fixture is a stateless function
@given(values=st.lists(st.floats(0.1, 100.0), min_size=1, max_size=20))
def test_centre_lies_between_the_fastest_sample_and_the_median(record: Any, values: list[float]) -> None:
    centre = centre_ms(record(samples_ms=tuple(values), warmup=0))
    assert min(values) <= centre <= float(np.median(values)) * (1 + 1e-12)
