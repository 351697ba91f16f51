"""The roofline prior in closed form, and the block table's fallbacks, corrections and refusals."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from latency_models import devices
from latency_models.failures import Infeasible
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
from nas.core.errors import ConfigError
from nas.core.workload import BlockSpec

if TYPE_CHECKING:
    from nas.core.scenario import Scenario
    from nas.core.workload import Workload


def figure(value: float) -> devices.Figure:
    return devices.Figure(value=value, kind="estimate", source="made up for the test", date="2026-01-01")


PHONE = devices.DeviceSpec(
    name="toy",
    label="Toy",
    chip="toy",
    ram_mb=figure(2000.0),
    usable_memory_mb=figure(1000.0),
    prior_factor=figure(2.0),
    crossing_ms=figure(0.0),
    units=(
        devices.UnitSpec(
            compute_unit="cpu",
            lowering="torch",
            peak_flops=figure(1e9),
            channel_multiple=figure(1.0),
            memory_bandwidth=figure(1e6),
            on_chip_bandwidth=figure(1e7),
            on_chip_bytes=figure(100.0),
            weight_bandwidth=figure(2e6),
            operation_overhead_ms=figure(0.25),
            segment_overhead_ms=figure(0.0),
            call_overhead_ms=figure(1.0),
        ),
    ),
)
RATIOS = IntervalRatios(coverage=0.9, latency=(0.9, 1.2), outside=(0.5, 2.0), memory=(0.8, 1.5))


def one_block(builder: Any, *, parameters: int, elements: int, kind: str = "base") -> Workload:
    made = builder()
    made.block("only", BlockSpec.of(kind, size=1))
    made.tensor("x", elements)
    made.tensor("y", elements)
    made.operation("run", ("x",), ("y",), parameters=parameters)
    return made.build(8)


def table(**changes: Any) -> GroupTable:
    values: dict[str, Any] = {
        "os_build": "22A",
        "compute_unit": "cpu",
        "num_records": 20,
        "ratio": 1.0,
        "ratio_sd": 0.0,
        "network_anchor": None,
        "overhead_ms": 0.0,
        "ms_per_weight_mb": 0.0,
        "entries": (TableEntry(signature="base(size=1)", latency_ms=3.0, measured=True),),
        "kinds": (KindEffect(kind="", scale=1.0, extra_ms=0.0),),
    }
    return GroupTable(**{**values, **changes})


def model(**changes: Any) -> CalibratedModel:
    values: dict[str, Any] = {
        "device": "host-cpu",
        "os_build": "22A",
        "compute_unit": "cpu",
        "prior_device": "host_cpu",
        "scenario": "8x32x32 float32 cpu_only",
        "precision": "float32",
        "tables": (table(),),
        "rises": (BlockRise(signature="base(size=1)", inside_mb=0.5),),
        "inside_scale": 1.0,
        "memory_scale": 1.0,
        "memory_offset_mb": 0.0,
        "ratios": RATIOS,
        "data_sha256": "ab" * 32,
        "num_networks": 12,
    }
    return CalibratedModel(**{**values, **changes})


@pytest.mark.parametrize(
    ("parameters", "elements", "expected_ms"),
    [
        (10_000, 1, 20.0 + 0.25),  # compute: 2e7 FLOP at 1e9/s; 4e4 bytes of weights at 2e6/s take as long
        (1, 1000, 8.0 + 0.25),  # two tensors of 4000 bytes through memory at 1e6/s
        (1, 20, 0.016 + 0.25),  # two tensors of 80 bytes stay on the chip: 1e7/s
    ],
)
def test_roofline_is_the_slowest_of_compute_weights_and_activations(
    workload_builder: Any, scenario: Scenario, parameters: int, elements: int, expected_ms: float
) -> None:
    predictor = RooflinePredictor(PHONE, precision="float32", compute_units="cpu_only")
    cost = predict(predictor, one_block(workload_builder, parameters=parameters, elements=elements), scenario)
    assert cost.blocks[0].latency_ms == pytest.approx(8 * expected_ms, rel=1e-3)
    assert cost.latency_ms == pytest.approx(8 * (expected_ms + 1.0), rel=1e-3)


def test_roofline_says_that_it_is_an_uncalibrated_prior(workload_builder: Any, scenario: Scenario) -> None:
    predictor = RooflinePredictor(PHONE, precision="float32", compute_units="cpu_only")
    cost = predict(predictor, one_block(workload_builder, parameters=10, elements=10), scenario)
    assert "uncalibrated" in cost.predictor
    assert not cost.in_domain
    assert cost.origin == "predicted"
    # The toy's prior_factor is 2 on everything but the fixed call overhead, which it is too: the whole is uncalibrated.
    assert cost.latency_interval_ms.high == pytest.approx(2.0 * cost.latency_ms)
    assert cost.latency_interval_ms.low == pytest.approx(0.5 * cost.latency_ms)


def test_roofline_refuses_another_precision(scenario: Scenario) -> None:
    with pytest.raises(ConfigError, match="made for float16 on cpu_and_ne, asked for float32 on cpu_only"):
        RooflinePredictor(PHONE).check_scenario(scenario)


def test_measured_block_takes_its_table_time(workload_builder: Any, scenario: Scenario) -> None:
    cost = predict(
        CalibratedPredictor(model=model()), one_block(workload_builder, parameters=10, elements=10), scenario
    )
    assert cost.latency_ms == pytest.approx(8 * 3.0)
    assert (cost.latency_interval_ms.low, cost.latency_interval_ms.high) == pytest.approx((24 * 0.9, 24 * 1.2))
    assert cost.in_domain


def test_unmeasured_block_takes_the_scaled_roofline_and_the_wide_interval(
    workload_builder: Any, scenario: Scenario
) -> None:
    workload = one_block(workload_builder, parameters=5_000_000, elements=10, kind="other")
    tables = (table(kinds=(KindEffect(kind="", scale=3.0, extra_ms=0.0),)),)
    cost = predict(CalibratedPredictor(model=model(tables=tables)), workload, scenario)
    # host_cpu prior: 1e10 FLOP at 5e10/s = 200 ms, + 0.01 ms an operation.
    assert cost.latency_ms == pytest.approx(8 * 3 * 200.01, rel=1e-6)
    assert cost.latency_interval_ms.high == pytest.approx(2.0 * cost.latency_ms)
    assert not cost.in_domain


def test_a_block_that_only_networks_speak_for_is_priced_from_the_table_outside_the_domain(
    workload_builder: Any, scenario: Scenario
) -> None:
    tables = (table(entries=(TableEntry(signature="base(size=1)", latency_ms=3.0, measured=False),)),)
    cost = predict(
        CalibratedPredictor(model=model(tables=tables)),
        one_block(workload_builder, parameters=10, elements=10),
        scenario,
    )
    assert cost.latency_ms == pytest.approx(8 * 3.0)
    assert not cost.in_domain


def test_effects_apply_to_their_kind_and_the_common_one_to_the_rest(workload_builder: Any, scenario: Scenario) -> None:
    effects = (KindEffect(kind="", scale=2.0, extra_ms=0.1), KindEffect(kind="mix", scale=1.5, extra_ms=0.5))
    predictor = CalibratedPredictor(model=model(tables=(table(kinds=effects),)))
    costs = [
        predict(predictor, one_block(workload_builder, parameters=25_000, elements=10, kind=kind), scenario)
        for kind in ("mix", "other")
    ]
    # host_cpu prior: 5e7 FLOP at 5e10/s = 1 ms, + 0.01 ms.
    assert [cost.latency_ms / 8 for cost in costs] == pytest.approx([1.5 * 1.01 + 0.5, 2.0 * 1.01 + 0.1])


def test_weights_and_calls_take_their_time(workload_builder: Any, scenario: Scenario) -> None:
    predictor = CalibratedPredictor(model=model(tables=(table(ms_per_weight_mb=2.0, overhead_ms=0.25),)))
    cost = predict(predictor, one_block(workload_builder, parameters=250_000, elements=10), scenario)
    assert cost.latency_ms == pytest.approx(8 * (3.0 + 2.0 * 1.0 + 0.25))


def test_corrections_never_take_more_than_nine_tenths_away(workload_builder: Any, scenario: Scenario) -> None:
    wild = model(tables=(table(kinds=(KindEffect(kind="", scale=1.0, extra_ms=-4.0),)),))
    workload = one_block(workload_builder, parameters=25_000, elements=10, kind="other")
    cost = predict(CalibratedPredictor(model=wild), workload, scenario)
    assert cost.latency_ms == pytest.approx(8 * 0.101)


def test_a_named_os_version_is_priced_from_its_own_table(workload_builder: Any, scenario: Scenario) -> None:
    newer = table(
        os_build="23B", ratio_sd=0.1, entries=(TableEntry(signature="base(size=1)", latency_ms=4.0, measured=True),)
    )
    predictor = CalibratedPredictor(model=model(tables=(table(), newer)))
    workload = one_block(workload_builder, parameters=10, elements=10)
    cost = predict(predictor.at(os_build="23B"), workload, scenario)
    assert predict(predictor, workload, scenario).latency_ms == pytest.approx(8 * 3.0)
    assert cost.latency_ms == pytest.approx(8 * 4.0)
    # Half of a normal distribution's central 90 % is 1.645 standard deviations (tables).
    assert cost.latency_interval_ms.high == pytest.approx(8 * 4.0 * 1.2 * math.exp(1.645 * 0.1), rel=1e-4)
    assert "23B" in cost.predictor


@pytest.mark.parametrize(("unit", "count"), [("cpu", 1), ("gpu", 0)])
def test_a_block_that_failed_on_the_priced_unit_makes_its_networks_infeasible(
    workload_builder: Any, scenario: Scenario, unit: Any, count: int
) -> None:
    failed = Infeasible(
        subject="other(size=1)", level="block", compute_unit=unit, stage="compile", reason="rank 5 is not supported"
    )
    predictor = CalibratedPredictor(model=model(infeasible=(failed,)))
    tried = predict(predictor, one_block(workload_builder, parameters=10, elements=10, kind="other"), scenario)
    assert [(fault.block, fault.compute_unit, fault.reason) for fault in tried.infeasible] == [
        ("only", "cpu", "compile: rank 5 is not supported")
    ] * count
    assert predict(predictor, one_block(workload_builder, parameters=10, elements=10), scenario).infeasible == ()


def test_an_os_version_that_was_not_measured_is_refused() -> None:
    with pytest.raises(ConfigError, match="has no OS version '24C' on 'cpu', it has '22A' on 'cpu'"):
        CalibratedPredictor(model=model()).at(os_build="24C")


def test_memory_is_weights_plus_the_fitted_line_of_held_and_measured_bytes(
    workload_builder: Any, scenario: Scenario
) -> None:
    fitted = model(memory_scale=2.0, memory_offset_mb=0.25)
    workload = one_block(workload_builder, parameters=1000, elements=250_000)
    cost = predict(CalibratedPredictor(model=fitted), workload, scenario)
    # Input held 1.0 MB, measured inside 0.5 MB, weights 4000 bytes.
    assert cost.peak_memory_mb == pytest.approx(0.004 + 0.25 + 2.0 * 1.5)
    assert cost.memory_interval_mb.high == pytest.approx(0.004 + 1.5 * 3.25)


def test_another_scenario_is_refused(scenario: Scenario) -> None:
    with pytest.raises(ConfigError, match="holds for '8x32x32 float32 cpu_only', not for '16x32x32 float32 cpu_only'"):
        CalibratedPredictor(model=model()).check_scenario(replace(scenario, frames=16))


def test_steps_and_guidance_only_multiply(workload_builder: Any, scenario: Scenario) -> None:
    workload = one_block(workload_builder, parameters=10, elements=10)
    predictor = CalibratedPredictor(model=model())
    once = replace(scenario, denoising_steps=1, guidance=False)
    assert predict(predictor, workload, scenario).latency_ms == pytest.approx(
        8 * predict(predictor, workload, once).latency_ms
    )


@pytest.mark.parametrize("ratios", [(1.1, 2.0), (0.5, 0.9), (-0.1, 2.0)])
def test_interval_ratios_must_hold_one(ratios: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="must hold 1"):
        replace(RATIOS, latency=ratios)


def test_failed_block_on_record_is_infeasible_on_that_unit_only(workload_builder: Any, scenario: Scenario) -> None:
    failures = tuple(
        Infeasible(subject=subject, level="block", compute_unit=unit, stage="compile", reason="error 11")
        for subject, unit in (("base(size=1)", "cpu"), ("other(size=1)", "neural_engine"))
    )
    predictor = CalibratedPredictor(model=model(infeasible=failures))
    found = {
        kind: predict(predictor, one_block(workload_builder, parameters=1, elements=1, kind=kind), scenario).infeasible
        for kind in ("base", "other")
    }
    assert [(fault.block, fault.compute_unit, fault.reason) for fault in found["base"]] == [
        ("only", "cpu", "compile: error 11")
    ]
    assert found["other"] == ()
