"""Cross-validation by whole networks: what a fit without a network says of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import log
from typing import TYPE_CHECKING

from latency_models.conformal import log_score
from latency_models.memory_fit import MemoryReading, fit_memory
from latency_models.posterior import NetworkTime, Posterior, add_networks
from latency_models.predictors.block_table import CalibratedModel, CalibratedPredictor
from latency_models.summaries import Summary
from latency_models.tabulation import group_tables
from nas.core.rng import RandomStreams
from nas.core.workload import Workload

if TYPE_CHECKING:
    from collections.abc import Sequence

    from latency_models.dataset import Dataset
    from latency_models.observations import Observations


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredNetwork:
    """One network on one OS version and unit: what was measured, and what its prediction needs."""

    summary: Summary
    time: NetworkTime
    workload: Workload
    reading: MemoryReading | None = None

    @property
    def activation_mb(self) -> float | None:
        """Measured activation memory; None without a reading, or with a bound alone."""
        return None if self.reading is None or self.reading.at_least else self.reading.value_mb


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """Prediction of one network by a fit without it: latency (ms) of one call, activation memory (MB)."""

    latency_ms: float
    activation_mb: float


def with_latency(base: CalibratedModel, posterior: Posterior, observations: Observations) -> CalibratedModel:
    """Return ``base`` with the tables of a posterior."""
    return replace(base, tables=group_tables(posterior, observations))


def with_memory(
    model: CalibratedModel, networks: Sequence[MeasuredNetwork], exceeded: Sequence[tuple[Workload, MemoryReading]] = ()
) -> CalibratedModel:
    """Return ``model`` with the memory line fitted on those of ``networks`` that have a reading.

    ``exceeded`` are networks that ran out of memory, each with its bound.
    """
    predictor = CalibratedPredictor(model=model)
    known = [(network.workload, network.reading) for network in networks if network.reading is not None]
    if not known:
        return model
    pairs = [*known, *exceeded]
    line = fit_memory(
        [max(map(predictor.raw_activation_mb, predictor.features(workload))) for workload, _ in pairs],
        [reading for _, reading in pairs],
    )
    return replace(model, memory_scale=line.scale, memory_offset_mb=line.constant_mb)


def deal_folds(subjects: Sequence[str], *, folds: int, seed: int) -> list[int]:
    """Deal the distinct subjects out: all measurements of one network are in one fold."""
    order = list(dict.fromkeys(subjects))
    RandomStreams(seed).python("calibration-folds").shuffle(order)
    count = min(folds, len(order))
    fold_of = {subject: position % count for position, subject in enumerate(order)}
    return [fold_of[subject] for subject in subjects]


def hold_out(
    base: CalibratedModel,
    alone: Posterior,
    networks: Sequence[MeasuredNetwork],
    folds: Sequence[int],
    observations: Observations,
    data: Dataset,
    exceeded: Sequence[tuple[Workload, MemoryReading]] = (),
) -> list[HeldOut]:
    """Predict each network by the fit without its fold; a network stopped at a limit is in every fit but its own.

    ``exceeded`` are networks that ran out of memory and have no time; they are in every fit.
    """
    stopped = [time for time in data.networks if time.exceeded]
    models = []
    for fold in range(max(folds) + 1):
        kept = [network for network, own in zip(networks, folds, strict=True) if own != fold]
        left_out = {network.summary.subject for network, own in zip(networks, folds, strict=True) if own == fold}
        limits = [time for time in stopped if time.subject not in left_out]
        posterior = add_networks(alone, [*(network.time for network in kept), *limits])
        models.append(with_memory(with_latency(base, posterior, observations), kept, exceeded))
    return [_call(models[fold], network) for network, fold in zip(networks, folds, strict=True)]


def _call(model: CalibratedModel, network: MeasuredNetwork) -> HeldOut:
    group = network.time.group
    predictor = CalibratedPredictor(model=replace(model, os_build=group.os_build, compute_unit=group.compute_unit))
    price = predictor.price(network.workload)
    return HeldOut(
        latency_ms=price.latency_ms,
        activation_mb=max(block.activation_mb for block in price.blocks),
    )


def latency_errors(networks: Sequence[MeasuredNetwork], held_out: Sequence[HeldOut]) -> list[list[float]]:
    """Return the logarithm of measured over held-out predicted time of every pass over each network."""
    return [
        [log(centre_ms / item.latency_ms) for centre_ms in network.summary.centres_ms]
        for network, item in zip(networks, held_out, strict=True)
    ]


def memory_errors(networks: Sequence[MeasuredNetwork], held_out: Sequence[HeldOut]) -> list[float]:
    """Return the logarithm of measured over held-out predicted activation memory of the networks with a reading."""
    return [
        log(network.activation_mb / item.activation_mb)
        for network, item in zip(networks, held_out, strict=True)
        if network.activation_mb is not None
    ]


def memory_scores(networks: Sequence[MeasuredNetwork], held_out: Sequence[HeldOut]) -> list[float]:
    """Return the scores of the networks that have a memory reading."""
    return [
        log_score([network.activation_mb], item.activation_mb)
        for network, item in zip(networks, held_out, strict=True)
        if network.activation_mb is not None
    ]
