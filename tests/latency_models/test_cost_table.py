"""The table, the single estimate and the predictor itself agree on every architecture."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from latency_models import devices
from latency_models.cost_table import compile_cost_table
from latency_models.domain import fit_domain
from latency_models.phases import PhasePrice, Pipeline, Range
from latency_models.predictors.block_table import (
    BlockRise,
    CalibratedModel,
    CalibratedPredictor,
    GroupTable,
    KindEffect,
    TableEntry,
)
from latency_models.predictors.roofline import RooflinePredictor
from latency_models.pricing import IntervalRatios, predict
from nas.core.errors import ArchitectureError, ConfigError, InputError
from nas.pipeline.costs import additive_costs

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
            os_build="os",
            compute_unit="cpu",
            prior_device="host_cpu",
            scenario="8x32x32 float32 cpu_only",
            precision="float32",
            tables=(
                GroupTable(
                    os_build="os",
                    compute_unit="cpu",
                    num_records=20,
                    ratio=1.0,
                    ratio_sd=0.0,
                    network_anchor=None,
                    overhead_ms=0.4,
                    ms_per_weight_mb=0.3,
                    entries=(TableEntry(signature="thin(elements=4000,inner=2000)", latency_ms=0.7, measured=True),),
                    kinds=(
                        KindEffect(kind="", scale=1.3, extra_ms=0.02),
                        KindEffect(kind="mix", scale=0.8, extra_ms=0.01),
                    ),
                ),
            ),
            rises=(BlockRise(signature="thin(elements=4000,inner=2000)", inside_mb=0.031),),
            inside_scale=1.2,
            memory_scale=0.97,
            memory_offset_mb=0.004,
            ratios=IntervalRatios(coverage=0.9, latency=(0.9, 1.1), outside=(0.5, 2.0), memory=(0.9, 1.2)),
            data_sha256="0" * 64,
            num_networks=10,
        )
    )


def phase(name: Any, latency_ms: float, *, weights_mb: float | None, activation_mb: float | None) -> PhasePrice:
    return PhasePrice(
        phase=name,
        calls=1,
        latency_ms=Range(low=0.8 * latency_ms, value=latency_ms, high=1.3 * latency_ms),
        weights_mb=weights_mb,
        activation_mb=activation_mb,
        origin="published",
        source="test",
    )


# Peaks of the small space lie between 0.1 and 0.2 MB, so that these phases matter in some architectures only.
OTHERS = (
    phase("text_encoder", 3.0, weights_mb=0.07, activation_mb=0.06),
    phase("decoder", 5.0, weights_mb=0.05, activation_mb=0.07),
    phase("overhead", 1.0, weights_mb=None, activation_mb=None),
)
PIPELINES = {
    "denoiser alone": Pipeline(),
    "together": Pipeline(phases=OTHERS),
    "together, arenas kept": Pipeline(phases=OTHERS, keeps_arenas=True),
    "in turn": Pipeline(phases=OTHERS, residency="in_turn"),
}


@pytest.mark.parametrize("pipeline", PIPELINES.values(), ids=PIPELINES)
@pytest.mark.parametrize("make", [roofline, calibrated])
def test_table_estimate_and_predictor_agree_on_every_architecture(
    space: SmallSpace, scenario: Scenario, make: Any, pipeline: Pipeline
) -> None:
    predictor = make()
    table = compile_cost_table(space, scenario, predictor, pipeline)
    everyone = list(space.all())
    scores = table.score(np.array([space.to_options(architecture) for architecture in everyone]))
    for index, architecture in enumerate(everyone):
        direct = predict(predictor, space.workload(architecture, scenario), scenario, pipeline)
        single = table.estimate(architecture)
        assert [block.block for block in single.blocks] == [block.block for block in direct.blocks]
        for mine, theirs in zip(single.blocks, direct.blocks, strict=True):
            assert mine.latency_ms == pytest.approx(theirs.latency_ms, rel=1e-12)
        assert scores.latency_ms[index] == pytest.approx(direct.latency_ms, rel=1e-12)
        assert scores.latency_high_ms[index] == pytest.approx(direct.latency_interval_ms.high, rel=1e-12)
        assert scores.latency_low_ms[index] == pytest.approx(direct.latency_interval_ms.low, rel=1e-12)
        assert scores.memory_low_mb[index] == pytest.approx(direct.memory_interval_mb.low, rel=1e-12)
        assert scores.peak_memory_mb[index] == pytest.approx(direct.peak_memory_mb, rel=1e-12)
        assert scores.memory_high_mb[index] == pytest.approx(direct.memory_interval_mb.high, rel=1e-12)
        assert scores.parameters[index] == direct.parameters == single.parameters
        assert single.latency_interval_ms.low == pytest.approx(direct.latency_interval_ms.low, rel=1e-12)
        assert single.in_domain == direct.in_domain


def test_table_and_estimate_agree_on_who_lies_outside_and_how_wide_that_is(
    space: SmallSpace, scenario: Scenario
) -> None:
    everyone = list(space.all())
    plain = calibrated()
    sparse = [plain.price(space.workload(item, scenario)) for item in everyone if 0 in space.to_options(item)]
    domain = fit_domain(sparse[:12])
    predictor = CalibratedPredictor(model=replace(plain.model, ratios=replace(plain.ratios, domain=domain)))  # type: ignore[attr-defined]
    table = compile_cost_table(space, scenario, predictor)
    scores = table.score(np.array([space.to_options(architecture) for architecture in everyone]))
    costs = [predict(predictor, space.workload(item, scenario), scenario) for item in everyone]
    assert scores.in_domain.tolist() == [cost.in_domain for cost in costs]
    assert [table.estimate(item).domain_note for item in everyone] == [cost.domain_note for cost in costs]
    assert sum("distance" in cost.domain_note for cost in costs) > 3
    for found, direct in (
        (scores.latency_low_ms, [cost.latency_interval_ms.low for cost in costs]),
        (scores.latency_high_ms, [cost.latency_interval_ms.high for cost in costs]),
    ):
        np.testing.assert_allclose(found, direct, rtol=1e-9)


@pytest.mark.parametrize("pipeline", PIPELINES.values(), ids=PIPELINES)
def test_phases_and_blocks_sum_to_the_latency(space: SmallSpace, scenario: Scenario, pipeline: Pipeline) -> None:
    cost = compile_cost_table(space, scenario, calibrated(), pipeline).estimate(space.from_options([1, 2, 3]))
    assert sum(item.latency_ms for item in cost.phases) == pytest.approx(cost.latency_ms)
    assert sum(item.latency_interval_ms.low for item in cost.phases) == pytest.approx(cost.latency_interval_ms.low)
    assert sum(item.latency_interval_ms.high for item in cost.phases) == pytest.approx(cost.latency_interval_ms.high)
    assert sum(block.latency_ms for block in cost.blocks) == pytest.approx(cost.latency_ms)
    assert max(block.memory_mb for block in cost.blocks) == pytest.approx(cost.peak_memory_mb)


def test_phases_come_in_the_order_of_a_generation(space: SmallSpace, scenario: Scenario) -> None:
    table = compile_cost_table(space, scenario, calibrated(), PIPELINES["together"])
    cost = table.estimate(space.from_options([0, 0, 0]))
    assert [(item.phase, item.calls, item.origin) for item in cost.phases] == [
        ("text_encoder", 1, "published"),
        ("denoiser", 8, "predicted"),
        ("decoder", 1, "published"),
        ("overhead", 1, "published"),
    ]


def test_slot_costs_say_what_the_scores_say(space: SmallSpace, scenario: Scenario) -> None:
    options = np.array([space.to_options(architecture) for architecture in space.all()])
    for pipeline in PIPELINES.values():
        table = compile_cost_table(space, scenario, calibrated(), pipeline)
        scores, costs = table.score(options), additive_costs(table).score(options)
        for name in ("latency_ms", "latency_high_ms", "peak_memory_mb", "memory_high_mb", "parameters"):
            np.testing.assert_allclose(getattr(costs, name), getattr(scores, name), rtol=1e-12)


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


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_table_that_holds_no_number_is_refused_with_its_place(
    space: SmallSpace, scenario: Scenario, wrong: float
) -> None:
    plain = calibrated()
    assert isinstance(plain, CalibratedPredictor)
    table = plain.model.tables[0]
    damaged = replace(table, entries=tuple(replace(entry, latency_ms=wrong) for entry in table.entries))
    predictor = CalibratedPredictor(model=replace(plain.model, tables=(damaged,)))
    with pytest.raises(InputError, match=r"prices .* of 'small/1' at what is no finite number"):
        compile_cost_table(space, scenario, predictor)


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
