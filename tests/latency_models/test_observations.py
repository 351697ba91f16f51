"""What is kept of records, what is left out and counted, and what failures say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from latency_models.effects import Group
from latency_models.observations import observe
from nas.core.profile import Failure, ProfileRecord, ProfileSet
from tests.latency_models.conftest import DEVICE, make_record

STEADY = (2.0,) * 12
NEW = replace(DEVICE, os_build="newer")


def timed(subject: str = "net", **changes: Any) -> ProfileRecord:
    return make_record(subject, **{"samples_ms": STEADY, "warmup": 0, **changes})


def failed(subject: str, failure: Failure, **changes: Any) -> ProfileRecord:
    return make_record(subject, samples_ms=(), warmup=0, memory_mb=None, failure=failure, **changes)


def test_samples_taken_hot_are_left_out() -> None:
    states = ("nominal",) * 6 + ("serious",) * 6
    found = observe(ProfileSet(records=(timed(samples_ms=(2.0,) * 6 + (3.0,) * 6, thermal_states=states),)))
    assert found.networks[0].summary.centre_ms == 2.0
    assert found.networks[0].summary.num_samples == 6
    assert found.counts.throttled_samples == 6
    assert found.counts.throttled_records == 0


def test_a_hot_record_gives_way_to_a_cool_one() -> None:
    hot = timed(samples_ms=(3.0,) * 12, thermal_states=("critical",))
    found = observe(ProfileSet(records=(hot, timed())))
    assert found.networks[0].summary.centres_ms == (2.0,)
    assert (found.counts.throttled_records, found.counts.throttled_samples) == (1, 12)


def test_a_hot_record_with_nothing_beside_it_is_kept_and_doubted() -> None:
    hot = timed(samples_ms=(3.0,) * 12, thermal_states=("serious",))
    found = observe(ProfileSet(records=(hot, timed("other"))))
    doubts = {item.summary.subject: item.sd_ratio for item in found.networks}
    assert doubts["net"] >= 0.1
    assert doubts["other"] < 0.01


def test_an_anchor_makes_a_hot_record_usable() -> None:
    hot = timed(samples_ms=(3.0,) * 12, anchor_ms=(1.5,) * 12, thermal_states=("serious",))
    cool = timed("other", anchor_ms=(1.0,) * 12)
    found = observe(ProfileSet(records=(cool, cool, hot)))
    assert {item.summary.centre_ms for item in found.networks} == {2.0}
    assert found.counts.anchored_records == 1
    assert found.counts.throttled_records == 0


def test_a_drifting_record_gives_way_to_a_steady_one() -> None:
    drifting = timed(samples_ms=tuple(2.0 + 0.15 * index for index in range(12)))
    found = observe(ProfileSet(records=(drifting, timed())))
    assert found.networks[0].summary.centres_ms == (2.0,)
    assert found.counts.drifting_records == 1


def test_a_slow_start_beyond_the_stated_warmup_is_left_out() -> None:
    found = observe(ProfileSet(records=(timed(samples_ms=(9.0, 6.0, 4.0, *STEADY)),)))
    assert found.networks[0].summary.num_samples == 12
    assert found.counts.warmup_samples == 3


def test_each_os_version_keeps_its_own_machine_speed() -> None:
    old = timed("net", anchor_ms=(1.0,) * 12)
    new = timed("net", samples_ms=(2.6,) * 12, anchor_ms=(1.3,) * 12, device=NEW, taken_at="2026-02-01")
    found = observe(ProfileSet(records=(old, new)))
    assert [item.summary.centre_ms for item in found.networks] == [2.6, 2.0]  # "newer" sorts before "os"
    assert [anchor.time_ms for _, anchor in found.anchors] == [1.3, 1.0]
    assert found.latest(found.groups) == Group(os_build="newer", compute_unit="cpu")


def test_a_figure_published_by_others_is_known_to_five_per_cent() -> None:
    found = observe(ProfileSet(records=(timed(samples_ms=(2.0,), statistic="median", num_runs=50),)))
    assert found.networks[0].sd_ratio == pytest.approx(0.05)


def test_repeats_that_disagree_raise_the_standard_error() -> None:
    records = tuple(timed(samples_ms=(time_ms,) * 12, taken_at=str(time_ms)) for time_ms in (1.8, 2.0, 2.2))
    found = observe(ProfileSet(records=records))
    # Logarithms -0.105, 0 and 0.095 around 2 ms: deviation 0.1003, over the root of three.
    assert found.networks[0].sd_ratio == pytest.approx(0.1003 / 3**0.5, rel=1e-3)


def test_failures_become_bounds_and_infeasible_subjects() -> None:
    records = (
        timed(),
        failed("slow", Failure(stage="timeout", message="30 s passed", limit_ms=3e4)),
        failed("big", Failure(stage="out_of_memory", message="killed", limit_mb=3000.0)),
        failed("odd", Failure(stage="compile", message="conv3d is not supported"), level="block"),
    )
    found = observe(ProfileSet(records=records))
    assert [(bound.subject, bound.limit_ms, bound.limit_mb) for bound in found.bounds] == [
        ("slow", 3e4, None),
        ("big", None, 3000.0),
    ]
    assert [(item.subject, item.level, item.stage, item.reason) for item in found.infeasible] == [
        ("big", "network", "out_of_memory", "killed"),
        ("odd", "block", "compile", "conv3d is not supported"),
    ]


@pytest.mark.parametrize(("ran_at", "left"), [("2025-12-01", 1), ("2026-06-01", 0)])
def test_a_failure_stands_until_the_subject_has_run(ran_at: str, left: int) -> None:
    records = (failed("net", Failure(stage="compile", message="no")), timed(taken_at=ran_at))
    assert len(observe(ProfileSet(records=records)).infeasible) == left
