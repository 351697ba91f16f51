"""A budget that demands compute units excludes blocks by the device's rules and by recorded failures."""

from __future__ import annotations

import numpy as np
import pytest

import search_spaces
from latency_models import Demands, RooflinePredictor, compile_cost_table, device
from latency_models.eligibility import Eligibility
from latency_models.failures import Infeasible
from latency_models.predictors.roofline import placed_units
from nas.core.scenario import Scenario

SPACE = search_spaces.get("tiny")
SCENARIO = Scenario(
    frames=8, height=32, width=32, denoising_steps=4, guidance=False, precision="float16", compute_units="cpu_and_ne"
)
PHONE = device("iphone15_pro")
ENGINE = placed_units(PHONE, "cpu_and_ne", "float16")[:1]


def test_layers_that_the_engine_refuses_are_excluded_and_say_why() -> None:
    allowed = compile_cost_table(SPACE, SCENARIO, RooflinePredictor(PHONE, compute_units="cpu_and_ne"))
    demanded = compile_cost_table(
        SPACE,
        SCENARIO,
        RooflinePredictor(PHONE, compute_units="cpu_and_ne"),
        demands=Demands(eligibility=Eligibility(device=PHONE.name, units=ENGINE)),
    )
    volumes = [
        "conv3d" in str(SPACE.from_options([option, *[0] * (len(demanded.num_options) - 1)]).choices)
        for option in range(demanded.num_options[0])
    ]
    runs = demanded.slot_costs().runs[0]
    assert all(row.all() for row in allowed.slot_costs().runs)
    assert any(volumes)
    assert [bool(value) for value in runs] == [not volume for volume in volumes]
    stuck = SPACE.from_options([volumes.index(True), *[0] * (len(demanded.num_options) - 1)])
    cost = demanded.estimate(stuck)
    assert {fault.compute_unit for fault in cost.infeasible} == {"neural_engine"}
    assert "must run there by budget.runs_on, but" in cost.infeasible[0].reason
    assert cost.infeasible[0].source
    assert demanded.score(np.array([SPACE.to_options(stuck)])).infeasible.all()


def test_a_recorded_failure_excludes_a_block_unless_another_demanded_unit_runs_it() -> None:
    workload = SPACE.workload(SPACE.from_options([1, *[0] * (len(SPACE.slots()) - 1)]), SCENARIO)
    name, spec = workload.blocks[0]
    failure = Infeasible(
        subject=spec.signature, level="block", compute_unit="neural_engine", stage="compile", reason="error -14"
    )
    alone = Eligibility(device=PHONE.name, units=ENGINE, failures=(failure,)).faults(workload)
    assert [(fault.block, fault.reason) for fault in alone if fault.block == name] == [(name, "compile: error -14")]
    both = Eligibility(device=PHONE.name, units=placed_units(PHONE, "cpu_and_ne", "float16"), failures=(failure,))
    assert both.faults(workload) == ()


def test_no_units_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one unit"):
        Eligibility(device="phone", units=())
