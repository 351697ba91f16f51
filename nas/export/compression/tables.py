"""Look-up tables by k-means over the distinct values of a weight.

A float16 weight has at most 65,536 distinct values however large it is: they are counted once, and every round of
Lloyd's iteration then costs a binary search per table entry, on running sums over the sorted values. coremltools 9.0
finds the distinct values as well, but by sorting the whole weight, and clusters weights of less than 10,000 elements
without counting at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nas.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nas.export.mil.values import Array

CODES = 1 << 16
# Lloyd's rounds end when so many of them lower the error by less than this share.
_ROUNDS = 2000
_LOOK = 20
_SETTLED = 1e-6
# Exchanges of a split for a merger, several at once; they end sooner where none lowers the error.
_EXCHANGES = 100
_CHUNK = 1 << 22
# All float16 values, by code.
_VALUES = np.arange(CODES, dtype=np.uint16).view(np.float16)


def value_counts(weight: Array) -> Array:
    """Return how often each of the 65,536 float16 codes occurs.

    Raises:
        InputError: A value is not finite.
    """
    codes = np.ascontiguousarray(weight).reshape(-1).view(np.uint16)
    counts = np.zeros(CODES, dtype=np.int64)
    for start in range(0, len(codes), _CHUNK):
        counts += np.bincount(codes[start : start + _CHUNK], minlength=CODES)
    if counts[~np.isfinite(_VALUES)].any():
        raise InputError("a weight has values that are infinite or no number", hint="export again")
    return counts


def fit_table(weight: Array, bits: int) -> Array:
    """Return the ``2**bits`` float16 values that lie nearest to those of a float16 weight, ascending.

    Lloyd's iteration from centres whose density follows that of the weight to the power 1/3, which is best for many
    centres (Panter, Dite 1951). Deterministic. Of a weight with no more distinct values all are kept.

    Raises:
        InputError: A value is not finite.
    """
    counts = value_counts(weight)
    (codes,) = np.nonzero(counts)
    values = _VALUES[codes].astype(np.float64)
    order = np.argsort(values, kind="stable")
    values, counts = values[order], counts[codes[order]].astype(np.float64)
    size = 1 << bits
    distinct = np.unique(values)
    if len(distinct) <= size:
        return np.concatenate([distinct, np.full(size - len(distinct), distinct[-1])]).astype(np.float16)
    return np.sort(_fitted(values, counts, size).astype(np.float16))


def _spread(values: Array, counts: Array, size: int) -> Array:
    """Return distinct starting centres: density of the values to the power 1/3, from counts and gaps."""
    gaps = np.gradient(values)
    mass = np.cumsum((counts * gaps * gaps) ** (1 / 3))  # (count / gap) ** (1/3) over a gap
    places = np.searchsorted(mass, (np.arange(size) + 0.5) / size * mass[-1])
    # Where values are scarce several places are one value: each takes the next free one.
    free = np.arange(size)
    places = np.maximum.accumulate(places - free) + free
    over = len(values) - size + free
    return values[np.minimum(places, over)]


class _Sorted:
    """Distinct values in order with their counts, and the sums over stretches of them."""

    def __init__(self, values: Array, counts: Array) -> None:
        zero = np.zeros(1)
        self.values = values
        self.mass = np.concatenate([zero, np.cumsum(counts)])
        self.first = np.concatenate([zero, np.cumsum(counts * values)])
        self.second = float(np.sum(counts * values**2))

    def stretches(self, bounds: Array) -> tuple[Array, Array]:
        """Return mass and mean between neighbouring bounds; the mean of nothing is 0."""
        mass = np.diff(self.mass[bounds])
        return mass, np.diff(self.first[bounds]) / np.maximum(mass, 1)

    def bounds(self, centres: Array) -> Array:
        """Return where the values of each centre begin, and the end."""
        edges = np.searchsorted(self.values, (centres[1:] + centres[:-1]) / 2)
        return np.concatenate([[0], edges, [len(self.values)]])

    def settled(self, centres: Array) -> tuple[Array, float]:
        """Move every centre to the mean of its values until the error settles; returns them and the error."""
        before = error = np.inf
        for number in range(_ROUNDS):
            mass, means = self.stretches(self.bounds(centres))
            centres = np.where(mass > 0, means, centres)
            if number % _LOOK == 0:
                error = self.second - float(np.sum(mass * means**2))
                if before - error <= _SETTLED * abs(error):
                    break
                before = error
        return centres, error

    def exchanged(self, centres: Array, number: int) -> Array:
        """Return centres of which up to ``number`` pairs of neighbours are one and as many others are two."""
        bounds = self.bounds(centres)
        mass, means = self.stretches(bounds)
        costs = _between(mass[:-1], mass[1:], means[:-1], means[1:])
        middles = np.searchsorted(self.values, means)
        halves, centre = self.stretches(np.stack([bounds[:-1], middles, bounds[1:]], axis=1).reshape(-1))
        left, right = slice(0, None, 3), slice(1, None, 3)
        gains = _between(halves[left], halves[right], centre[left], centre[right])
        pairs: list[int] = []
        touched = np.zeros(len(centres), dtype=bool)
        for pair in np.argsort(costs, kind="stable")[: 3 * number]:
            if len(pairs) < number and not touched[pair : pair + 2].any():
                pairs.append(pair)
                touched[pair : pair + 2] = True
        best = [at for at in np.argsort(-gains, kind="stable")[: 3 * number] if not touched[at]][: len(pairs)]
        worth = [(pair, at) for pair, at in zip(pairs, best, strict=False) if gains[at] > costs[pair]]
        merged, split = np.array([pair for pair, _ in worth], dtype=int), np.array([at for _, at in worth], dtype=int)
        together = mass[merged] + mass[merged + 1]
        added = (mass[merged] * means[merged] + mass[merged + 1] * means[merged + 1]) / np.maximum(together, 1)
        kept = np.delete(centres, np.concatenate([merged, merged + 1, split]))
        return np.sort(np.concatenate([kept, added, centre[left][split], centre[right][split]]))


def _between(mass: Array, other: Array, mean: Array, other_mean: Array) -> Array:
    """Return by how much the error of two stretches rises when one value stands for both."""
    found: Array = mass * other / np.maximum(mass + other, 1) * (mean - other_mean) ** 2
    return found


def _fitted(values: Array, counts: Array, size: int) -> Array:
    """Return centres of least error: Lloyd's, then exchanges of splits for mergers while they lower it."""
    data = _Sorted(values, counts)
    centres, error = data.settled(_spread(values, counts, size))
    number = max(size // 8, 1)
    for _ in range(_EXCHANGES):
        other, lower = data.settled(data.exchanged(centres, number))
        if lower < error * (1 - _SETTLED):
            centres, error = other, lower
        elif number > 1:
            number //= 2
        else:
            break
    return centres


def nearest_entries(weight: Array, table: Array) -> Array:
    """Return for every value of a float16 weight the index of the nearest entry of an ascending table, as uint8."""
    entries = table.astype(np.float64)
    with np.errstate(invalid="ignore"):
        nearest = np.searchsorted((entries[1:] + entries[:-1]) / 2, _VALUES.astype(np.float64)).astype(np.uint8)
    found: Array = nearest[np.ascontiguousarray(weight).view(np.uint16)]
    return found


def fit_tables(weight: Array, bits: int, *, axis: int, group_size: int | None) -> Array:
    """Return a table for each group of ``group_size`` slices along ``axis``: (groups, ``2**bits``)."""
    return np.stack([fit_table(part, bits) for part in groups(weight, axis=axis, group_size=group_size)])


def looked_up(weight: Array, tables: Array, *, axis: int, group_size: int | None) -> Array:
    """Return a weight with every value replaced by the nearest entry of its group's table."""
    dense = np.empty_like(weight)
    parts = groups(weight, axis=axis, group_size=group_size)
    for part, target, table in zip(parts, groups(dense, axis=axis, group_size=group_size), tables, strict=True):
        target[...] = table[nearest_entries(part, table)]
    return dense


def groups(weight: Array, *, axis: int, group_size: int | None) -> Iterator[np.ndarray[Any, Any]]:
    """Yield views of ``group_size`` slices along ``axis`` each, in order; the whole weight when None."""
    size = group_size or weight.shape[axis]
    moved = np.moveaxis(weight, axis, 0)
    for start in range(0, weight.shape[axis], size):
        yield np.moveaxis(moved[start : start + size], 0, axis)
