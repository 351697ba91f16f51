"""Budgets look at the upper ends of intervals."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nas.core.cost import Budget, CostEstimate, DeviceBudget, DeviceCost, Infeasibility, Interval, UpperEnds
from nas.core.schema import from_data, to_data


def make_cost(*, latency_high_ms: float = 10.0, memory_high_mb: float = 10.0, parameters: int = 10) -> CostEstimate:
    return CostEstimate(
        latency_ms=5.0,
        latency_interval_ms=Interval(low=1.0, high=latency_high_ms, coverage=0.9),
        peak_memory_mb=5.0,
        memory_interval_mb=Interval(low=1.0, high=memory_high_mb, coverage=0.9),
        parameters=parameters,
        blocks=(),
        device="simulated",
        scenario="test",
        predictor="test",
        origin="simulated",
    )


@pytest.mark.parametrize(("upper_ms", "feasible"), [(4999.0, True), (5000.0, True), (5001.0, False)])
def test_budget_uses_upper_end_of_interval(upper_ms: float, feasible: bool) -> None:
    assert (Budget(latency_ms=5000.0).violations(make_cost(latency_high_ms=upper_ms)) == ()) is feasible


def test_every_broken_limit_is_listed_with_its_excess() -> None:
    cost = make_cost(latency_high_ms=110.0, memory_high_mb=30.0, parameters=15)
    broken = Budget(latency_ms=100.0, peak_memory_mb=20.0, parameters=10).violations(cost)
    assert [violation.limit for violation in broken] == ["latency_ms", "peak_memory_mb", "parameters"]
    assert [violation.excess_ratio for violation in broken] == pytest.approx([0.1, 0.5, 0.5])


@pytest.mark.parametrize(("low", "high", "coverage"), [(2.0, 1.0, 0.9), (0.0, float("inf"), 0.9), (0.0, 1.0, 0.0)])
def test_impossible_intervals_are_refused(low: float, high: float, coverage: float) -> None:
    with pytest.raises(ValueError, match="interval"):
        Interval(low=low, high=high, coverage=coverage)


def test_costs_must_be_finite() -> None:
    with pytest.raises(ValueError, match="latency_ms must be finite"):
        CostEstimate(
            latency_ms=float("nan"),
            latency_interval_ms=Interval(low=0.0, high=1.0, coverage=0.9),
            peak_memory_mb=1.0,
            memory_interval_mb=Interval(low=0.0, high=1.0, coverage=0.9),
            parameters=1,
            blocks=(),
            device="d",
            scenario="s",
            predictor="p",
            origin="predicted",
        )


def test_a_block_that_runs_nowhere_breaks_every_budget_and_says_why() -> None:
    units = ("neural_engine", "cpu")
    faults = tuple(
        Infeasibility(block="mid.0.temporal", compute_unit=unit, reason=f"too large for {unit}", source="a guide")
        for unit in units
    )
    broken = Budget().violations(replace(make_cost(), infeasible=faults))
    assert [(violation.limit, violation.allowed, violation.value) for violation in broken] == [("placement", 0.0, 1.0)]
    assert broken[0].reason == "mid.0.temporal on neural_engine: too large for neural_engine (a guide)"


def test_costs_written_before_phases_are_still_read() -> None:
    data = to_data(make_cost())
    del data["phases"]
    assert from_data(CostEstimate, data).phases == ()


def test_a_probability_is_held_against_one_sided_ends() -> None:
    cost = replace(make_cost(latency_high_ms=200.0), upper=UpperEnds(level=0.95, latency_ms=90.0, memory_mb=9.0))
    assert Budget(latency_ms=100.0).violations(cost)[0].value == 200.0
    assert Budget(latency_ms=100.0, probability=0.95).violations(cost) == ()
    broken = Budget(latency_ms=80.0, peak_memory_mb=8.0, probability=0.95).violations(cost)
    assert [(item.limit, item.value) for item in broken] == [("latency_ms", 90.0), ("peak_memory_mb", 9.0)]


def test_limits_that_a_cost_knows_nothing_of_are_no_silent_pass() -> None:
    with pytest.raises(ValueError, match="no one-sided ends"):
        Budget(latency_ms=1.0, probability=0.9).violations(make_cost())
    with pytest.raises(ValueError, match="no package_mb"):
        Budget(package_mb=1.0).violations(make_cost())
    with pytest.raises(ValueError, match="nothing of device 'other'"):
        Budget(devices=(DeviceBudget(device="other", latency_ms=1.0),)).violations(make_cost())


def test_limits_of_further_devices_name_the_device() -> None:
    other = DeviceCost(
        device="other",
        latency_ms=50.0,
        latency_interval_ms=Interval(low=40.0, high=60.0, coverage=0.8),
        peak_memory_mb=5.0,
        memory_interval_mb=Interval(low=1.0, high=30.0, coverage=0.8),
        predictor="test",
        origin="measured",
        package_mb=3.0,
    )
    cost = replace(make_cost(), devices=(other,), combined_ms=50.0, package_mb=4.0)
    limits = DeviceBudget(device="other", latency_ms=55.0, peak_memory_mb=40.0, package_mb=2.0)
    broken = Budget(latency_ms=1000.0, package_mb=4.0, devices=(limits,)).violations(cost)
    assert [(item.device, item.limit, item.value) for item in broken] == [
        ("other", "latency_ms", 60.0),
        ("other", "package_mb", 3.0),
    ]
    assert cost.objective_ms == 50.0
    assert make_cost().objective_ms == make_cost().latency_ms
    assert from_data(CostEstimate, to_data(cost)) == cost


def test_costs_and_budgets_written_before_these_limits_are_still_read() -> None:
    cost, budget = to_data(make_cost()), to_data(Budget(latency_ms=3.0))
    for name in ("package_mb", "upper", "devices", "combined_ms"):
        del cost[name]
    for name in ("package_mb", "probability", "runs_on", "devices"):
        del budget[name]
    assert from_data(CostEstimate, cost) == make_cost()
    assert from_data(Budget, budget) == Budget(latency_ms=3.0)
