"""What failed on a device when it was measured does not run: blocks, and networks whose blocks all do."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from latency_models import devices
from latency_models.cost_table import compile_cost_table
from latency_models.failures import Infeasible, failures_on_record
from latency_models.predictors.block_table import CalibratedPredictor
from latency_models.predictors.roofline import RooflinePredictor
from nas.core.cost import Budget
from nas.core.profile import Failure, ProfileSet
from tests.latency_models.test_predictors import model

if TYPE_CHECKING:
    from latency_models.pricing import CostPredictor
    from nas.core.scenario import Scenario
    from tests.latency_models.conftest import SmallSpace


def failed(record: Any, subject: str, failure: Failure, **changes: Any) -> Any:
    return replace(record(subject, samples_ms=(1.0, 1.0), warmup=1), samples_ms=(), warmup=0, failure=failure,
                   peak_memory_mb=None, memory_method=None, **changes)  # fmt: skip


@pytest.mark.parametrize(
    ("failure", "later_success", "count"),
    [
        (Failure(stage="compile", message="error 11"), False, 1),
        (Failure(stage="compile", message="error 11"), True, 0),
        (Failure(stage="out_of_memory", message="killed", limit_mb=900.0), False, 1),
        (Failure(stage="timeout", message="too slow", limit_ms=5000.0), False, 0),  # a bound on its time instead
    ],
)
def test_a_failure_holds_until_the_subject_runs_or_was_only_slow(
    record: Any, failure: Failure, later_success: bool, count: int
) -> None:
    records = [failed(record, "net", failure, taken_at="2026-01-02T00:00:00")]
    records += [record("net", taken_at="2026-01-03T00:00:00")] if later_success else []
    found = failures_on_record(ProfileSet(records=tuple(records)))
    assert [item.subject for item in found] == ["net"] * count


def predictors(failures: tuple[Infeasible, ...]) -> dict[str, CostPredictor]:
    return {
        "prior": RooflinePredictor(
            devices.get("host_cpu"), precision="float32", compute_units="cpu_only", failures=failures
        ),
        "calibrated": CalibratedPredictor(model=model(infeasible=failures)),
    }


@pytest.mark.parametrize("kind", ["prior", "calibrated"])
@pytest.mark.parametrize(("unit", "count"), [("cpu", 1), ("gpu", 0)])
def test_a_network_that_failed_is_screened_although_its_blocks_run(
    space: SmallSpace, scenario: Scenario, kind: str, unit: Any, count: int
) -> None:
    victim, other = space.from_options([1, 0, 2]), space.from_options([1, 0, 1])
    failure = Infeasible(
        subject=victim.digest, level="network", compute_unit=unit, stage="load", reason="not enough memory"
    )
    predictor = predictors((failure,))[kind]
    table = compile_cost_table(space, scenario, predictor)
    cost = table.estimate(victim)
    assert [(fault.block, fault.compute_unit, fault.reason) for fault in cost.infeasible] == [
        ("network", "cpu", "load: not enough memory")
    ] * count
    assert [violation.limit for violation in Budget().violations(cost)] == ["placement"] * count
    assert table.estimate(other).infeasible == ()
    assert cost.latency_ms == pytest.approx(latency_without_failures(kind, space, scenario, victim))
    scores = table.score(np.array([space.to_options(victim)]))
    assert not scores.infeasible[0]  # options know no digest


def latency_without_failures(kind: str, space: SmallSpace, scenario: Scenario, architecture: Any) -> float:
    """Return the latency of an architecture where nothing failed."""
    table = compile_cost_table(space, scenario, predictors(())[kind])
    return table.estimate(architecture).latency_ms


def test_every_network_of_a_space_may_have_failed(space: SmallSpace, scenario: Scenario) -> None:
    failures = tuple(
        Infeasible(subject=network.digest, level="network", compute_unit="cpu", stage="compile", reason="error 11")
        for network in space.all()
    )
    table = compile_cost_table(space, scenario, predictors(failures)["prior"])
    assert all(table.estimate(network).infeasible for network in space.all())
