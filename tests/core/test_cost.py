"""Budgets look at the upper ends of intervals."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nas.core.cost import Budget, CostEstimate, Infeasibility, Interval
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
