"""Non-dominated rows of large point sets, vectorised; every column is minimised, of equal points one is kept."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from nas.search.exact.tables import BoolArray, FloatArray, IntArray

_BLOCK = 256
_SAMPLE = 64


def keep(columns: Sequence[FloatArray], groups: IntArray | None = None) -> IntArray:
    """Return the indices of a complete front, in lexicographic order of the columns; of equal points the first.

    Two columns take one sort and a running minimum; three a sort for each level of a merge tree; more a bit for every
    pair of points.

    Args:
        columns: One or more arrays (N,).
        groups: The group of each point, (N,): only points of one group are compared, and groups come in order.
    """
    order = _lexicographic(columns, groups)
    if len(order) == 0:
        return order
    ordered = [column[order] for column in columns]
    if len(ordered) <= 2:
        firsts = np.zeros(1, dtype=np.int64) if groups is None else _starts(groups[order])
        return order[firsts] if len(ordered) == 1 else order[_keep_two(ordered[1], firsts)]
    if groups is not None:
        ordered = _apart(ordered, groups[order])
    different = np.zeros(len(order), dtype=bool)
    different[0] = True
    for column in ordered:
        different[1:] |= column[1:] != column[:-1]
    order = order[different]
    ordered = [column[different] for column in ordered]
    if groups is None:
        sampled = _against_sample(ordered)
        order, ordered = order[sampled], [column[sampled] for column in ordered]
    if len(ordered) == 3:
        return order[_keep_three(ordered[1], ordered[2])]
    return order[_keep_many(np.stack(ordered))]


def _lexicographic(columns: Sequence[FloatArray], groups: IntArray | None) -> IntArray:
    """Return what ``np.lexsort`` does, groups first and then the columns in turn; equal rows go by index.

    Few values of the first column are equal as a rule: it is sorted alone, and only rows with equal ones again.
    """
    first = columns[0]
    order = np.argsort(first)
    values = first[order]
    equal = values[1:] == values[:-1]
    if equal.any():
        positions = np.flatnonzero(np.append(equal, False) | np.append(False, equal))
        rows = np.sort(order[positions])
        order[positions] = rows[np.lexsort([column[rows] for column in reversed(columns)])]
    if groups is None:
        return order
    small = groups.astype(np.min_scalar_type(int(groups.max(initial=0))))  # of small integers: a radix sort
    return order[np.argsort(small[order], kind="stable")]


def _starts(groups: IntArray) -> IntArray:
    """Return the positions at which a new group starts, groups being in order."""
    return np.flatnonzero(np.append(True, groups[1:] != groups[:-1]))


def _apart(ordered: list[FloatArray], groups: IntArray) -> list[FloatArray]:
    """Return columns in which points of different groups do not dominate each other; rows come sorted by group first.

    Later groups are worse in the first column, earlier ones in the second.
    """
    first, second, *rest = ordered
    return [_ranks(groups, first), _ranks(-groups, second), *rest]


def _ranks(groups: IntArray, column: FloatArray) -> FloatArray:
    """Return the positions of (group, value) pairs in order, equal ones alike."""
    order = np.lexsort((column, groups))
    rises = (column[order][1:] != column[order][:-1]) | (groups[order][1:] != groups[order][:-1])
    ranks = np.zeros(len(order))
    ranks[order[1:]] = np.cumsum(rises)
    return ranks


def _keep_two(second: FloatArray, firsts: IntArray) -> IntArray:
    """Return the positions with a value below all before in the group that starts at one of ``firsts``."""
    kept = np.ones(len(second), dtype=bool)
    for start, end in pairwise([*firsts.tolist(), len(second)]):
        before = np.minimum.accumulate(second[start:end])
        kept[start + 1 : end] = second[start + 1 : end] < before[:-1]
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
    """Return the positions of the front of ``rows`` (columns, N), lexicographic and all different.

    A point is dominated when some point comes before it in every column, ties going by position. Columns are cut into
    blocks of their order; the points before a block are a set of bits, and whoever is in all of a point's sets
    dominates it. What shares a block with it in some column is compared directly.
    """
    size = rows.shape[1]
    alive = np.ones(size, dtype=bool)
    blocks = []
    for row in rows:
        order = np.argsort(row, kind="stable")
        block = np.empty(size, dtype=np.int64)
        block[order] = np.arange(size) // _BLOCK
        blocks.append(block)
        for start in range(0, size, _BLOCK):
            inside = np.sort(order[start : start + _BLOCK])
            alive[inside[_dominated_inside(rows[:, inside])]] = False
    sets = [_bits_before(block) for block in blocks[1:]]
    for start in range(0, size, _BLOCK):  # blocks of the first column are runs of positions
        own = start + np.flatnonzero(alive[start : start + _BLOCK])
        words = start // 64
        common = sets[0][blocks[1][own], :words]
        for bits, block in zip(sets[1:], blocks[2:], strict=True):
            common &= bits[block[own], :words]
        alive[own[common.any(axis=1)]] = False
    return np.flatnonzero(alive)


def _against_sample(columns: list[FloatArray]) -> IntArray:
    """Return the positions that some points of small ranks do not dominate."""
    rows, left = np.stack(columns), np.arange(len(columns[0]))
    ranks = np.zeros(len(left))
    for row in rows:
        ranks[np.argsort(row, kind="stable")] += np.arange(len(left))
    for point, index in [(rows[:, index], index) for index in np.argsort(ranks, kind="stable")[:_SAMPLE].tolist()]:
        if len(left) <= 4 * _BLOCK:
            break
        kept = left == index
        for row, value in zip(rows, point.tolist(), strict=True):
            kept |= row < value
        rows, left = rows[:, kept], left[kept]
    return left


def _dominated_inside(rows: FloatArray) -> BoolArray:
    """Return which of a few lexicographic, different points another one of them dominates."""
    below = np.tri(rows.shape[1], k=-1, dtype=bool).T  # [i, j]: i comes before j
    for row in rows[1:]:
        below = below & (row[:, None] <= row[None, :])
    return np.asarray(below.any(axis=0))


def _bits_before(block: IntArray) -> NDArray[np.uint64]:
    """Return for each block the set of points in the blocks before it, 64 points a word."""
    num_blocks = int(block.max()) + 1
    num_words = -(-len(block) // 64)
    bits = np.zeros((num_blocks + 1, num_words), dtype=np.uint64)
    position = np.arange(len(block))
    np.bitwise_or.at(bits, (block + 1, position // 64), np.uint64(1) << (position % 64).astype(np.uint64))
    return np.asarray(np.bitwise_or.accumulate(bits, axis=0))
