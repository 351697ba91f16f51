"""Calibrate a predictor on measured blocks and networks, and check it on networks it has not seen."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from latency_models.conformal import (
    conformal_quantile,
    error_parts,
    group_held_out_coverage,
    group_quantile,
    held_out_coverage,
    log_score,
    needed,
    ratio_interval,
    session_scores,
)
from latency_models.features import BlockFeatures, block_features
from latency_models.fitting import NetworkRow, fit_latency, fit_memory
from latency_models.predictors.block_table import CalibratedModel, CalibratedPredictor, TableEntry
from latency_models.predictors.roofline import roofline_ms
from latency_models.pricing import IntervalRatios
from latency_models.profiles import call_label, single_device
from latency_models.reporting import CalibrationReport, ErrorSummary, NetworkResult, WorstBlock, summarise_errors
from latency_models.summaries import Summary, anchor_reference, machine_swing_ratio, summarise_all
from nas.core.errors import ProfileError
from nas.core.files import canonical_json, sha256_text
from nas.core.rng import RandomStreams
from nas.core.schema import to_data
from nas.core.workload import Workload

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from latency_models.devices import DeviceSpec
    from nas.core.profile import ProfileSet
    from nas.core.scenario import Scenario

__all__ = ["CalibrationOptions", "CalibrationReport", "calibrate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationOptions:
    """Settings of a calibration: stated coverage, number of folds over networks, seed of the folds."""

    coverage: float = 0.9
    folds: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.0 < self.coverage < 1.0:
            raise ValueError(f"calibrate.coverage must lie in (0, 1), got {self.coverage}")
        if self.folds < 2:
            raise ValueError(f"calibrate.folds must be at least 2, got {self.folds}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Network:
    summary: Summary
    workload: Workload
    row: NetworkRow
    raw_activation_mb: float


def calibrate(
    profiles: ProfileSet,
    workloads: Mapping[str, Workload],
    scenario: Scenario,
    device: DeviceSpec,
    options: CalibrationOptions | None = None,
) -> tuple[CalibratedPredictor, CalibrationReport]:
    """Fit a block table with an additive correction, and state its error on held-out networks.

    Args:
        profiles: Records of one device and scenario: blocks by signature, networks by digest.
        workloads: Workload of every measured network, by its subject.
        scenario: Scenario the profiles were taken for.
        device: Device whose roofline prices blocks that were not measured.
        options: Coverage and folds.

    Returns:
        The predictor fitted on all networks, and the report of its cross-validation: each network is predicted by a
        fit without it, and the residuals of those predictions set the interval.

    Raises:
        ProfileError: Mixed devices, records of another scenario, no blocks, too few networks for the coverage, or a
            network without a workload.
    """
    options = options or CalibrationOptions()
    _check(profiles, workloads, scenario, options)
    blocks = summarise_all(profiles.of_level("block"), reference=anchor_reference(profiles, "block"))
    network_anchor = anchor_reference(profiles, "network")
    features = _known_features(workloads)
    base = _base_model(profiles, blocks, features, scenario=scenario, device=device, options=options)
    networks = [
        _network(summary, workloads[subject], base)
        for subject, summary in summarise_all(profiles.of_level("network"), reference=network_anchor).items()
    ]
    folds = _folds(len(networks), options)
    held_out = [
        _fit(base, [net for i, net in enumerate(networks) if folds[i] != fold]) for fold in range(max(folds) + 1)
    ]
    predicted = [_call(held_out[folds[index]], network.workload) for index, network in enumerate(networks)]
    model = _with_intervals(_fit(base, networks), networks, predicted, options)
    report = _report(model, networks, predicted, folds, blocks, scenario=scenario, swing=machine_swing_ratio(profiles))
    return CalibratedPredictor(model=model), report


def _check(
    profiles: ProfileSet, workloads: Mapping[str, Workload], scenario: Scenario, options: CalibrationOptions
) -> None:
    single_device(profiles)
    label = call_label(scenario)
    other = sorted({record.scenario for record in profiles.records} - {label})
    if other:
        raise ProfileError(f"profiles are for {other[0]!r}, the calibration is for {label!r}")
    if not profiles.of_level("block"):
        raise ProfileError("profiles hold no block records", hint="run the profile stage first")
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


def _known_features(workloads: Mapping[str, Workload]) -> dict[str, BlockFeatures]:
    known: dict[str, BlockFeatures] = {}
    for workload in workloads.values():
        for block in block_features(workload):
            known.setdefault(block.spec.signature, block)
    return known


def _base_model(
    profiles: ProfileSet,
    blocks: Mapping[str, Summary],
    features: Mapping[str, BlockFeatures],
    *,
    scenario: Scenario,
    device: DeviceSpec,
    options: CalibrationOptions,
) -> CalibratedModel:
    first = profiles.records[0]
    unit = next((unit for unit in device.units if unit.compute_unit == first.device.compute_unit), device.units[0])
    ratios_ms = [
        blocks[signature].centre_ms / roofline_ms(block, unit, precision=scenario.precision)
        for signature, block in features.items()
        if signature in blocks
    ]
    ratios_mb = [
        blocks[signature].peak_memory_mb / (block.inside_bytes / 1e6)  # type: ignore[operator]  # checked below
        for signature, block in features.items()
        if signature in blocks and blocks[signature].peak_memory_mb is not None and block.inside_bytes > 0
    ]
    scale = float(np.median(ratios_ms)) if ratios_ms else 1.0
    factor = device.prior_factor.value
    if len(ratios_ms) >= needed(options.coverage):
        scores = [abs(float(value)) for value in np.log(np.asarray(ratios_ms) / scale)]
        factor = float(np.exp(conformal_quantile(scores, options.coverage)))
    outside = (1.0 / factor, factor)
    return CalibratedModel(
        device=first.device.name,
        compute_unit=first.device.compute_unit,
        prior_device=device.name,
        scenario=call_label(scenario),
        precision=scenario.precision,
        network_anchor=anchor_reference(profiles, "network"),
        table=tuple(
            TableEntry(signature=name, latency_ms=summary.centre_ms, inside_mb=summary.peak_memory_mb)
            for name, summary in sorted(blocks.items())
        ),
        corrections=(),
        fallback_scale=scale,
        table_scale=1.0,
        block_extra_ms=0.0,
        overhead_ms=0.0,
        ms_per_weight_mb=0.0,
        inside_scale=float(np.median(ratios_mb)) if ratios_mb else 1.0,
        memory_scale=1.0,
        memory_offset_mb=0.0,
        ratios=IntervalRatios(coverage=options.coverage, latency=outside, outside=outside, memory=(0.5, 2.0)),
        data_sha256=sha256_text(canonical_json(to_data(profiles.records))),
        num_networks=len({record.subject for record in profiles.of_level("network")}),
        origin="simulated" if any(record.origin == "simulated" for record in profiles.records) else "predicted",
    )


def _network(summary: Summary, workload: Workload, base: CalibratedModel) -> _Network:
    predictor = CalibratedPredictor(model=base)
    specs = dict(workload.blocks)
    kind_ms: dict[str, float] = {}
    kind_count: dict[str, int] = {}
    for block in predictor.price(workload).blocks:
        kind = specs[block.block].kind
        kind_ms[kind] = kind_ms.get(kind, 0.0) + block.latency_ms
        kind_count[kind] = kind_count.get(kind, 0) + 1
    row = NetworkRow(
        subject=summary.subject,
        measured_ms=summary.centre_ms,
        kind_ms=kind_ms,
        kind_count=kind_count,
        weights_mb=workload.weight_bytes / 1e6,
    )
    raw_mb = max(predictor.raw_activation_mb(block) for block in block_features(workload))
    return _Network(summary=summary, workload=workload, row=row, raw_activation_mb=raw_mb)


def _folds(count: int, options: CalibrationOptions) -> list[int]:
    order = list(range(count))
    RandomStreams(options.seed).python("calibration-folds").shuffle(order)
    folds = [0] * count
    for position, index in enumerate(order):
        folds[index] = position % min(options.folds, count)
    return folds


def _fit(base: CalibratedModel, networks: Sequence[_Network]) -> CalibratedModel:
    latency = fit_latency([network.row for network in networks])
    with_memory = [network for network in networks if network.summary.peak_memory_mb is not None]
    scale, offset = (1.0, 0.0)
    if with_memory:
        scale, offset = fit_memory(
            [network.raw_activation_mb for network in with_memory],
            [network.summary.peak_memory_mb or 0.0 for network in with_memory],
        )
    return replace(
        base,
        corrections=latency.corrections,
        table_scale=latency.table_scale,
        block_extra_ms=latency.block_extra_ms,
        overhead_ms=latency.overhead_ms,
        ms_per_weight_mb=latency.ms_per_weight_mb,
        memory_scale=scale,
        memory_offset_mb=offset,
    )


def _call(model: CalibratedModel, workload: Workload) -> tuple[float, float]:
    """Return latency (ms) of one call and activation memory (MB)."""
    price = CalibratedPredictor(model=model).price(workload)
    latency_ms = price.overhead_ms + sum(block.latency_ms for block in price.blocks)
    return latency_ms, max(block.activation_mb for block in price.blocks)


def _with_intervals(
    model: CalibratedModel,
    networks: Sequence[_Network],
    predicted: Sequence[tuple[float, float]],
    options: CalibrationOptions,
) -> CalibratedModel:
    scores = session_scores(_latency_errors(networks, predicted))
    half_width = float(np.exp(group_quantile(scores, options.coverage, interpolated=True)))
    latency = (1.0 / half_width, half_width)
    memory_scores = _memory_scores(networks, predicted)
    memory = model.ratios.memory
    if len(memory_scores) >= needed(options.coverage):
        memory = ratio_interval(memory_scores, options.coverage)
    wide = max(latency[1], model.ratios.outside[1])
    ratios = IntervalRatios(coverage=options.coverage, latency=latency, outside=(1.0 / wide, wide), memory=memory)
    return replace(model, ratios=ratios)


def _latency_errors(networks: Sequence[_Network], predicted: Sequence[tuple[float, float]]) -> list[list[float]]:
    """Return the logarithm of measured over held-out predicted time of every pass over each network."""
    return [
        [float(value) for value in np.log(np.array(network.summary.centres_ms) / item[0])]
        for network, item in zip(networks, predicted, strict=True)
    ]


def _memory_scores(networks: Sequence[_Network], predicted: Sequence[tuple[float, float]]) -> list[float]:
    return [
        log_score([network.summary.peak_memory_mb], item[1])
        for network, item in zip(networks, predicted, strict=True)
        if network.summary.peak_memory_mb is not None
    ]


def _report(
    model: CalibratedModel,
    networks: Sequence[_Network],
    predicted: Sequence[tuple[float, float]],
    folds: Sequence[int],
    blocks: Mapping[str, Summary],
    *,
    scenario: Scenario,
    swing: float | None,
) -> CalibrationReport:
    calls = scenario.denoiser_calls
    ratios = model.ratios
    rows = []
    for network, (latency_ms, activation_mb), fold in zip(networks, predicted, folds, strict=True):
        weights_mb = network.row.weights_mb
        rise_mb = network.summary.peak_memory_mb
        rows.append(
            NetworkResult(
                subject=network.summary.subject,
                fold=fold,
                measured_ms=calls * network.summary.centre_ms,
                predicted_ms=calls * latency_ms,
                low_ms=calls * latency_ms * ratios.latency[0],
                high_ms=calls * latency_ms * ratios.latency[1],
                measured_memory_mb=None if rise_mb is None else weights_mb + rise_mb,
                predicted_memory_mb=weights_mb + activation_mb,
                memory_low_mb=weights_mb + activation_mb * ratios.memory[0],
                memory_high_mb=weights_mb + activation_mb * ratios.memory[1],
            )
        )
    errors = _latency_errors(networks, predicted)
    latency_coverage = group_held_out_coverage(
        session_scores(errors),
        ratios.coverage,
        judged=[[abs(float(np.median(row)))] for row in errors],
        interpolated=True,
    )
    memory_scores = _memory_scores(networks, predicted)
    memory_error: ErrorSummary | None = None
    if memory_scores:
        memory_coverage = held_out_coverage(memory_scores, memory_scores, ratios.coverage)
        memory_error = summarise_errors(
            [
                (row.measured_memory_mb, row.predicted_memory_mb, row.memory_low_mb, row.memory_high_mb)
                for row in rows
                if row.measured_memory_mb is not None
            ],
            coverage=memory_coverage,
            stated=ratios.coverage,
        )
    return CalibrationReport(
        device=model.device,
        scenario=model.scenario,
        predictor=CalibratedPredictor(model=model).name,
        denoiser_calls=calls,
        num_blocks=len(blocks),
        num_networks=len(networks),
        networks=tuple(rows),
        latency_error=summarise_errors(
            [(row.measured_ms, row.predicted_ms, row.low_ms, row.high_ms) for row in rows],
            coverage=latency_coverage,
            stated=ratios.coverage,
        ),
        memory_error=memory_error,
        latency_error_parts=error_parts(errors),
        machine_swing_ratio=swing,
        worst_blocks=_worst_blocks(blocks),
        coefficients=_coefficients(model),
    )


def _worst_blocks(blocks: Mapping[str, Summary], count: int = 10) -> tuple[WorstBlock, ...]:
    ranked = sorted(blocks.values(), key=lambda summary: (-summary.repeat_ratio, summary.subject))
    return tuple(
        WorstBlock(
            signature=summary.subject,
            measured_ms=summary.centre_ms,
            repeat_ratio=summary.repeat_ratio,
            spread_ratio=summary.spread_ratio,
            num_samples=summary.num_samples,
        )
        for summary in ranked[:count]
    )


def _coefficients(model: CalibratedModel) -> tuple[tuple[str, float], ...]:
    pairs = [
        ("overhead_ms", model.overhead_ms),
        ("ms_per_weight_mb", model.ms_per_weight_mb),
        ("fallback_scale", model.fallback_scale),
        ("table_scale", model.table_scale),
        ("block_extra_ms", model.block_extra_ms),
        ("memory_scale", model.memory_scale),
        ("memory_offset_mb", model.memory_offset_mb),
        ("inside_scale", model.inside_scale),
    ]
    if model.network_anchor is not None:
        pairs.append(("network_anchor_ms", model.network_anchor.time_ms))
    for correction in model.corrections:
        pairs.append((f"{correction.kind}.scale", correction.scale))
        pairs.append((f"{correction.kind}.extra_ms", correction.extra_ms))
    return tuple(pairs)
