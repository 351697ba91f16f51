"""How much hypervolume each candidate would add to what is known; latency, memory and negated quality, minimised."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from nas.search.exact.problem import FloatArray

MOST_SLABS = 16


def gains(candidates: FloatArray, known: FloatArray, reference: FloatArray) -> FloatArray:
    """Return the hypervolume that each of ``candidates`` (N, 3) alone adds to ``known`` (M, 3), up to ``reference``.

    Memory is cut into slabs at the candidates' own values, and at up to ``MOST_SLABS`` of their quantiles when they
    are more (memory is then rounded up to the next cut, so gains are estimates). In each slab what is known
    is a staircase over latency, and a gain is an area above it.
    """
    result = np.zeros(len(candidates))
    cuts = np.unique(np.concatenate([candidates[:, 1], known[:, 1]]))
    cuts = cuts[cuts < reference[1]]
    if len(cuts) > MOST_SLABS:
        cuts = np.unique(np.quantile(candidates[:, 1], np.linspace(0, 1, MOST_SLABS), method="higher"))
        cuts = cuts[cuts < reference[1]]
    for low, high in pairwise([*cuts.tolist(), float(reference[1])]):
        inside = np.flatnonzero(candidates[:, 1] <= low)
        below = known[known[:, 1] <= low]
        result[inside] += (high - low) * _areas(candidates[inside][:, [0, 2]], below[:, [0, 2]], reference[[0, 2]])
    return result


def _areas(candidates: FloatArray, known: FloatArray, reference: FloatArray) -> FloatArray:
    """Return the area that each of ``candidates`` (N, 2) adds to the staircase of ``known`` (M, 2)."""
    known = known[(known < reference).all(axis=1)]
    order = np.lexsort((known[:, 1], known[:, 0]))
    start, height = known[order, 0], np.minimum.accumulate(known[order, 1])
    # The staircase as a function of latency: at the reference's height up to the first step.
    start = np.concatenate([[-np.inf], start])
    height = np.concatenate([[reference[1]], height])
    latency = np.minimum(candidates[:, 0], reference[0])
    quality = np.minimum(candidates[:, 1], reference[1])
    # A candidate gains from its latency up to the first step that is at least as low.
    first = np.searchsorted(-height, -quality, side="left")
    end = np.append(start, reference[0])[first]
    end = np.where(first == 0, latency, end)  # not above the reference's own height: nothing to gain
    widths = np.diff(np.append(start[1:], reference[0]))
    integral = np.concatenate([[0.0, 0.0], np.cumsum(height[1:] * widths)]) if len(start) > 1 else np.zeros(2)

    def under(latencies: FloatArray) -> FloatArray:
        """Integral of the staircase's height from the first step to ``latencies``, negative before it."""
        step = np.searchsorted(start, latencies, side="right") - 1
        origin = start[1] if len(start) > 1 else reference[0]
        before = (latencies - origin) * height[0]
        after = integral[step] + height[step] * (latencies - np.where(step > 0, start[step], 0.0))
        return np.where(step == 0, before, after)

    area = under(end) - under(latency) - quality * (end - latency)
    return np.where((end > latency) & (quality < reference[1]), np.maximum(area, 0.0), 0.0)
