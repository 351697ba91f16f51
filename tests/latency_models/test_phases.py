"""Other phases than the denoiser: their memory in each way of sharing it, checked by walking through a generation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latency_models import devices
from latency_models.cost_table import compile_cost_table
from latency_models.phases import PhasePrice, Pipeline, Range, phase_of_records, phase_of_workload
from latency_models.predictors.roofline import RooflinePredictor
from latency_models.pricing import predict
from nas.core.cost import Infeasibility
from nas.core.profile import ProfileSet

if TYPE_CHECKING:
    from latency_models.pricing import WorkloadPrice
    from nas.core.scenario import Scenario
    from nas.core.workload import Workload
    from tests.latency_models.conftest import SmallSpace


def phase(name: Any, memory: tuple[float, float] | None) -> PhasePrice:
    weights, activation = memory if memory else (None, None)
    return PhasePrice(
        phase=name,
        calls=1,
        latency_ms=Range(low=1.0, value=2.0, high=4.0),
        weights_mb=weights,
        activation_mb=activation,
        origin="measured",
        source="test",
    )


def walked_peak(networks: list[tuple[float, float]], *, in_turn: bool, keeps_arenas: bool) -> float:
    """Load, run and unload networks (weights, activation) one by one, and return the most that was held."""
    held, peak = 0.0, 0.0
    if not in_turn:
        held = sum(weights + (activation if keeps_arenas else 0.0) for weights, activation in networks)
    for weights, activation in networks:
        held += weights if in_turn else 0.0
        running = held if keeps_arenas and not in_turn else held + activation
        peak = max(peak, running)
        held -= weights if in_turn else 0.0
    return peak


megabytes = st.tuples(st.floats(0, 1000), st.floats(0, 1000))


@settings(deadline=None)
@given(text=megabytes, denoiser=megabytes, decoder=megabytes, in_turn=st.booleans(), keeps_arenas=st.booleans())
def test_peak_equals_a_walk_through_the_generation(
    text: tuple[float, float],
    denoiser: tuple[float, float],
    decoder: tuple[float, float],
    in_turn: bool,
    keeps_arenas: bool,
) -> None:
    pipeline = Pipeline(
        phases=(phase("text_encoder", text), phase("decoder", decoder)),
        residency="in_turn" if in_turn else "together",
        keeps_arenas=keeps_arenas,
    )
    found = pipeline.memory().peak_mb(np.array([denoiser[0]]), np.array([denoiser[1]]))
    walked = walked_peak([text, denoiser, decoder], in_turn=in_turn, keeps_arenas=keeps_arenas)
    assert float(found[0]) == pytest.approx(walked)


@settings(deadline=None)
@given(networks=st.lists(megabytes, min_size=3, max_size=3), ratio=st.floats(1.0, 3.0))
def test_in_turn_needs_no_more_than_together_and_kept_arenas_no_less(
    networks: list[tuple[float, float]], ratio: float
) -> None:
    (text, denoiser, decoder), peaks = networks, []
    for residency, keeps in (("in_turn", False), ("together", False), ("together", True)):
        phases = (phase("text_encoder", text), phase("decoder", decoder))
        terms = Pipeline(phases=phases, residency=residency, keeps_arenas=keeps).memory()  # type: ignore[arg-type]
        peaks.append(float(terms.peak_mb(np.array([denoiser[0]]), np.array([denoiser[1]]), ratio)[0]))
    assert peaks[0] <= peaks[1] + 1e-6
    assert peaks[1] <= peaks[2] + 1e-6


def test_phases_of_unknown_memory_say_so_and_add_nothing(space: SmallSpace, scenario: Scenario) -> None:
    predictor = RooflinePredictor(devices.get("host_cpu"), precision="float32", compute_units="cpu_only")
    workload = space.workload(space.from_options([1, 0, 2]), scenario)
    alone = predict(predictor, workload, scenario)
    cost = predict(predictor, workload, scenario, Pipeline(phases=(phase("decoder", None),)))
    assert cost.peak_memory_mb == alone.peak_memory_mb
    assert {item.phase: item.peak_memory_mb for item in cost.phases}["decoder"] is None
    assert cost.latency_ms == pytest.approx(alone.latency_ms + 2.0)


def test_a_phase_from_its_workload_costs_what_the_denoiser_would(space: SmallSpace, scenario: Scenario) -> None:
    predictor = RooflinePredictor(devices.get("host_cpu"), precision="float32", compute_units="cpu_only")
    workload = space.workload(space.from_options([1, 3, 2]), scenario)
    alone = predict(predictor, workload, scenario)
    found = phase_of_workload("decoder", workload, predictor, calls=scenario.denoiser_calls)
    assert found.latency_ms.value == pytest.approx(alone.latency_ms)
    assert found.latency_ms.high == pytest.approx(alone.latency_interval_ms.high)
    assert sum(found.memory_mb or ()) == pytest.approx(alone.peak_memory_mb)
    assert (found.origin, found.in_domain) == ("predicted", False)


@dataclass(frozen=True, kw_only=True)
class Correcting:
    """A predictor whose networks take less than the sum of their blocks: its overhead is below 0."""

    inner: RooflinePredictor
    overhead_ms: float

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def price(self, workload: Workload) -> WorkloadPrice:
        return replace(self.inner.price(workload), overhead_ms=self.overhead_ms)


def test_what_the_denoisers_sum_is_corrected_by_is_not_taken_off_other_phases(
    space: SmallSpace, scenario: Scenario
) -> None:
    roofline = RooflinePredictor(devices.get("host_cpu"), precision="float32", compute_units="cpu_only")
    workload = space.workload(space.from_options([0, 0, 0]), scenario)
    blocks_ms = sum(block.latency_ms for block in roofline.price(workload).blocks)
    predictor: Any = Correcting(inner=roofline, overhead_ms=-2.0 * blocks_ms)
    assert phase_of_workload("decoder", workload, predictor).latency_ms.value == pytest.approx(blocks_ms)


def test_blocks_that_take_more_than_the_network_are_followed_by_a_correction(
    space: SmallSpace, scenario: Scenario
) -> None:
    roofline = RooflinePredictor(devices.get("host_cpu"), precision="float32", compute_units="cpu_only")
    predictor: Any = Correcting(inner=roofline, overhead_ms=-0.01)
    cost = predict(predictor, space.workload(space.from_options([0, 0, 0]), scenario), scenario)
    last_ms = -0.01 * scenario.denoiser_calls
    assert (cost.blocks[-1].block, cost.blocks[-1].latency_ms) == ("correction", pytest.approx(last_ms))
    assert sum(block.latency_ms for block in cost.blocks) == pytest.approx(cost.latency_ms)


def test_a_phase_that_does_not_run_stops_every_generation(space: SmallSpace, scenario: Scenario) -> None:
    predictor = RooflinePredictor(devices.get("host_cpu"), precision="float32", compute_units="cpu_only")
    fault = Infeasibility(block="decoder.middle", compute_unit="cpu", reason="too wide", source="test")
    stuck = replace(phase("decoder", None), infeasible=(fault,))
    table = compile_cost_table(space, scenario, predictor, Pipeline(phases=(stuck,)))
    assert table.estimate(space.from_options([0, 0, 0])).infeasible == (fault,)
    assert table.score(np.array([[0, 0, 0], [1, 2, 3]])).infeasible.all()


def test_a_fresh_sample_of_a_measured_phase_lies_between_the_ends_as_often_as_stated(record: Any) -> None:
    generator = np.random.default_rng(0)
    hits = []
    for _ in range(1500):
        samples = np.exp(0.1 * generator.standard_normal(20))
        measured = record("decoder", level="phase", samples_ms=tuple(samples[:19]), warmup=0)
        found = phase_of_records(
            "decoder", ProfileSet(records=(measured,)), calls=1, weights_mb=1.0, coverage=0.9
        ).latency_ms
        hits.append(found.low <= samples[19] <= found.high)
    # Of 19 samples the ends are the extremes, between which a 20th lies 18 times of 20; four standard errors.
    assert np.mean(hits) == pytest.approx(0.9, abs=0.031)


def test_a_phase_given_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="every phase once, got decoder, decoder"):
        Pipeline(phases=(phase("decoder", None), phase("decoder", None)))


def test_a_range_that_misses_its_value_is_refused() -> None:
    with pytest.raises(ValueError, match=r"0 <= low <= value <= high, got 3.0, 2.0, 4.0"):
        Range(low=3.0, value=2.0, high=4.0)
