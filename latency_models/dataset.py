"""What the hierarchical model is fitted on: observations joined with the workloads and priors of what was measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from latency_models.effects import Effects, Group, KnownBlock, NetworkShape
from latency_models.features import BlockFeatures, block_features
from latency_models.posterior import BlockTime, DevicePrior, NetworkTime
from latency_models.predictors.roofline import home_units, placed_ms
from latency_models.rates import UNFITTED, FittedRates, RateSample, fit_rates
from latency_models.residency import PLAIN

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from latency_models.devices import DeviceSpec, WeightFormat
    from latency_models.lowering import Lowering
    from latency_models.observations import Observations
    from nas.core.scenario import ComputeUnits, Scenario
    from nas.core.workload import Workload

# A published or doubtful network is down-weighted by its own error; ordinary ones have theirs in the fitted noise.
_ORDINARY_SD = 0.049

# Core ML settings under which a network's home is the unit; the scenario's own where it is the Neural Engine.
_SETTINGS: dict[str, ComputeUnits] = {"gpu": "cpu_and_gpu", "cpu": "cpu_only"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Input of a fit."""

    effects: Effects
    blocks: tuple[BlockTime, ...]
    networks: tuple[NetworkTime, ...]
    prior: DevicePrior


def build_dataset(
    observations: Observations,
    workloads: Mapping[str, Workload],
    scenario: Scenario,
    device: DeviceSpec,
    *,
    groups: Iterable[Group] = (),
    weights: WeightFormat = PLAIN,
) -> Dataset:
    """Join observations with workloads.

    Args:
        observations: Of one device.
        workloads: By subject, of every network observed; more of them make more blocks known.
        scenario: Gives the precision.
        device: Gives the prior times.
        groups: Groups to model beyond those observed.
        weights: How the networks' weights are stored.
    """
    every_group = sorted({*observations.groups, *groups})
    units = sorted({group.compute_unit for group in every_group})
    homes = {unit: home_units(device, unit, scenario.compute_units, scenario.precision) for unit in units}
    spec = homes[every_group[0].compute_unit][0] if every_group else device.units[0]
    features = known_features(workloads.values())
    known = {
        signature: KnownBlock(
            signature=signature,
            kind=block.spec.kind,
            prior_ms=tuple(
                (unit, placed_ms(block, device, homes[unit], precision=scenario.precision, weights=weights))
                for unit in units
            ),
        )
        for signature, block in features.items()
    }
    known |= _neutral_blocks(observations, known)
    return Dataset(
        effects=Effects(known, every_group),
        blocks=_block_times(observations, known),
        networks=_network_times(observations, workloads),
        prior=DevicePrior(
            factor=device.prior_factor.value,
            call_overhead_ms=spec.call_overhead_ms.value,
            weights_mb=float(np.median([workload.weight_bytes for workload in workloads.values()])) / 1e6,
        ),
    )


def fit_constants(
    observations: Observations,
    workloads: Iterable[Workload],
    scenario: Scenario,
    device: DeviceSpec,
    weights: WeightFormat = PLAIN,
) -> FittedRates:
    """Fit the constants of ``device`` on the blocks measured alone; none are fitted where no block is known.

    Whole networks are left out, so that holding some of them out of the rest of a calibration means what it says.
    """
    features = known_features(workloads)
    samples = [
        RateSample(
            device=device,
            blocks=(features[item.summary.subject],),
            measured_ms=item.summary.centre_ms,
            weights=weights,
            compute_units=_SETTINGS.get(item.group.compute_unit, scenario.compute_units),
            precision=scenario.precision,
            log_sd=item.sd_ratio,
        )
        for item in observations.blocks
        if item.summary.subject in features
    ]
    return fit_rates(samples) if samples else UNFITTED


def known_features(workloads: Iterable[Workload], lowering: Lowering | None = None) -> dict[str, BlockFeatures]:
    """Return the features of every distinct block, by signature, in order of first appearance.

    ``lowering`` is that of the unit whose memory is wanted.
    """
    known: dict[str, BlockFeatures] = {}
    for workload in workloads:
        for block in block_features(workload, lowering):
            known.setdefault(block.spec.signature, block)
    return known


def shape_of(workload: Workload) -> NetworkShape:
    """Return a workload as the model sees it."""
    return NetworkShape(
        blocks=tuple(block.spec.signature for block in block_features(workload)),
        weights_mb=workload.weight_bytes / 1e6,
    )


def _neutral_blocks(observations: Observations, known: Mapping[str, KnownBlock]) -> dict[str, KnownBlock]:
    """Give measured blocks of no known workload a prior that their measurement agrees with, so that it says nothing."""
    priors = {signature: dict(block.prior_ms) for signature, block in known.items()}
    ratios = [
        item.summary.centre_ms / priors[item.summary.subject][item.group.compute_unit]
        for item in observations.blocks
        if item.summary.subject in priors
    ]
    typical = float(np.median(ratios)) if ratios else 1.0
    units = sorted({group.compute_unit for group in observations.groups})
    found: dict[str, KnownBlock] = {}
    for item in observations.blocks:
        subject = item.summary.subject
        if subject not in known and subject not in found:
            prior_ms = tuple((unit, item.summary.centre_ms / typical) for unit in units)
            found[subject] = KnownBlock(signature=subject, kind=subject.split("(", 1)[0], prior_ms=prior_ms)
    return found


def _block_times(observations: Observations, known: Mapping[str, KnownBlock]) -> tuple[BlockTime, ...]:
    timed = [
        BlockTime(
            signature=item.summary.subject, group=item.group, time_ms=item.summary.centre_ms, sd_ratio=item.sd_ratio
        )
        for item in observations.blocks
    ]
    stopped = [
        BlockTime(signature=bound.subject, group=bound.group, time_ms=bound.limit_ms, exceeded=True)
        for bound in observations.bounds
        if bound.level == "block" and bound.limit_ms is not None and bound.subject in known
    ]
    return (*timed, *stopped)


def _network_times(observations: Observations, workloads: Mapping[str, Workload]) -> tuple[NetworkTime, ...]:
    timed = [
        NetworkTime(
            subject=item.summary.subject,
            shape=shape_of(workloads[item.summary.subject]),
            group=item.group,
            time_ms=item.summary.centre_ms,
            sd_ratio=item.sd_ratio if item.sd_ratio > _ORDINARY_SD else 0.0,
        )
        for item in observations.networks
    ]
    stopped = [
        NetworkTime(
            subject=bound.subject,
            shape=shape_of(workloads[bound.subject]),
            group=bound.group,
            time_ms=bound.limit_ms,
            exceeded=True,
        )
        for bound in observations.bounds
        if bound.level == "network" and bound.limit_ms is not None and bound.subject in workloads
    ]
    return (*timed, *stopped)
