"""Errors of single blocks: measured ones against a fresh measurement, others against the prior that prices them."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp
from typing import TYPE_CHECKING

import numpy as np

from latency_models.conformal import (
    conformal_quantile,
    group_held_out_coverage,
    group_quantile,
    held_out_coverage,
    needed,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from latency_models.summaries import Summary


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockCheck:
    """Coverage of intervals for single blocks; figures are None where too few blocks were measured, or only once.

    Attributes:
        stated_coverage: What the intervals promise.
        num_repeated: Blocks measured more than once.
        repeat_ratio: Upper end over value of a measured block's interval, for one fresh measurement of it.
        repeat_coverage: Share of single measurements inside intervals made from the other blocks.
        num_priced: Measured blocks that the prior prices as well.
        prior_ratio: Upper end over value of a block that was not measured.
        prior_coverage: Share of blocks inside such intervals, each priced and its interval made without it.
    """

    stated_coverage: float
    num_repeated: int
    repeat_ratio: float | None
    repeat_coverage: float | None
    num_priced: int
    prior_ratio: float | None
    prior_coverage: float | None


def check_blocks(blocks: Iterable[Summary], prior_errors: Sequence[float], coverage: float) -> BlockCheck:
    """Return intervals of single blocks and their held-out coverage.

    Args:
        blocks: Summaries of the measured blocks.
        prior_errors: Of blocks priced as if they had not been measured: logarithm of measured over priced time, each
            by a fit without the block.
        coverage: Stated coverage.
    """
    repeats = repeat_scores(blocks)
    priors = np.abs(np.asarray(prior_errors, dtype=float))
    enough = needed(coverage)
    return BlockCheck(
        stated_coverage=coverage,
        num_repeated=len(repeats),
        repeat_ratio=exp(group_quantile(repeats, coverage, items="blocks")) if len(repeats) >= enough else None,
        repeat_coverage=group_held_out_coverage(repeats, coverage),
        num_priced=len(priors),
        prior_ratio=exp(conformal_quantile(priors, coverage, items="blocks")) if len(priors) >= enough else None,
        prior_coverage=held_out_coverage(priors, priors, coverage),
    )


def repeat_scores(blocks: Iterable[Summary]) -> list[list[float]]:
    """Return, for each block measured more than once, how far each record is from the median of the others.

    That is what a table made of the others would have been off by; with all records in the table it is off by less.
    """
    groups = []
    for block in blocks:
        times = np.log(np.asarray(block.centres_ms, dtype=float))
        if len(times) > 1:
            groups.append([abs(float(times[i] - np.median(np.delete(times, i)))) for i in range(len(times))])
    return groups
