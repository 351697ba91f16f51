"""The table, the single estimate and the predictor itself agree on every architecture."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from latency_models import devices
from latency_models.cost_table import compile_cost_table
from latency_models.predictors.block_table import CalibratedModel, CalibratedPredictor, KindCorrection, TableEntry
from latency_models.predictors.roofline import RooflinePredictor
from latency_models.pricing import IntervalRatios, predict
from nas.core.errors import ArchitectureError, ConfigError

if TYPE_CHECKING:
    from latency_models.pricing import CostPredictor
    from nas.core.scenario import Scenario
    from tests.latency_models.conftest import SmallSpace


def roofline() -> CostPredictor:
    return RooflinePredictor(devices.get("host_cpu"), precision="float32", compute_units="cpu_only")


def calibrated() -> CostPredictor:
    """A predictor that uses every term, with one block measured and the rest outside the domain."""
    return CalibratedPredictor(
        model=CalibratedModel(
            device="host-cpu",
            compute_unit="cpu",
            prior_device="host_cpu",
            scenario="8x32x32 float32 cpu_only",
            precision="float32",
            network_anchor=None,
            table=(TableEntry(signature="thin(elements=4000,inner=2000)", latency_ms=0.7, inside_mb=0.031),),
            corrections=(KindCorrection(kind="mix", scale=0.8, extra_ms=0.01),),
            fallback_scale=1.3,
            table_scale=1.1,
            block_extra_ms=0.02,
            overhead_ms=0.4,
            ms_per_weight_mb=0.3,
            inside_scale=1.2,
            memory_scale=0.97,
            memory_offset_mb=0.004,
            ratios=IntervalRatios(coverage=0.9, latency=(0.9, 1.1), outside=(0.5, 2.0), memory=(0.9, 1.2)),
            data_sha256="0" * 64,
            num_networks=10,
        )
    )


@pytest.mark.parametrize("make", [roofline, calibrated])
def test_table_estimate_and_predictor_agree_on_every_architecture(
    space: SmallSpace, scenario: Scenario, make: Any
) -> None:
    predictor = make()
    table = compile_cost_table(space, scenario, predictor)
    everyone = list(space.all())
    scores = table.score(np.array([space.to_options(architecture) for architecture in everyone]))
    for index, architecture in enumerate(everyone):
        direct = predict(predictor, space.workload(architecture, scenario), scenario)
        single = table.estimate(architecture)
        assert [block.block for block in single.blocks] == [block.block for block in direct.blocks]
        for mine, theirs in zip(single.blocks, direct.blocks, strict=True):
            assert mine.latency_ms == pytest.approx(theirs.latency_ms, rel=1e-12)
        assert scores.latency_ms[index] == pytest.approx(direct.latency_ms, rel=1e-12)
        assert scores.latency_high_ms[index] == pytest.approx(direct.latency_interval_ms.high, rel=1e-12)
        assert scores.peak_memory_mb[index] == pytest.approx(direct.peak_memory_mb, rel=1e-12)
        assert scores.memory_high_mb[index] == pytest.approx(direct.memory_interval_mb.high, rel=1e-12)
        assert scores.parameters[index] == direct.parameters == single.parameters
        assert single.latency_interval_ms.low == pytest.approx(direct.latency_interval_ms.low, rel=1e-12)
        assert single.in_domain == direct.in_domain


def test_blocks_sum_to_the_latency_and_end_with_the_overhead(space: SmallSpace, scenario: Scenario) -> None:
    table = compile_cost_table(space, scenario, calibrated())
    cost = table.estimate(space.from_options([1, 2, 3]))
    assert sum(block.latency_ms for block in cost.blocks) == pytest.approx(cost.latency_ms)
    assert (cost.blocks[-1].block, cost.blocks[-1].latency_ms) == ("overhead", pytest.approx(8 * 0.4))
    assert max(block.memory_mb for block in cost.blocks) == pytest.approx(cost.peak_memory_mb)


def test_score_of_no_candidates_is_empty(space: SmallSpace, scenario: Scenario) -> None:
    scores = compile_cost_table(space, scenario, roofline()).score(np.zeros((0, 3), dtype=int))
    assert scores.latency_ms.shape == scores.parameters.shape == (0,)


def test_more_candidates_than_one_chunk_are_scored_alike(space: SmallSpace, scenario: Scenario) -> None:
    table = compile_cost_table(space, scenario, roofline())
    one = table.score(np.array([[1, 2, 3]]))
    many = table.score(np.tile([1, 2, 3], (70_000, 1)))
    assert many.latency_ms.shape == (70_000,)
    assert set(many.latency_ms) == set(one.latency_ms)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (np.zeros((2, 4), dtype=int), r"shape \(N, 3\), got \(2, 4\)"),
        (np.array([[0, 0, 4]]), "must lie in 0 to"),
        (np.array([[-1, 0, 0]]), "must lie in 0 to"),
        (np.zeros((1, 3)), "whole numbers, got float64"),
    ],
)
def test_senseless_options_are_refused(space: SmallSpace, scenario: Scenario, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compile_cost_table(space, scenario, roofline()).score(options)


def test_another_scenario_is_refused(space: SmallSpace, scenario: Scenario) -> None:
    with pytest.raises(ConfigError, match="not for '8x64x32"):
        compile_cost_table(space, replace(scenario, height=64), calibrated())


def test_a_space_whose_slots_interact_is_refused(space: SmallSpace, scenario: Scenario) -> None:
    class Interacting(type(space)):  # type: ignore[misc]  # a fixture's class
        def workload(self, architecture: Any, scenario: Any) -> Any:
            plain = super().workload(architecture, scenario)
            filled = sum(value != "none" for value in architecture.values())
            first = plain.operations[0]
            heavier = replace(first, flops=first.flops * (1 + 50 * max(filled - 1, 0)))
            return replace(plain, operations=(heavier, *plain.operations[1:]))

    with pytest.raises(ArchitectureError, match=r"space 'small/1': latency_ms of .* does not add up over slots"):
        compile_cost_table(Interacting(), scenario, roofline())
