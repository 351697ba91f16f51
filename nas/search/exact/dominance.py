"""Non-dominated rows of large point sets, vectorised; every column is minimised, of equal points one is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nas.search.exact.tables import BoolArray, FloatArray, IntArray

_BLOCK = 256


def keep(columns: Sequence[FloatArray]) -> IntArray:
    """Return the indices of a complete front, in lexicographic order of the columns; of equal points the first.

    Two columns take one sort and a running minimum; three a sort for each level of a merge tree; more a comparison of
    every point with the front found before it.

    Args:
        columns: One or more arrays (N,).
    """
    order = np.lexsort(tuple(reversed(columns)))
    if len(order) == 0:
        return order
    if len(columns) == 1:
        return order[:1]
    if len(columns) == 2:
        return order[_keep_two(columns[1][order])]
    ordered = [column[order] for column in columns]
    different = np.zeros(len(order), dtype=bool)
    different[0] = True
    for column in ordered:
        different[1:] |= column[1:] != column[:-1]
    order = order[different]
    ordered = [column[different] for column in ordered]
    if len(columns) == 3:
        return order[_keep_three(ordered[1], ordered[2])]
    return order[_keep_many(np.stack(ordered))]


def _keep_two(second: FloatArray) -> IntArray:
    """Return the positions with a value below all before; rows come in lexicographic order."""
    before = np.minimum.accumulate(second)
    kept = np.ones(len(second), dtype=bool)
    kept[1:] = second[1:] < before[:-1]
    return np.flatnonzero(kept)


def _keep_three(second: FloatArray, third: FloatArray) -> IntArray:
    """Return the positions no earlier one is at most equal to in both; rows are lexicographic and all different.

    At each level of a binary tree over positions, the right halves ask their left halves for the smallest ``third``
    among those with no larger ``second``: a running minimum over blocks. Ranks make it exact.
    """
    size = len(second)
    _, rank = np.unique(third, return_inverse=True)
    by_second = np.argsort(second, kind="stable")
    alive = np.ones(size, dtype=bool)
    for level in range(max(size - 1, 1).bit_length()):
        by_second = by_second[alive[by_second]]
        block = by_second >> (level + 1)
        inside = by_second[np.argsort(block, kind="stable")]
        left = (inside >> level) & 1 == 0
        # Later blocks get lower values, so that a running minimum never sees an earlier block.
        offset = (inside >> (level + 1)) * (2 * size + 2)
        lowest = np.minimum.accumulate(np.where(left, rank[inside], size) - offset) + offset
        alive[inside[~left & (lowest <= rank[inside])]] = False
    return np.flatnonzero(alive)


def _keep_many(rows: FloatArray) -> IntArray:
    """Return the positions of the front of ``rows`` (columns, N), lexicographic and all different."""
    kept = np.zeros(0, dtype=np.int64)
    for start in range(0, rows.shape[1], _BLOCK):
        new = np.arange(start, min(start + _BLOCK, rows.shape[1]))
        new = new[~_any_below(rows[:, kept], rows[:, new])]
        earlier = np.tri(len(new), k=-1, dtype=bool).T  # [i, j]: i comes before j
        below = (rows[:, new][:, :, None] <= rows[:, new][:, None, :]).all(axis=0)
        new = new[~(below & earlier).any(axis=0)]
        kept = np.concatenate([kept, new])
    return kept


def _any_below(front: FloatArray, points: FloatArray) -> BoolArray:
    """Return for each of ``points`` (columns, M) whether one of ``front`` (columns, K) is nowhere above it, (M,)."""
    found = np.zeros(points.shape[1], dtype=bool)
    for start in range(0, front.shape[1], 4 * _BLOCK):
        part = front[:, start : start + 4 * _BLOCK]
        found |= (part[:, :, None] <= points[:, None, :]).all(axis=0).any(axis=0)
    return found
