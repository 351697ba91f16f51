"""Calibration on a simulated phone whose truth is known, and its refusals."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from latency_models import devices
from latency_models.backends.simulated import SimulatedBehaviour, SimulatedPhone
from latency_models.calibration import CalibrationOptions, calibrate
from latency_models.comparison import compare
from latency_models.cost_table import compile_cost_table
from latency_models.features import block_features
from latency_models.jobs import MeasurementJob, MeasurementPlan
from latency_models.measuring import measure_all
from latency_models.planning import choose_networks, distinct_blocks
from latency_models.predictors.block_table import CalibratedPredictor
from latency_models.predictors.roofline import RooflinePredictor, placed_ms
from latency_models.pricing import predict
from latency_models.profiles import call_label
from latency_models.reporting import CalibrationReport, summarise_errors
from latency_models.storage import load_predictor, save_predictor
from nas.core.cost import Interval
from nas.core.errors import ConfigError, InputError, ProfileError
from nas.core.profile import Failure, MemoryReadings, ProfileSet
from nas.core.rng import RandomStreams

if TYPE_CHECKING:
    from pathlib import Path

    from nas.core.architecture import Architecture
    from nas.core.scenario import Scenario
    from tests.latency_models.conftest import SmallSpace

DEVICE = devices.get("host_cpu")


def make_nothing() -> Any:
    raise AssertionError("the simulated phone builds nothing")


def profile_phone(
    space: SmallSpace,
    scenario: Scenario,
    networks: tuple[Architecture, ...],
    path: Path,
    *,
    blocks: bool = True,
    behaviour: SimulatedBehaviour | None = None,
) -> tuple[ProfileSet, SimulatedPhone]:
    workloads = {network.digest: space.workload(network, scenario) for network in space.all()}
    phone = SimulatedPhone(DEVICE, workloads, behaviour, precision="float32", compute_units="cpu_only")
    jobs = [MeasurementJob(subject=network.digest, level="network", make=make_nothing) for network in networks]
    if blocks:
        jobs += [
            MeasurementJob(subject=name, level="block", make=make_nothing) for name in distinct_blocks(space, scenario)
        ]
    plan = MeasurementPlan(scenario=call_label(scenario), passes=2, warmup=6)
    return measure_all(phone, jobs, plan, path), phone


@pytest.fixture
def networks(space: SmallSpace) -> tuple[Architecture, ...]:
    return choose_networks(space, 24, RandomStreams(0))


@pytest.fixture
def profiles(space: SmallSpace, scenario: Scenario, networks: tuple[Architecture, ...], tmp_path: Path) -> ProfileSet:
    return profile_phone(space, scenario, networks, tmp_path / "records.jsonl")[0]


def workloads_of(space: SmallSpace, scenario: Scenario, networks: tuple[Architecture, ...]) -> dict[str, Any]:
    return {network.digest: space.workload(network, scenario) for network in networks}


def test_unseen_networks_are_predicted_and_covered(
    space: SmallSpace, scenario: Scenario, networks: tuple[Architecture, ...], tmp_path: Path
) -> None:
    profiles, phone = profile_phone(space, scenario, networks, tmp_path / "records.jsonl")
    predictor, report = calibrate(profiles, workloads_of(space, scenario, networks), scenario, DEVICE)
    unseen = [architecture for architecture in space.all() if architecture not in set(networks)]
    costs = [predict(predictor, space.workload(architecture, scenario), scenario) for architecture in unseen]
    # The machine speed of a simulated phone without drift is 1, so the hidden truth is the right answer.
    truth = [scenario.denoiser_calls * phone.true_ms(architecture.digest) for architecture in unseen]
    errors = [abs(cost.latency_ms - true) / true for cost, true in zip(costs, truth, strict=True)]
    covered = [true in cost.latency_interval_ms for cost, true in zip(costs, truth, strict=True)]
    assert np.median(errors) < 0.02
    assert np.mean(covered) >= 0.85
    assert report.latency_error.spearman == pytest.approx(1.0, abs=0.05)
    assert all(cost.origin == "simulated" for cost in costs)
    # Every block was measured, and few of what is left, mostly full, lies beyond what was chosen, sparse to full.
    assert np.mean([cost.in_domain for cost in costs]) >= 0.8


def test_memory_overhead_of_the_device_is_found(
    space: SmallSpace, scenario: Scenario, networks: tuple[Architecture, ...], tmp_path: Path
) -> None:
    profiles, phone = profile_phone(space, scenario, networks, tmp_path / "records.jsonl")
    predictor, report = calibrate(profiles, workloads_of(space, scenario, networks), scenario, DEVICE)
    for architecture in space.all():
        workload = space.workload(architecture, scenario)
        truth = workload.weight_bytes / 1e6 + phone.true_memory_mb(architecture.digest)
        assert predict(predictor, workload, scenario).peak_memory_mb == pytest.approx(truth, rel=1e-3)
    assert report.memory_error is not None
    assert report.memory_error.mape < 1e-3


def test_machine_drift_is_divided_out(
    space: SmallSpace, scenario: Scenario, networks: tuple[Architecture, ...], tmp_path: Path
) -> None:
    drifting = SimulatedBehaviour(drift_ratio=0.8, throttle_after=60)
    profiles, _ = profile_phone(space, scenario, networks, tmp_path / "records.jsonl", behaviour=drifting)
    _, report = calibrate(profiles, workloads_of(space, scenario, networks), scenario, DEVICE)
    assert report.machine_swing_ratio is not None
    assert report.machine_swing_ratio > 1.3
    assert report.latency_error.median_ape < 0.02


def test_each_network_is_predicted_by_a_fit_without_it(
    space: SmallSpace, scenario: Scenario, networks: tuple[Architecture, ...], profiles: ProfileSet
) -> None:
    victim = networks[5].digest
    workloads = workloads_of(space, scenario, networks)
    slower = ProfileSet(
        records=tuple(
            replace(record, samples_ms=tuple(10 * value for value in record.samples_ms))
            if record.subject == victim
            else record
            for record in profiles.records
        )
    )
    rows = (
        {row.subject: row for row in calibrate(profiles, workloads, scenario, DEVICE)[1].networks},
        {row.subject: row for row in calibrate(slower, workloads, scenario, DEVICE)[1].networks},
    )
    assert rows[1][victim].measured_ms == pytest.approx(10 * rows[0][victim].measured_ms)
    assert rows[1][victim].predicted_ms == pytest.approx(rows[0][victim].predicted_ms)


def test_unmeasured_blocks_leave_the_domain(
    space: SmallSpace, scenario: Scenario, networks: tuple[Architecture, ...], profiles: ProfileSet
) -> None:
    gone = next(record.subject for record in profiles.of_level("block") if record.subject.startswith("wide"))
    kept = ProfileSet(records=tuple(record for record in profiles.records if record.subject != gone))
    predictor, _ = calibrate(kept, workloads_of(space, scenario, networks), scenario, DEVICE)
    outside = [
        architecture
        for architecture in space.all()
        if gone in {spec.signature for _, spec in space.workload(architecture, scenario).blocks}
    ]
    costs = {
        architecture: predict(predictor, space.workload(architecture, scenario), scenario)
        for architecture in space.all()
    }
    not_measured = {architecture for architecture, cost in costs.items() if "not measured" in cost.domain_note}
    assert not_measured == set(outside)
    assert not_measured <= {architecture for architecture, cost in costs.items() if not cost.in_domain}


def test_report_survives_json(
    space: SmallSpace, scenario: Scenario, networks: tuple[Architecture, ...], profiles: ProfileSet
) -> None:
    _, report = calibrate(profiles, workloads_of(space, scenario, networks), scenario, DEVICE)
    data = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert data["schema"] == "nas/calibration/1"
    assert CalibrationReport.from_dict(data) == report
    assert (report.num_networks, len(report.networks)) == (24, 24)
    assert report.num_blocks == len(distinct_blocks(space, scenario))
    assert report.latency_error.coverage is not None
    assert report.latency_error_parts is not None
    assert report.latency_error_parts.repeat_ratio < 0.02
    assert report.block_check is not None
    assert report.block_check.num_repeated == report.num_blocks


def test_stored_predictor_predicts_the_same(
    space: SmallSpace,
    scenario: Scenario,
    networks: tuple[Architecture, ...],
    profiles: ProfileSet,
    tmp_path: Path,
) -> None:
    predictor, _ = calibrate(profiles, workloads_of(space, scenario, networks), scenario, DEVICE)
    save_predictor(tmp_path / "predictor.json", predictor)
    again = load_predictor(tmp_path / "predictor.json")
    assert again == predictor
    for architecture in networks:
        workload = space.workload(architecture, scenario)
        assert predict(again, workload, scenario) == predict(predictor, workload, scenario)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ('{"schema": "nas/predictor/9"}', "schema is 'nas/predictor/9'"),
        ('{"schema": "nas/predictor/2", "tool": "x", "model": {"device": "d"}}', "not a CalibratedModel"),
    ],
)
def test_a_damaged_predictor_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "predictor.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        load_predictor(path)


def test_too_few_networks_say_how_many_are_needed(
    space: SmallSpace, scenario: Scenario, networks: tuple[Architecture, ...], tmp_path: Path
) -> None:
    profiles, _ = profile_phone(space, scenario, networks[:8], tmp_path / "few.jsonl")
    with pytest.raises(ProfileError, match="needs at least 9 measured networks, got 8"):
        calibrate(profiles, workloads_of(space, scenario, networks), scenario, DEVICE)


def test_whole_networks_alone_correct_the_prior(
    space: SmallSpace, scenario: Scenario, networks: tuple[Architecture, ...], tmp_path: Path
) -> None:
    profiles, phone = profile_phone(space, scenario, networks, tmp_path / "networks.jsonl", blocks=False)
    predictor, report = calibrate(profiles, workloads_of(space, scenario, networks), scenario, DEVICE)
    unseen = [architecture for architecture in space.all() if architecture not in set(networks)]
    truth = np.array([scenario.denoiser_calls * phone.true_ms(architecture.digest) for architecture in unseen])
    prior = RooflinePredictor(DEVICE, precision="float32", compute_units="cpu_only")
    costs, by_prior = (
        [predict(source, space.workload(architecture, scenario), scenario) for architecture in unseen]
        for source in (predictor, prior)
    )
    errors, prior_errors = (np.abs([cost.latency_ms for cost in found] - truth) / truth for found in (costs, by_prior))
    assert np.median(errors) < 0.05 < np.median(prior_errors)
    assert all(true in cost.latency_interval_ms for cost, true in zip(costs, truth, strict=True))
    factor = DEVICE.prior_factor.value
    for cost in costs:
        assert not cost.in_domain
        blocks_ms = sum(block.latency_ms for block in cost.blocks if block.block != "overhead")
        assert cost.latency_interval_ms.high - cost.latency_ms >= 0.99 * (factor - 1.0) * blocks_ms
    assert (report.num_blocks, report.num_networks, report.worst_blocks) == (0, 24, ())
    assert predictor.model.constants == ()
    assert report.block_check is not None
    assert (report.block_check.num_repeated, report.block_check.num_priced) == (0, 0)
    assert CalibratedPredictor(model=predictor.model).at(compute_unit="cpu") == predictor
    assert CalibrationReport.from_dict(json.loads(json.dumps(report.to_dict(), allow_nan=False))) == report


def test_blocks_alone_are_refused(
    space: SmallSpace, scenario: Scenario, networks: tuple[Architecture, ...], profiles: ProfileSet
) -> None:
    blocks = ProfileSet(records=profiles.of_level("block"))
    with pytest.raises(ProfileError, match="needs at least 9 measured networks, got 0"):
        calibrate(blocks, workloads_of(space, scenario, networks), scenario, DEVICE)


def test_profiles_of_another_scenario_are_refused(
    space: SmallSpace, scenario: Scenario, networks: tuple[Architecture, ...], profiles: ProfileSet
) -> None:
    with pytest.raises(ProfileError, match="profiles are for '8x32x32 float32 cpu_only', the calibration is for '9x"):
        calibrate(profiles, workloads_of(space, scenario, networks), replace(scenario, frames=9), DEVICE)


def test_a_network_without_workload_is_named(scenario: Scenario, profiles: ProfileSet) -> None:
    with pytest.raises(ProfileError, match="24 measured networks have no workload, first"):
        calibrate(profiles, {}, scenario, DEVICE)


@pytest.mark.parametrize("change", [{"coverage": 1.0}, {"folds": 1}])
def test_senseless_options_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        CalibrationOptions(**change)


def test_errors_of_a_worked_example() -> None:
    rows = [(10.0, 11.0, 9.0, 12.0), (20.0, 18.0, 19.0, 21.0), (40.0, 40.0, 30.0, 50.0)]
    found = summarise_errors(rows, coverage=None, stated=0.9)
    assert (found.mape, found.median_ape, found.worst_ape) == pytest.approx((0.2 / 3, 0.1, 0.1))
    assert found.spearman == pytest.approx(1.0)
    assert found.mean_width_ratio == pytest.approx((3 / 11 + 2 / 18 + 20 / 40) / 3)


def test_closed_loop_counts_errors_and_coverage(
    space: SmallSpace,
    scenario: Scenario,
    networks: tuple[Architecture, ...],
    profiles: ProfileSet,
    tmp_path: Path,
) -> None:
    predictor, _ = calibrate(profiles, workloads_of(space, scenario, networks), scenario, DEVICE)
    table = compile_cost_table(space, scenario, predictor)
    fresh = tuple(architecture for architecture in space.all() if architecture not in set(networks))[:12]
    slow = SimulatedBehaviour(throttle_after=0, throttle_ratio=0.5)
    measured, phone = profile_phone(space, scenario, fresh, tmp_path / "fresh.jsonl", blocks=False, behaviour=slow)
    found = compare(
        {network.digest: table.estimate(network) for network in fresh},
        measured,
        scenario,
        reference=predictor.model.network_anchor,
    )
    assert found.median_error_ratio < 0.03
    assert found.coverage >= 0.8
    assert found.slowdown_ratio == pytest.approx(1.5)
    for row in found.rows:
        truth = scenario.denoiser_calls * phone.true_ms(row.digest)
        assert row.measured_ms == pytest.approx(truth, rel=0.05)
        assert row.raw_ms == pytest.approx(1.5 * truth, rel=0.1)
    assert found.corrected_coverage is None
    assert found.to_dict()["schema"] == "nas/closed_loop/1"


def test_closed_loop_counts_what_intervals_that_allow_for_selection_hold(
    space: SmallSpace,
    scenario: Scenario,
    networks: tuple[Architecture, ...],
    profiles: ProfileSet,
) -> None:
    predictor, _ = calibrate(profiles, workloads_of(space, scenario, networks), scenario, DEVICE)
    costs = {
        network.digest: predict(predictor, space.workload(network, scenario), scenario) for network in networks[:4]
    }
    nothing = Interval(low=0.0, high=1e-6, coverage=0.9)
    everything = Interval(low=0.0, high=1e9, coverage=0.9)
    corrected = dict(zip(costs, (nothing, everything, everything), strict=False))
    found = compare(costs, profiles, scenario, corrected=corrected)
    assert found.corrected_coverage == pytest.approx(2 / 3)  # the fourth was not selected and has no such interval
    assert [row.corrected_high_ms for row in found.rows] == [1e-6, 1e9, 1e9, None]


def test_closed_loop_refuses_what_was_not_measured(
    space: SmallSpace, scenario: Scenario, networks: tuple[Architecture, ...], profiles: ProfileSet
) -> None:
    predictor, _ = calibrate(profiles, workloads_of(space, scenario, networks), scenario, DEVICE)
    cost = predict(predictor, space.workload(networks[0], scenario), scenario)
    with pytest.raises(ProfileError, match="1 predicted networks not measured"):
        compare({"absent": cost}, profiles, scenario)
    with pytest.raises(ProfileError, match="predictions are for 'other', measurements are of 'simulated-host_cpu'"):
        compare({networks[0].digest: replace(cost, device="other")}, profiles, scenario)


def test_chosen_networks_are_distinct_start_bare_and_spread_over_fill(space: SmallSpace) -> None:
    chosen = choose_networks(space, 24, RandomStreams(1))
    fills = [sum(option > 0 for option in space.to_options(network)) for network in chosen]
    assert len(set(chosen)) == 24
    assert fills[0] == 0
    assert {fills.count(fill) > 2 for fill in (1, 2, 3)} == {True}
    assert choose_networks(space, 24, RandomStreams(1)) == chosen


@pytest.mark.parametrize("count", [0, 65])
def test_impossible_numbers_of_networks_are_refused(space: SmallSpace, count: int) -> None:
    with pytest.raises(ConfigError, match=f"cannot choose {count} networks of 'small/1', which has 64"):
        choose_networks(space, count, RandomStreams(0))


def test_distinct_blocks_are_all_blocks_of_all_architectures(space: SmallSpace, scenario: Scenario) -> None:
    every = {spec.signature for network in space.all() for _, spec in space.workload(network, scenario).blocks}
    assert set(distinct_blocks(space, scenario)) == every


def on_new_os(profiles: ProfileSet, subjects: set[str], *, factor: float) -> ProfileSet:
    """Add records of a newer OS version for ``subjects``, everything ``factor`` times as slow, the anchor alike."""
    newer = tuple(
        replace(
            record,
            device=replace(record.device, os_build="newer"),
            samples_ms=tuple(factor * value for value in record.samples_ms),
            anchor_ms=tuple(factor * value for value in record.anchor_ms),
            taken_at=f"tomorrow {record.taken_at}",
        )
        for record in profiles.records
        if record.subject in subjects
    )
    return ProfileSet(records=profiles.records + newer)


def test_five_networks_of_a_new_os_version_move_the_whole_table(
    space: SmallSpace, scenario: Scenario, networks: tuple[Architecture, ...], tmp_path: Path
) -> None:
    profiles, phone = profile_phone(space, scenario, networks, tmp_path / "records.jsonl")
    both = on_new_os(profiles, {network.digest for network in networks[:5]}, factor=1.25)
    predictor, report = calibrate(both, workloads_of(space, scenario, networks), scenario, DEVICE)
    unseen = [architecture for architecture in space.all() if architecture not in set(networks)]
    for system, factor in (("newer", 1.25), ("simulated", 1.0)):
        there = predictor.at(os_build=system)
        ratios = [
            predict(there, space.workload(architecture, scenario), scenario).latency_ms
            / (scenario.denoiser_calls * phone.true_ms(architecture.digest))
            for architecture in unseen
        ]
        assert np.median(ratios) == pytest.approx(factor, rel=0.03)
    assert predictor.model.os_build == "newer"
    assert [group.os_build for group in report.groups] == ["newer", "simulated"]
    assert report.groups[0].ratio == pytest.approx(1.25, rel=0.03)
    assert 0.0 < report.groups[0].ratio_sd < 0.03


def test_repeats_of_one_network_share_a_fold(
    space: SmallSpace, scenario: Scenario, networks: tuple[Architecture, ...], profiles: ProfileSet
) -> None:
    both = on_new_os(profiles, {network.digest for network in networks[:6]}, factor=1.1)
    _, report = calibrate(both, workloads_of(space, scenario, networks), scenario, DEVICE)
    folds: dict[str, set[int]] = {}
    for row in report.networks:
        folds.setdefault(row.subject, set()).add(row.fold)
    assert len(report.networks) == 30
    assert all(len(found) == 1 for found in folds.values())


def test_the_os_version_to_price_can_be_named_and_must_be_known(
    space: SmallSpace, scenario: Scenario, networks: tuple[Architecture, ...], profiles: ProfileSet
) -> None:
    both = on_new_os(profiles, {networks[0].digest}, factor=1.2)
    workloads = workloads_of(space, scenario, networks)
    named = CalibrationOptions(os_build="simulated")
    assert calibrate(both, workloads, scenario, DEVICE, named)[0].model.os_build == "simulated"
    with pytest.raises(ProfileError, match="no records of OS version '9' on 'cpu'; there are 'newer' on 'cpu'"):
        calibrate(both, workloads, scenario, DEVICE, CalibrationOptions(os_build="9"))


def on_gpu(profiles: ProfileSet, *, memory_factor: float) -> ProfileSet:
    """Add the same records of another compute unit, which takes ``memory_factor`` times as much memory."""
    other = tuple(
        replace(
            record,
            device=replace(record.device, compute_unit="gpu"),
            peak_memory_mb=None if record.peak_memory_mb is None else memory_factor * record.peak_memory_mb,
            taken_at=f"tomorrow {record.taken_at}",
        )
        for record in profiles.records
    )
    return ProfileSet(records=profiles.records + other)


def test_memory_of_another_compute_unit_does_not_move_the_priced_ones(
    space: SmallSpace, scenario: Scenario, networks: tuple[Architecture, ...], tmp_path: Path
) -> None:
    profiles, phone = profile_phone(space, scenario, networks, tmp_path / "records.jsonl")
    both = on_gpu(profiles, memory_factor=3.0)
    predictor, report = calibrate(both, workloads_of(space, scenario, networks), scenario, DEVICE)
    assert predictor.model.compute_unit == "cpu"
    for architecture in networks[:4]:
        workload = space.workload(architecture, scenario)
        truth = workload.weight_bytes / 1e6 + phone.true_memory_mb(architecture.digest)
        assert predict(predictor, workload, scenario).peak_memory_mb == pytest.approx(truth, rel=1e-3)
    assert sum(row.measured_memory_mb is not None for row in report.networks) == len(networks)


def test_footprints_without_the_weights_leave_memory_uncalibrated(
    space: SmallSpace, scenario: Scenario, networks: tuple[Architecture, ...], profiles: ProfileSet
) -> None:
    mapped = MemoryReadings(footprint_unloaded_mb=50.0, footprint_peak_mb=50.0)
    records = tuple(
        replace(record, memory=mapped) if record.level == "network" else record for record in profiles.records
    )
    predictor, report = calibrate(
        ProfileSet(records=records), workloads_of(space, scenario, networks), scenario, DEVICE
    )
    cost = predict(predictor, space.workload(networks[0], scenario), scenario)
    assert report.memory_error is None
    assert cost.memory_interval_mb.low < cost.peak_memory_mb < cost.memory_interval_mb.high < math.inf


def test_throttled_records_are_left_out_and_counted(
    space: SmallSpace, scenario: Scenario, networks: tuple[Architecture, ...], profiles: ProfileSet
) -> None:
    cool = ProfileSet(records=tuple(replace(record, anchor_ms=()) for record in profiles.records))
    hot = tuple(
        replace(
            record,
            samples_ms=tuple(1.6 * value for value in record.samples_ms),
            thermal_states=("serious",),
            taken_at=f"later {record.taken_at}",
        )
        for record in cool.records[::2]
    )
    workloads = workloads_of(space, scenario, networks)
    expected, _ = calibrate(cool, workloads, scenario, DEVICE)
    predictor, report = calibrate(ProfileSet(records=cool.records + hot), workloads, scenario, DEVICE)
    assert report.records.throttled_records == len(hot)
    for architecture in networks:
        workload = space.workload(architecture, scenario)
        ours = predict(predictor, workload, scenario).latency_ms
        assert ours == pytest.approx(predict(expected, workload, scenario).latency_ms, rel=1e-6)


def test_failures_are_kept_in_the_predictor_and_counted(
    space: SmallSpace, scenario: Scenario, networks: tuple[Architecture, ...], profiles: ProfileSet, tmp_path: Path
) -> None:
    template = replace(profiles.records[0], samples_ms=(), anchor_ms=(), warmup=0, thermal_states=())
    refused = replace(
        template, subject="wide(x)", level="block", failure=Failure(stage="compile", message="rank 5 not supported")
    )
    limit_ms = 1e3
    stopped = replace(
        template,
        subject=networks[1].digest,
        level="network",
        failure=Failure(stage="timeout", message="stopped", limit_ms=limit_ms),
    )
    timed = tuple(record for record in profiles.records if record.subject != networks[1].digest)
    known = workloads_of(space, scenario, networks)
    predictor, report = calibrate(ProfileSet(records=(*timed, refused, stopped)), known, scenario, DEVICE)
    save_predictor(tmp_path / "predictor.json", predictor)
    again = load_predictor(tmp_path / "predictor.json").model.infeasible
    assert [(item.subject, item.stage, item.reason) for item in again] == [
        ("wide(x)", "compile", "rank 5 not supported")
    ]
    assert (report.num_infeasible, report.num_bounds, report.num_networks) == (1, 1, 23)


def test_an_outlying_network_is_named_and_moves_no_other(
    space: SmallSpace, scenario: Scenario, networks: tuple[Architecture, ...], profiles: ProfileSet
) -> None:
    victim = networks[5].digest
    wrong = ProfileSet(
        records=tuple(
            replace(record, samples_ms=tuple(2.0 * value for value in record.samples_ms))
            if record.subject == victim
            else record
            for record in profiles.records
        )
    )
    workloads = workloads_of(space, scenario, networks)
    expected, _ = calibrate(profiles, workloads, scenario, DEVICE)
    predictor, report = calibrate(wrong, workloads, scenario, DEVICE)
    assert report.outliers == (victim,)
    for architecture in networks:
        workload = space.workload(architecture, scenario)
        ours = predict(predictor, workload, scenario).latency_ms
        assert ours == pytest.approx(predict(expected, workload, scenario).latency_ms, rel=0.02)


def test_constants_fitted_on_measured_blocks_price_the_others(
    space: SmallSpace, scenario: Scenario, networks: tuple[Architecture, ...], tmp_path: Path
) -> None:
    # The phone computes at a third of what its file says and every operation takes four times as long.
    unit = DEVICE.units[0]
    peak, overhead = unit.peak_flops, unit.operation_overhead_ms
    slow = replace(
        unit,
        peak_flops=replace(peak, value=peak.value / 3),
        operation_overhead_ms=replace(overhead, value=4 * overhead.value),
    )
    everything = {network.digest: space.workload(network, scenario) for network in space.all()}
    behaviour = SimulatedBehaviour(kind_spread=0.0, fusion_ratio=0.0)
    truth = replace(DEVICE, units=(slow,))
    phone = SimulatedPhone(truth, everything, behaviour, precision="float32", compute_units="cpu_only")
    blocks = list(distinct_blocks(space, scenario))
    jobs = [MeasurementJob(subject=network.digest, level="network", make=make_nothing) for network in networks]
    jobs += [MeasurementJob(subject=name, level="block", make=make_nothing) for name in blocks[::2]]
    plan = MeasurementPlan(scenario=call_label(scenario), passes=1, warmup=6)
    profiles = measure_all(phone, jobs, plan, tmp_path / "records.jsonl")
    predictor, report = calibrate(profiles, workloads_of(space, scenario, networks), scenario, DEVICE)
    fitted = predictor.model.fitted(DEVICE).units[0]
    workload = space.workload(space.from_options([3, 3, 3]), scenario)
    for block in block_features(workload):
        alone = [
            placed_ms(block, DEVICE, (spec,), precision="float32") / phone.true_ms(block.spec.signature)
            for spec in (unit, fitted)
        ]
        assert abs(math.log(alone[1])) < 0.5 * abs(math.log(alone[0]))
    assert any(name == "constant.cpu.operation_overhead_ms" for name, _ in report.coefficients)
