"""The memory line: exact on exact readings, unmoved by an odd network, pushed up by networks that ran out of memory."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latency_models.memory_fit import MemoryReading, fit_memory, memory_reading, network_readings
from nas.core.profile import Failure, MemoryReadings, ProfileSet

if TYPE_CHECKING:
    from nas.core.scenario import Scenario
    from tests.latency_models.conftest import SmallSpace

ESTIMATES = [100.0, 150.0, 220.0, 300.0, 450.0, 600.0, 800.0, 900.0]


def exactly(values: list[float]) -> list[MemoryReading]:
    return [MemoryReading(value_mb=value) for value in values]


def test_a_line_is_found_exactly_and_one_odd_network_does_not_move_it() -> None:
    readings = exactly([35.0 + 1.25 * value for value in ESTIMATES])
    odd = [*readings[:3], MemoryReading(value_mb=9000.0), *readings[4:]]
    for given_readings in (readings, odd):
        line = fit_memory(ESTIMATES, given_readings)
        assert (line.scale, line.constant_mb) == (pytest.approx(1.25), pytest.approx(35.0))


def test_bounds_below_the_line_change_nothing() -> None:
    readings = exactly([35.0 + 1.25 * value for value in ESTIMATES])
    bounds = [MemoryReading(value_mb=value, at_least=True) for value in (500.0, 700.0)]
    line = fit_memory([*ESTIMATES, 1000.0, 1200.0], [*readings, *bounds])
    assert (line.scale, line.constant_mb) == (pytest.approx(1.25), pytest.approx(35.0))
    assert (line.num_readings, line.num_censored) == (10, 2)


def test_networks_that_ran_out_of_memory_raise_the_line() -> None:
    # Small networks only have readings; the large ones fail at a limit far above where the line of the small ones is.
    readings = exactly([20.0 + value for value in ESTIMATES[:5]])
    bounds = [MemoryReading(value_mb=3000.0, at_least=True)] * 5
    estimates = [*ESTIMATES[:5], 1200.0, 1300.0, 1400.0, 1500.0, 1600.0]
    without = fit_memory(estimates[:5], readings)
    fitted = fit_memory(estimates, [*readings, *bounds])
    assert fitted.at(1500.0) > without.at(1500.0)
    naive = fit_memory(estimates, [*readings, *exactly([3000.0] * 5)])
    assert fitted.at(1600.0) >= naive.at(1600.0) - 1e-6


@settings(deadline=None, max_examples=50)
@given(
    readings=st.lists(st.tuples(st.floats(1, 1000), st.floats(1, 2000)), min_size=5, max_size=12),
    bounds=st.lists(st.tuples(st.floats(1, 1000), st.floats(1, 2000)), min_size=1, max_size=5),
)
def test_every_fit_is_finite_and_rises(readings: list[tuple[float, float]], bounds: list[tuple[float, float]]) -> None:
    pairs = [*readings, *bounds]
    kinds = [False] * len(readings) + [True] * len(bounds)
    line = fit_memory(
        [estimate for estimate, _ in pairs],
        [MemoryReading(value_mb=value, at_least=kind) for (_, value), kind in zip(pairs, kinds, strict=True)],
    )
    assert np.isfinite([line.scale, line.constant_mb]).all()
    assert line.scale > 0


def test_few_readings_fit_the_constant_alone() -> None:
    line = fit_memory([10.0, 20.0, 40.0], exactly([15.0, 24.0, 46.0]))
    assert (line.scale, line.constant_mb) == (1.0, 5.0)


def test_no_reading_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one reading"):
        fit_memory([], [])


@pytest.mark.parametrize(
    ("memory", "expected"),
    [
        # On the GPU most is in the app; on the Neural Engine most is elsewhere. The larger counts, less the weights.
        ({"footprint_unloaded_mb": 50, "footprint_peak_mb": 1050, "system_free_before_mb": 3000,
          "system_free_min_mb": 2200}, 900.0),
        ({"footprint_unloaded_mb": 50, "footprint_peak_mb": 150, "system_wired_before_mb": 500,
          "system_wired_max_mb": 3000}, 2400.0),
        ({"footprint_peak_mb": 150}, None),
        # Less than the weights: they are not in it, and nobody knows how much of it is activations.
        ({"footprint_unloaded_mb": 50, "footprint_peak_mb": 120}, None),
    ],
)  # fmt: skip
def test_the_larger_of_both_numbers_counts(record: Any, memory: dict[str, float], expected: float | None) -> None:
    readings = MemoryReadings(**{name: float(value) for name, value in memory.items()})
    found = memory_reading(record(memory_mb=None, memory=readings), weights_mb=100.0)
    assert (None if found is None else found.value_mb) == expected


def test_a_rise_above_the_loaded_network_is_taken_as_it_is(record: Any) -> None:
    assert memory_reading(record(memory_mb=12.5), weights_mb=100.0) == MemoryReading(value_mb=12.5)


def test_running_out_of_memory_is_a_bound_and_other_failures_say_nothing(record: Any) -> None:
    def failed(**failure: Any) -> Any:
        return record(memory_mb=None, samples_ms=(), warmup=0, failure=Failure(message="no", **failure))

    found = memory_reading(failed(stage="out_of_memory", limit_mb=3000.0), weights_mb=600.0)
    assert found == MemoryReading(value_mb=2400.0, at_least=True)
    assert memory_reading(failed(stage="compile"), weights_mb=600.0) is None


def test_readings_of_a_network_are_its_largest_and_beat_its_bounds(
    record: Any, space: SmallSpace, scenario: Scenario
) -> None:
    workload = space.workload(space.from_options([0, 0, 0]), scenario)
    seen, other = record("a", memory_mb=2.0), record("b", memory_mb=3.0)
    failure = Failure(stage="out_of_memory", message="no", limit_mb=900.0)
    bound = replace(record("a", memory_mb=None), samples_ms=(), warmup=0, failure=failure)
    profiles = ProfileSet(records=(seen, bound, record("a", memory_mb=2.5), other, record("block", level="block")))
    found = network_readings(profiles, {"a": workload, "block": workload})
    # The space's input of 500 floats is held by the caller and no part of a measured rise.
    assert found == {"a": MemoryReading(value_mb=2.5 + 0.002)}
