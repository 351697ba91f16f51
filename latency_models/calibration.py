"""Calibrate a predictor on measured blocks and networks, and check it on networks it has not seen."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import exp, log
from typing import TYPE_CHECKING

import numpy as np

from latency_models.block_errors import BlockCheck, check_blocks
from latency_models.chances import ErrorLaw
from latency_models.conformal import (
    error_parts,
    group_held_out_coverage,
    group_quantile,
    held_out_coverage,
    needed,
    ratio_interval,
    session_errors,
    session_scores,
)
from latency_models.dataset import Dataset, build_dataset, fit_constants, known_features
from latency_models.devices import WeightFormat
from latency_models.domain import fit_domain
from latency_models.held_out import (
    HeldOut,
    MeasuredNetwork,
    deal_folds,
    hold_out,
    latency_errors,
    memory_errors,
    memory_scores,
    with_latency,
    with_memory,
)
from latency_models.memory_fit import network_readings, weights_on
from latency_models.observations import Observations, observe
from latency_models.posterior import Posterior, add_networks, fit_blocks
from latency_models.predictors.block_table import BlockRise, CalibratedModel, CalibratedPredictor
from latency_models.predictors.roofline import home_units
from latency_models.pricing import IntervalRatios
from latency_models.profiles import call_label, shape_label, single_device
from latency_models.reporting import (
    CalibrationReport,
    ErrorSummary,
    NetworkResult,
    coefficients,
    pooled_groups,
    summarise_errors,
    worst_blocks,
)
from latency_models.residency import PLAIN
from latency_models.summaries import machine_swing_ratio
from nas.core.cost import ComputeUnit
from nas.core.errors import ProfileError
from nas.core.files import canonical_json, sha256_text
from nas.core.profile import ProfileSet
from nas.core.schema import to_data

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from latency_models.devices import DeviceSpec
    from latency_models.effects import Group
    from latency_models.memory_fit import MemoryReading
    from nas.core.scenario import Scenario
    from nas.core.workload import Workload

# Where liveness is exact, calls alone have no error left; a generation holds a little more than its calls do.
_LEAST_MEMORY_RATIO = 1.02

__all__ = ["CalibrationOptions", "CalibrationReport", "calibrate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationOptions:
    """Settings of a calibration.

    Attributes:
        coverage: Stated coverage of the intervals.
        folds: Number of folds over networks.
        seed: Of the folds.
        os_build: OS version to price; the most recent in the records if None.
        weights: How the networks' weights are stored.
        lowerings: Lowerings by compute unit that take the place of the device file's: ``split_einsum_v2``.
        compute_unit: Unit to price; the one that the scenario prefers if None, or the only one measured.
    """

    coverage: float = 0.9
    folds: int = 8
    seed: int = 0
    os_build: str | None = None
    compute_unit: ComputeUnit | None = None
    weights: WeightFormat = PLAIN
    lowerings: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if not 0.0 < self.coverage < 1.0:
            raise ValueError(f"calibrate.coverage must lie in (0, 1), got {self.coverage}")
        if self.folds < 2:
            raise ValueError(f"calibrate.folds must be at least 2, got {self.folds}")


def calibrate(
    profiles: ProfileSet,
    workloads: Mapping[str, Workload],
    scenario: Scenario,
    device: DeviceSpec,
    options: CalibrationOptions | None = None,
) -> tuple[CalibratedPredictor, CalibrationReport]:
    """Fit the hierarchical model of block and network times, and state its error on held-out networks.

    Args:
        profiles: Records of one device: blocks by signature, networks by digest; of one or several OS versions and
            compute units, failed attempts included. Without blocks their times are the prior's, corrected by what
            whole networks say of their kinds, and all of them count as not measured.
        workloads: Workload of every measured network, by its subject; more of them make more blocks known.
        scenario: Scenario the profiles were taken for; records on other compute units are of the same shapes.
        device: Device whose roofline prices blocks that were not measured.
        options: Coverage, folds, and what to price.

    Returns:
        The predictor fitted on all networks, and the report of its cross-validation: each network is predicted by a
        fit without it, and the residuals of those predictions set the interval.

    Raises:
        ProfileError: Several devices, records of another scenario, too few networks for the coverage, or a
            network without a workload.
    """
    options = options or CalibrationOptions()
    _check(profiles, workloads, scenario, options)
    observations = observe(profiles)
    device = device.relowered(options.lowerings)
    rates = fit_constants(observations, workloads.values(), scenario, device, options.weights)
    data = build_dataset(observations, workloads, scenario, rates.device(device), weights=options.weights)
    alone = fit_blocks(data.effects, data.blocks, data.prior)
    group = priced_group(observations, scenario, device, options)
    unit = group.compute_unit
    readings = network_readings(
        _on_unit(profiles, unit), workloads, weights_on(device, unit, scenario, options.weights)
    )
    networks = _networks(observations, data, workloads, readings, unit)
    timed = {network.summary.subject for network in networks if network.time.group.compute_unit == unit}
    exceeded = [(workloads[name], reading) for name, reading in readings.items() if name not in timed]
    base = _base_model(
        profiles, observations, workloads, group=group, scenario=scenario, device=device, options=options
    )
    base = replace(base, constants=rates.constants, working_set_factor=rates.working_set_factor)
    folds = deal_folds([network.summary.subject for network in networks], folds=options.folds, seed=options.seed)
    held_out = hold_out(base, alone, networks, folds, observations, data, exceeded)
    stopped = [time for time in data.networks if time.exceeded]
    posterior = add_networks(alone, [*(network.time for network in networks), *stopped])
    model = with_memory(with_latency(base, posterior, observations), networks, exceeded)
    check = check_blocks((item.summary for item in observations.blocks), posterior.block_scores, options.coverage)
    shift = device.session_shift.value if device.session_shift else 0.0
    model = _with_intervals(model, check, networks, held_out, options, shift)
    report = replace(
        _report(model, posterior, networks, held_out, folds, observations, scenario=scenario, shift=shift),
        machine_swing_ratio=machine_swing_ratio(profiles),
        block_check=check,
    )
    return CalibratedPredictor(model=model), report


def _check(
    profiles: ProfileSet, workloads: Mapping[str, Workload], scenario: Scenario, options: CalibrationOptions
) -> None:
    single_device(profiles)
    label = call_label(scenario)
    other = sorted({record.scenario for record in profiles.records if shape_label(record) != shape_label(scenario)})
    if other:
        raise ProfileError(f"profiles are for {other[0]!r}, the calibration is for {label!r}")
    subjects = {record.subject for record in profiles.of_level("network")}
    missing = sorted(subjects - set(workloads))
    if missing:
        raise ProfileError(f"{len(missing)} measured networks have no workload, first {missing[0]!r}")
    if len(subjects) < needed(options.coverage):
        raise ProfileError(
            f"an interval of coverage {options.coverage} needs at least {needed(options.coverage)} measured networks, "
            f"got {len(subjects)}",
            hint="raise profile.networks, or lower the coverage",
        )


def _networks(
    observations: Observations,
    data: Dataset,
    workloads: Mapping[str, Workload],
    readings: Mapping[str, MemoryReading],
    unit: ComputeUnit,
) -> tuple[MeasuredNetwork, ...]:
    """Join times with workloads; only networks on ``unit`` have a reading, for units hold memory differently."""
    timed = [time for time in data.networks if not time.exceeded]
    return tuple(
        MeasuredNetwork(
            summary=item.summary,
            time=time,
            workload=workloads[time.subject],
            reading=readings.get(time.subject) if time.group.compute_unit == unit else None,
        )
        for item, time in zip(observations.networks, timed, strict=True)
    )


def _on_unit(profiles: ProfileSet, unit: ComputeUnit) -> ProfileSet:
    return ProfileSet(records=tuple(record for record in profiles.records if record.device.compute_unit == unit))


def priced_group(
    observations: Observations, scenario: Scenario, device: DeviceSpec, options: CalibrationOptions
) -> Group:
    """Return the group to price: as asked, else the scenario's unit where it was measured, on the most recent OS.

    Raises:
        ProfileError: Nothing was timed where the options ask for; what was is listed.
    """
    groups = {item.group for item in (*observations.blocks, *observations.networks)}
    units = {group.compute_unit for group in groups}
    unit = options.compute_unit or device.unit_for(scenario.compute_units).compute_unit
    if unit not in units and options.compute_unit is None:
        unit = observations.latest(groups).compute_unit
    candidates = {group for group in groups if group.compute_unit == unit}
    if options.os_build is not None:
        candidates = {group for group in candidates if group.os_build == options.os_build}
    if not candidates:
        known = ", ".join(f"{group.os_build!r} on {group.compute_unit!r}" for group in sorted(groups))
        raise ProfileError(f"no records of OS version {options.os_build!r} on {unit!r}; there are {known}")
    return observations.latest(candidates)


def _base_model(
    profiles: ProfileSet,
    observations: Observations,
    workloads: Mapping[str, Workload],
    *,
    group: Group,
    scenario: Scenario,
    device: DeviceSpec,
    options: CalibrationOptions,
) -> CalibratedModel:
    """Return the model without what a fit finds: no tables, unit memory scale, the device's own factor."""
    rises = {
        item.summary.subject: item.summary.peak_memory_mb
        for item in observations.blocks
        if item.summary.peak_memory_mb is not None and item.group.compute_unit == group.compute_unit
    }
    home = home_units(device, group.compute_unit, scenario.compute_units, scenario.precision)[0]
    ratios_mb = [
        rises[signature] / (block.alone_bytes / 1e6)
        for signature, block in known_features(workloads.values(), home.lowered).items()
        if signature in rises and block.alone_bytes > 0
    ]
    outside = (1.0 / device.prior_factor.value, device.prior_factor.value)
    return CalibratedModel(
        device=profiles.records[0].device.name,
        os_build=group.os_build,
        compute_unit=group.compute_unit,
        prior_device=device.name,
        scenario=call_label(scenario),
        precision=scenario.precision,
        tables=(),
        infeasible=observations.infeasible,
        weights=options.weights,
        lowerings=options.lowerings,
        rises=tuple(BlockRise(signature=name, inside_mb=rises[name]) for name in sorted(rises)),
        inside_scale=float(np.median(ratios_mb)) if ratios_mb else 1.0,
        memory_scale=1.0,
        memory_offset_mb=0.0,
        ratios=IntervalRatios(coverage=options.coverage, latency=outside, outside=outside, memory=(0.5, 2.0)),
        data_sha256=sha256_text(canonical_json(to_data(profiles.records))),
        num_networks=len({item.summary.subject for item in observations.networks}),
        origin="simulated" if any(record.origin == "simulated" for record in profiles.records) else "predicted",
    )


