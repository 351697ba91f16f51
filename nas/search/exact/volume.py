"""Hypervolume of many points at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nas.search.exact import dominance

if TYPE_CHECKING:
    from nas.search.exact.tables import FloatArray


def hypervolume(points: FloatArray, reference: FloatArray) -> float:
    """Return the volume that ``points`` (N, 3), minimised, dominate up to ``reference`` (3,).

    The axis with the fewest values is cut into slabs; in each, what lies below is a staircase over the other two.
    """
    points = points[(points < reference).all(axis=1)]
    if not len(points):
        return 0.0
    points = points[dominance.keep(list(points.T))]
    cut = int(np.argmin([len(np.unique(column)) for column in points.T]))
    first, second = [axis for axis in range(3) if axis != cut]
    points = points[np.argsort(points[:, first], kind="stable")]
    levels = np.append(np.unique(points[:, cut]), reference[cut])
    volume = 0.0
    for low, high in zip(levels[:-1].tolist(), levels[1:].tolist(), strict=True):
        below = points[points[:, cut] <= low]
        start = np.append(below[:, first], reference[first])
        lowest = np.minimum.accumulate(below[:, second])
        volume += float(np.diff(start) @ (reference[second] - lowest)) * (high - low)
    return volume
