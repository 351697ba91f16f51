"""The benchmark's made-up worth of scenarios is what it says, and the joint front holds every fixed one."""

from __future__ import annotations

import numpy as np
import pytest
from joint_scenario import TINY, corner, make_prices, synthetic_quality

from nas.core.cost import Budget
from nas.core.pareto import hypervolume
from nas.pipeline.costs import additive_costs
from nas.search.exact import SlotSum
from search_spaces.joint import JointSpace, ScenarioValues

SPACE = JointSpace(TINY, ScenarioValues(denoising_steps=(2, 4)))
PRICES = make_prices(SPACE)


def test_scenarios_of_weight_zero_are_worth_nothing_and_more_steps_are_worth_more() -> None:
    assert not synthetic_quality(SPACE, PRICES, weight=0.0, seed=1).slots[-1].any()
    few, many = synthetic_quality(SPACE, PRICES, weight=1.0, seed=1).slots[-1]
    assert few < many


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_no_fixed_scenario_beats_the_joint_front(weight: float) -> None:
    quality = synthetic_quality(SPACE, PRICES, weight=weight, seed=0)
    joint = additive_costs(PRICES).front(quality, Budget()).points()
    fixed = [
        additive_costs(table).front(SlotSum(slots=quality.slots[:-1], base=float(own)), Budget()).points()
        for table, own in zip(PRICES.tables, quality.slots[-1], strict=True)
    ]
    reference = corner([list(map(tuple, points)) for points in (joint, *fixed)])
    volumes = [hypervolume(list(map(tuple, points)), reference) for points in (joint, *fixed)]
    assert volumes[0] >= max(volumes[1:]) * (1 - 1e-9)
    # A scenario worth nothing is no reason to pay for more steps.
    assert (np.isclose(volumes[1], volumes[0])) == (weight == 0.0)
