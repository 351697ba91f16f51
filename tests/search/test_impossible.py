"""What a user reads when a budget cannot be kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nas.core.cost import Budget, DeviceBudget, Infeasibility
from nas.core.errors import BudgetError
from nas.search.exact import AdditiveCosts, SlotSum
from nas.search.exact.joint import JointCosts
from nas.search.exact.requirements import Requirement
from nas.search.impossible import refuse_impossible

# Fast is large: 10 ms with 80 parameters, or 30 ms with 20.
COSTS = AdditiveCosts(
    latency_ms=SlotSum.of([[8.0, 28.0]], base=0.0),
    latency_high_ms=SlotSum.of([[10.0, 30.0]], base=0.0),
    activation_mb=(np.array([5.0, 5.0]),),
    parameters=SlotSum.of([[80.0, 20.0]]),
)


def refusal(costs: AdditiveCosts | JointCosts, budget: Budget) -> BudgetError:
    with pytest.raises(BudgetError) as caught:
        refuse_impossible(costs, budget, space="small/1")
    return caught.value


def test_a_limit_below_every_architecture_is_named_with_the_least_figure() -> None:
    error = refusal(COSTS, Budget(latency_ms=8.0, parameters=100))
    assert error.exit_code == 4
    assert error.message == (
        "no architecture of small/1 meets the budget: latency_ms allows 8 ms, the least of any is 10 ms (the upper end "
        "of its 90% interval), 25% over it; the smallest violation is 25% over every limit at once"
    )
    assert error.hint == (
        "the binding limit is latency_ms: allow at least latency_ms 10 ms; or lower budget.coverage, or calibrate with "
        "more measurements"
    )
    assert [problem.path for problem in error.problems] == ["budget.latency_ms"]


@pytest.mark.parametrize("least", [10.04, 999.6, 1000.2, 73_123.4, 0.12345, 30.0])
def test_the_limit_that_a_hint_names_can_be_kept(least: float) -> None:
    costs = replace(COSTS, latency_high_ms=SlotSum.of([[least, 2 * least]], base=0.0))
    hint = str(refusal(costs, Budget(latency_ms=least / 2)).hint)
    named = float(hint.partition("at least latency_ms ")[2].partition(" ms")[0].replace(",", ""))
    assert named == pytest.approx(least, rel=1e-2)
    refuse_impossible(costs, Budget(latency_ms=named), space="small/1")


def test_limits_that_hold_only_one_at_a_time_are_told_apart() -> None:
    error = refusal(COSTS, Budget(latency_ms=20.0, parameters=40, peak_memory_mb=6.0))
    assert "latency_ms and parameters cannot both hold: some architecture of small/1 keeps each" in error.message
    assert "the smallest violation is 50% over" in error.message
    assert "latency_ms 30 ms with the others kept, or parameters 80 with the others kept" in str(error.hint)
    assert [problem.path for problem in error.problems] == ["budget.latency_ms", "budget.parameters"]


def test_further_devices_and_packages_are_named() -> None:
    other = Requirement(name="latency_ms on iphone12", table=SlotSum.of([[90.0, 50.0]]), limit=60.0)
    package = Requirement(name="package_mb", table=SlotSum.of([[1.0, 2.0]]), limit=1.5)
    budget = Budget(latency_ms=100.0, devices=(DeviceBudget(device="iphone12", latency_ms=60.0),))
    error = refusal(replace(COSTS, requirements=(other, package)), budget)
    assert "latency_ms on iphone12 and package_mb cannot both hold" in error.message
    assert [problem.path for problem in error.problems] == ["devices.iphone12.budget.latency_ms", "budget.package_mb"]


def test_nothing_that_runs_is_told_with_its_reason() -> None:
    costs = replace(COSTS, runs=(np.array([False, False]),))
    fault = Infeasibility(block="mid", compute_unit="neural_engine", reason="rank is 5, at most 4", source="a guide")
    with pytest.raises(BudgetError, match=r"runs on the device: mid on neural_engine: rank is 5.* \(a guide\)"):
        refuse_impossible(costs, Budget(), space="small/1", faults=(fault,))


def test_one_scenario_that_can_be_kept_is_enough() -> None:
    slower = replace(COSTS, latency_high_ms=SlotSum.of([[50.0, 70.0]]))
    refuse_impossible(JointCosts(parts=(slower, COSTS)), Budget(latency_ms=12.0), space="small/1")
    error = refusal(JointCosts(parts=(slower, COSTS)), Budget(latency_ms=8.0))
    assert "in any of 2 scenarios" in error.message
    assert "the least of any is 10 ms" in error.message


def test_a_budget_that_can_be_kept_passes() -> None:
    refuse_impossible(COSTS, Budget(latency_ms=30.0, parameters=20, peak_memory_mb=5.0), space="small/1")
