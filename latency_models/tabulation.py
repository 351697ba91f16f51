"""From a posterior to the tables a predictor is stored as: one for each OS version and compute unit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from latency_models.effects import LEAST_SHARE
from latency_models.predictors.block_table import GroupTable, KindEffect, TableEntry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from latency_models.effects import Group
    from latency_models.observations import Observations
    from latency_models.posterior import Posterior

    FloatArray = NDArray[np.float64]


def group_tables(posterior: Posterior, observations: Observations) -> tuple[GroupTable, ...]:
    """Return the tables of all groups that were measured, in the order of the groups."""
    anchors = dict(observations.anchors)
    groups = posterior.effects.groups
    main = _best_known(observations, groups)
    measured = {(item.summary.subject, item.group.compute_unit) for item in observations.blocks}
    signatures = sorted(posterior.effects.known)
    tables = []
    for group in groups:
        times = _within_ms(posterior, signatures, group)
        ratio, ratio_sd = _against(posterior, signatures, group, main)
        tables.append(
            GroupTable(
                os_build=group.os_build,
                compute_unit=group.compute_unit,
                num_records=sum(
                    len(item.summary.centres_ms)
                    for item in (*observations.blocks, *observations.networks)
                    if item.group == group
                ),
                ratio=ratio,
                ratio_sd=ratio_sd,
                network_anchor=anchors.get(group),
                overhead_ms=posterior.overhead_ms(group),
                ms_per_weight_mb=posterior.system_factor(group) * posterior.value("weights"),
                entries=tuple(
                    TableEntry(signature=name, latency_ms=float(ms), measured=(name, group.compute_unit) in measured)
                    for name, ms in zip(signatures, times, strict=True)
                ),
                kinds=_kinds(posterior, group),
            )
        )
    return tuple(tables)


def _best_known(observations: Observations, groups: Sequence[Group]) -> Group:
    counts: Mapping[Group, tuple[int, int]] = {
        group: (
            sum(item.group == group for item in observations.networks),
            sum(item.group == group for item in observations.blocks),
        )
        for group in groups
    }
    return max(groups, key=lambda group: counts[group])


def _within_ms(posterior: Posterior, signatures: Sequence[str], group: Group) -> FloatArray:
    items = [(name, group) for name in signatures]
    times = posterior.block_ms(items)
    extras = np.array([posterior.extra_ms(posterior.effects.known[name].kind, group) for name in signatures])
    within: FloatArray = np.maximum(times, LEAST_SHARE * (times - extras))
    return within


def _against(posterior: Posterior, signatures: Sequence[str], group: Group, main: Group) -> tuple[float, float]:
    """Return the mean ratio of block times of ``group`` over those of ``main``, and its logarithm's deviation."""
    if group == main or not signatures:
        return 1.0, 0.0
    effects = posterior.effects
    rows = effects.context_rows([(name, group) for name in signatures])
    rows -= effects.context_rows([(name, main) for name in signatures])
    prior = [
        effects.prior_log_ms(name, group.compute_unit) - effects.prior_log_ms(name, main.compute_unit)
        for name in signatures
    ]
    mean_row = rows.mean(axis=0)
    log_ratio = float(np.mean(prior) + mean_row @ posterior.unknowns.mean)
    variance = float(posterior.unknowns.variance_of(mean_row[None, :])[0])
    return float(np.exp(log_ratio)), float(np.sqrt(variance))


def _kinds(posterior: Posterior, group: Group) -> tuple[KindEffect, ...]:
    kinds = sorted({block.kind for block in posterior.effects.known.values()})
    return tuple(
        KindEffect(kind=kind, scale=posterior.prior_scale(kind, group), extra_ms=posterior.extra_ms(kind, group))
        for kind in ("", *kinds)
    )
