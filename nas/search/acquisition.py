"""How much hypervolume each candidate would add to what is known; latency, memory and negated quality, minimised.

Costs are known and quality is uncertain, so the expectation of the gain has a closed form: over every stretch of
latency on which the best known quality is the same, it is the expected improvement on that quality.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from nas.core.cost import Budget
    from nas.search.exact.problem import FloatArray

MOST_SLABS = 16
_BLOCK = 4096


def corner(costs: FloatArray, quality: FloatArray, budget: Budget) -> FloatArray:
    """Return the corner (3,) that volumes are measured from: limits, or a tenth beyond the worst where there is none.

    Args:
        costs: Latency and memory (N, 2).
        quality: Negated quality (M,), of the same or of others.
        budget: The limits.
    """
    result = []
    for column, limit in zip((*costs.T, quality), (*budget.objective_limits, None), strict=True):
        worst, spread = (float(column.max()), float(np.ptp(column))) if len(column) else (0.0, 0.0)
        result.append(worst + 0.1 * (spread or 1.0) if limit is None else limit)
    return np.array(result)


def gains(candidates: FloatArray, known: FloatArray, reference: FloatArray) -> FloatArray:
    """Return ``expected_gains`` of candidates (N, 3) whose quality is certain."""
    return expected_gains(candidates[:, :2], candidates[:, 2], np.zeros(len(candidates)), known, reference)


def expected_gains(
    costs: FloatArray, mean: FloatArray, deviation: FloatArray, known: FloatArray, reference: FloatArray
) -> FloatArray:
    """Return the expected hypervolume that each of N candidates alone adds to ``known`` (M, 3), up to ``reference``.

    Memory is cut into slabs at the values of all, and at up to ``MOST_SLABS`` quantiles of the candidates' when they
    are more (memory is then rounded up to the next cut, so gains are estimates).

    Args:
        costs: Latency and memory (N, 2).
        mean: Expected negated quality (N,).
        deviation: Its standard deviation, normally distributed.
        known: Latency, memory and negated quality.
        reference: The corner that volumes are measured from (3,).
    """
    result = np.zeros(len(costs))
    for low, high in _slabs(costs[:, 1], known[:, 1], reference[1]):
        inside = np.flatnonzero(costs[:, 1] <= low)
        below = known[known[:, 1] <= low]
        start, height = _staircase(below[:, [0, 2]], reference[[0, 2]])
        end = np.append(start[1:], reference[0])
        for first in range(0, len(inside), _BLOCK):
            part = inside[first : first + _BLOCK, None]
            widths = np.maximum(end - np.maximum(start, costs[part, 0]), 0.0)
            improvements = _expected_improvements(height, mean[part], deviation[part])
            result[part[:, 0]] += (high - low) * (widths * improvements).sum(axis=1)
    return result


def _expected_improvements(best: FloatArray, mean: FloatArray, deviation: FloatArray) -> FloatArray:
    """Return the expectations of ``max(best - value, 0)`` for normally distributed values."""
    from scipy.special import ndtr

    spread = np.maximum(deviation, 1e-12)
    distance = (best - mean) / spread
    density = np.exp(-0.5 * distance**2) / np.sqrt(2 * np.pi)
    return np.asarray(spread * (distance * ndtr(distance) + density))


def _slabs(candidates: FloatArray, known: FloatArray, reference: float) -> list[tuple[float, float]]:
    """Return the slabs of memory, from the least of all up to the reference."""
    cuts = np.unique(np.concatenate([candidates, known]))
    cuts = cuts[cuts < reference]
    if len(cuts) > MOST_SLABS:
        cuts = np.unique(np.quantile(candidates, np.linspace(0, 1, MOST_SLABS), method="higher"))
        cuts = cuts[cuts < reference]
    return list(pairwise([*cuts.tolist(), float(reference)]))


def _staircase(known: FloatArray, reference: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return where the steps of ``known`` (M, 2) start and how high they are; the first is the reference's height."""
    known = known[(known < reference).all(axis=1)]
    order = np.lexsort((known[:, 1], known[:, 0]))
    start, height = known[order, 0], np.minimum.accumulate(known[order, 1])
    lower = np.diff(height, prepend=np.inf) < 0
    return np.concatenate([[-np.inf], start[lower]]), np.concatenate([[reference[1]], height[lower]])
