"""Calibration of networks with other weights and lowerings: prior, constants, memory and file use the same."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

import search_spaces
from latency_models import devices
from latency_models.backends.simulated import SimulatedBehaviour, SimulatedPhone
from latency_models.calibration import CalibrationOptions, calibrate
from latency_models.features import block_features
from latency_models.jobs import MeasurementJob, MeasurementPlan
from latency_models.measuring import measure_all
from latency_models.planning import choose_networks, distinct_blocks
from latency_models.predictors.block_table import CalibratedModel, CalibratedPredictor, GroupTable, KindEffect
from latency_models.predictors.roofline import RooflinePredictor
from latency_models.pricing import IntervalRatios, predict
from latency_models.profiles import call_label
from latency_models.storage import load_predictor, save_predictor
from nas.core.errors import ConfigError
from nas.core.profile import MemoryReadings, ProfileSet
from nas.core.rng import RandomStreams
from nas.core.scenario import Scenario

if TYPE_CHECKING:
    from pathlib import Path

SPACE = search_spaces.get("tiny/1")
SCENARIO = Scenario(frames=8, height=64, width=64, denoising_steps=4, precision="float16", compute_units="cpu_and_ne")
PALETTE = devices.WeightFormat(bits=4, form="palettised")
LOWERINGS = (("neural_engine", "fused_sdpa"),)
PHONE = devices.get("iphone16_pro_max")


def nothing() -> Any:
    raise AssertionError("the simulated phone builds nothing")


def unmeasured() -> CalibratedPredictor:
    """Return a predictor without a single entry: every price is its prior's."""
    table = GroupTable(
        os_build="22A",
        compute_unit="neural_engine",
        num_records=20,
        ratio=1.0,
        ratio_sd=0.0,
        network_anchor=None,
        overhead_ms=0.0,
        ms_per_weight_mb=0.0,
        entries=(),
        kinds=(KindEffect(kind="", scale=1.0, extra_ms=0.0),),
    )
    model = CalibratedModel(
        device=PHONE.name,
        os_build="22A",
        compute_unit="neural_engine",
        prior_device=PHONE.name,
        scenario=call_label(SCENARIO),
        precision="float16",
        tables=(table,),
        weights=PALETTE,
        lowerings=LOWERINGS,
        rises=(),
        inside_scale=1.0,
        memory_scale=1.0,
        memory_offset_mb=0.0,
        ratios=IntervalRatios(coverage=0.9, latency=(0.5, 2.0), outside=(0.5, 2.0), memory=(0.5, 2.0)),
        data_sha256="ab" * 32,
        num_networks=12,
    )
    return CalibratedPredictor(model=model)


def test_blocks_that_were_not_measured_are_priced_as_the_roofline_of_the_same_package() -> None:
    workload = SPACE.workload(SPACE.largest(), SCENARIO)
    calibrated = unmeasured().price(workload)
    prior = RooflinePredictor(PHONE, weights=PALETTE, lowerings=LOWERINGS).price(workload)
    plain = RooflinePredictor(PHONE).price(workload)
    assert [block.latency_ms for block in calibrated.blocks] == [block.latency_ms for block in prior.blocks]
    assert [block.latency_ms for block in calibrated.blocks] != [block.latency_ms for block in plain.blocks]
    assert calibrated.weights_mb == pytest.approx(0.5e-6 * workload.parameters, rel=1e-5)  # four bits are half a byte
    assert plain.weights_mb == pytest.approx(2e-6 * workload.parameters)


def test_a_lowering_of_a_unit_that_the_device_lacks_is_refused() -> None:
    with pytest.raises(ConfigError, match="has no 'cuda'"):
        PHONE.relowered([("cuda", "decomposed")])


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> ProfileSet:
    """A phone that runs the networks as one lowers them, and shows weights of four bits in its memory."""
    networks = choose_networks(SPACE, 12, RandomStreams(0))
    workloads = {network.digest: SPACE.workload(network, SCENARIO) for network in networks}
    behaviour = SimulatedBehaviour(kind_spread=0.0, noise_ratio=0.005)
    phone = SimulatedPhone(PHONE.relowered(LOWERINGS), workloads, behaviour, compute_units="cpu_and_ne")
    known = {block.spec.signature for workload in workloads.values() for block in block_features(workload)}
    jobs = [
        MeasurementJob(subject=network.digest, level="network", make=nothing, architecture=network)
        for network in networks
    ]
    jobs += [
        MeasurementJob(subject=name, level="block", make=nothing)
        for name in distinct_blocks(SPACE, SCENARIO)
        if name in known
    ]
    plan = MeasurementPlan(scenario=call_label(SCENARIO), passes=1, warmup=6)
    profiles = measure_all(phone, jobs, plan, tmp_path_factory.mktemp("phone") / "records.jsonl")
    return ProfileSet(
        records=tuple(
            replace(
                record,
                memory=MemoryReadings(
                    system_wired_before_mb=100.0,
                    system_wired_max_mb=100.0 + 0.5e-6 * workloads[record.subject].parameters + 30.0,
                ),
            )
            if record.level == "network"
            else record
            for record in profiles.records
        )
    )


def test_a_calibration_keeps_the_package_it_was_made_for(measured: ProfileSet, tmp_path: Path) -> None:
    networks = {record.subject: record.architecture for record in measured.of_level("network")}
    workloads = {name: SPACE.workload(network, SCENARIO) for name, network in networks.items() if network}
    options = CalibrationOptions(folds=2, weights=PALETTE, lowerings=LOWERINGS)
    predictor, report = calibrate(measured, workloads, SCENARIO, PHONE, options)
    save_predictor(tmp_path / "predictor.json", predictor)
    again = load_predictor(tmp_path / "predictor.json")
    assert again == predictor
    assert (again.model.weights, again.model.lowerings) == (PALETTE, LOWERINGS)
    for name, workload in workloads.items():
        truth_mb = 0.5e-6 * workload.parameters + 30.0
        assert predict(again, workload, SCENARIO).peak_memory_mb == pytest.approx(truth_mb, rel=0.02), name
    assert all(
        row.measured_memory_mb == pytest.approx(0.5e-6 * workloads[row.subject].parameters + 30.0, rel=1e-4)
        for row in report.networks
    )
    # The truth is this prior but for what the phone hides, so the constants of the right lowering hardly move.
    right = [abs(constant.factor - 1.0) for constant in again.model.constants]
    other, _ = calibrate(measured, workloads, SCENARIO, PHONE, CalibrationOptions(folds=2))
    wrong = [abs(constant.factor - 1.0) for constant in other.model.constants]
    assert max(wrong) > max(right)
