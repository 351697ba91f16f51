"""The probability of keeping a limit is the level of the one-sided end that equals it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from latency_models import Demands, compile_cost_table
from latency_models.meeting import Meeting, Moved
from latency_models.phases import Pipeline
from nas.core.cost import Infeasibility
from tests.latency_models.test_chances import with_laws
from tests.latency_models.test_cost_table import PIPELINES, roofline

if TYPE_CHECKING:
    from nas.core.scenario import Scenario
    from tests.latency_models.conftest import SmallSpace


@pytest.mark.parametrize("level", [0.7, 0.9, 0.97])
@pytest.mark.parametrize("name", PIPELINES)
def test_a_limit_at_the_end_of_a_level_is_kept_with_that_probability(
    space: SmallSpace, scenario: Scenario, level: float, name: str
) -> None:
    for predictor in (with_laws(space, scenario), roofline()):
        table = compile_cost_table(space, scenario, predictor, PIPELINES[name], Demands(level=level))
        for network in list(space.all())[::7]:
            upper = table.estimate(network).upper
            assert upper is not None
            found = Meeting(table, latency_ms=upper.latency_ms, memory_mb=None).probability(network)
            assert found == pytest.approx(level, abs=1e-6)


def test_both_limits_together_miss_no_more_than_each_does(space: SmallSpace, scenario: Scenario) -> None:
    table = compile_cost_table(space, scenario, roofline(), demands=Demands(level=0.95))
    network = next(iter(space.all()))
    upper = table.estimate(network).upper
    assert upper is not None
    both = Meeting(table, latency_ms=upper.latency_ms, memory_mb=upper.memory_mb)
    assert both.probability(network) == pytest.approx(0.9, abs=1e-6)
    assert Meeting(table, latency_ms=None, memory_mb=None).probability(network) == 1.0


def test_a_selection_that_shifts_and_widens_lowers_the_probability(space: SmallSpace, scenario: Scenario) -> None:
    table = compile_cost_table(space, scenario, with_laws(space, scenario), demands=Demands(level=0.9))
    network = next(iter(space.all()))
    upper = table.estimate(network).upper
    assert upper is not None
    meeting = Meeting(table, latency_ms=upper.latency_ms, memory_mb=None)
    shifted, widened = Moved(shift_ratio=1.05), Moved(widening_ratio=1.5)
    assert meeting.probability(network, shifted) < meeting.probability(network)
    assert meeting.probability(network, widened) < meeting.probability(network)
    assert meeting.probability(network, Moved(shift_ratio=100.0)) == 0.0


def test_what_does_not_run_keeps_nothing(space: SmallSpace, scenario: Scenario) -> None:
    fault = Infeasibility(block="decoder", compute_unit="cpu", reason="too large", source="a guide")
    stuck = Pipeline(phases=(replace(PIPELINES["together"].phases[1], infeasible=(fault,)),))
    table = compile_cost_table(space, scenario, roofline(), stuck)
    assert Meeting(table, latency_ms=1e9, memory_mb=None).probability(next(iter(space.all()))) == 0.0


def test_the_basis_says_what_nothing_has_checked(space: SmallSpace, scenario: Scenario) -> None:
    prior = compile_cost_table(space, scenario, roofline(), demands=Demands(level=0.95))
    assert "log-normal, unchecked" in Meeting(prior, latency_ms=1.0, memory_mb=None).basis()
    known = compile_cost_table(space, scenario, with_laws(space, scenario))
    text = Meeting(known, latency_ms=1.0, memory_mb=None).basis()
    assert text.startswith("held-out errors of 24 networks; above 0.96, the most that so many can tell")