def _with_intervals(
    model: CalibratedModel,
    check: BlockCheck,
    networks: Sequence[MeasuredNetwork],
    held_out: Sequence[HeldOut],
    options: CalibrationOptions,
    shift: float,
) -> CalibratedModel:
    scores = session_scores(latency_errors(networks, held_out), stated_shift=shift)
    latency = exp(group_quantile(scores, options.coverage, interpolated=True))
    outside = latency
    if check.prior_ratio is not None:
        outside *= check.prior_ratio
    else:
        outside = max(outside, model.ratios.outside[1])
    memory, law = model.ratios.memory, None
    of_memory = memory_scores(networks, held_out)
    if len(of_memory) >= needed(options.coverage):
        low, high = ratio_interval(of_memory, options.coverage)
        memory = (min(low, 1.0 / _LEAST_MEMORY_RATIO), max(high, _LEAST_MEMORY_RATIO))
        readings = tuple((error,) for error in memory_errors(networks, held_out))
        law = ErrorLaw(errors=readings, least=log(_LEAST_MEMORY_RATIO))
    ratios = IntervalRatios(
        coverage=options.coverage,
        latency=(1.0 / latency, latency),
        outside=(1.0 / outside, outside),
        memory=memory,
        block=None if check.repeat_ratio is None else (1.0 / check.repeat_ratio, check.repeat_ratio),
        latency_law=ErrorLaw(
            errors=tuple(
                tuple(map(float, row)) for row in session_errors(latency_errors(networks, held_out), stated_shift=shift)
            )
        ),
        memory_law=law,
        domain=fit_domain([CalibratedPredictor(model=model).price(network.workload) for network in networks]),
    )
    return replace(model, ratios=ratios)


def _report(
    model: CalibratedModel,
    posterior: Posterior,
    networks: Sequence[MeasuredNetwork],
    held_out: Sequence[HeldOut],
    folds: Sequence[int],
    observations: Observations,
    *,
    scenario: Scenario,
    shift: float,
) -> CalibrationReport:
    rows = [
        _row(model, network, item, fold, scenario.denoiser_calls)
        for network, item, fold in zip(networks, held_out, folds, strict=True)
    ]
    errors = latency_errors(networks, held_out)
    of_memory = memory_scores(networks, held_out)
    return CalibrationReport(
        device=model.device,
        scenario=model.scenario,
        predictor=CalibratedPredictor(model=model).name,
        denoiser_calls=scenario.denoiser_calls,
        num_blocks=len({item.summary.subject for item in observations.blocks}),
        num_networks=len({network.summary.subject for network in networks}),
        networks=tuple(rows),
        latency_error=summarise_errors(
            [(row.measured_ms, row.predicted_ms, row.low_ms, row.high_ms) for row in rows],
            coverage=group_held_out_coverage(
                session_scores(errors, stated_shift=shift),
                model.ratios.coverage,
                judged=[[abs(float(np.median(row)))] for row in errors],
                interpolated=True,
            ),
            stated=model.ratios.coverage,
        ),
        memory_error=_memory_error(rows, of_memory, model.ratios.coverage) if of_memory else None,
        latency_error_parts=error_parts(errors),
        machine_swing_ratio=None,
        worst_blocks=worst_blocks(model, posterior, observations),
        coefficients=coefficients(model, posterior),
        records=observations.counts,
        outliers=posterior.outliers,
        groups=pooled_groups(model),
        num_infeasible=len(model.infeasible),
        num_bounds=len(observations.bounds),
    )


def _row(model: CalibratedModel, network: MeasuredNetwork, item: HeldOut, fold: int, calls: int) -> NetworkResult:
    group = network.time.group
    own = replace(model, os_build=group.os_build, compute_unit=group.compute_unit)
    weights_mb = CalibratedPredictor(model=own).weights_mb(network.workload)
    rise_mb = network.activation_mb
    ratios = model.ratios
    return NetworkResult(
        subject=network.summary.subject,
        fold=fold,
        measured_ms=calls * network.summary.centre_ms,
        predicted_ms=calls * item.latency_ms,
        low_ms=calls * item.latency_ms * ratios.latency[0],
        high_ms=calls * item.latency_ms * ratios.latency[1],
        measured_memory_mb=None if rise_mb is None else weights_mb + rise_mb,
        predicted_memory_mb=weights_mb + item.activation_mb,
        memory_low_mb=weights_mb + item.activation_mb * ratios.memory[0],
        memory_high_mb=weights_mb + item.activation_mb * ratios.memory[1],
        os_build=group.os_build,
        compute_unit=group.compute_unit,
    )


def _memory_error(rows: Sequence[NetworkResult], scores: Sequence[float], stated: float) -> ErrorSummary:
    return summarise_errors(
        [
            (row.measured_memory_mb, row.predicted_memory_mb, row.memory_low_mb, row.memory_high_mb)
            for row in rows
            if row.measured_memory_mb is not None
        ],
        coverage=held_out_coverage(scores, scores, stated),
        stated=stated,
    )
