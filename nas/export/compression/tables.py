"""Look-up tables by k-means over the distinct values of a weight.

A float16 weight has at most 65,536 distinct values however large it is: they are counted once. coremltools' exact
clustering (kmeans1d, a C++ library that 9.0 bundles) then takes up to 2 s for 256 entries; of 16 stretches of
neighbouring values for each entry it takes a tenth of that, and Lloyd's iteration on the values themselves, by running
sums, brings the error to within 0.1 % of the exact one. coremltools' own way into it sorts the whole weight, and
clusters weights of less than 10,000 elements by another method.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nas.core.errors import InputError, UnavailableError
from nas.export.shims import load_coremltools

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nas.export.mil.values import Array

CODES = 1 << 16
# Lloyd's rounds end when so many of them lower the error by less than this share.
_ROUNDS = 2000
_LOOK = 20
_SETTLED = 1e-6
# Of neighbouring values for each entry, among which the exact optimum is found.
_STRETCHES = 16
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

    Deterministic. Of a weight with no more distinct values all are kept.

    Raises:
        InputError: A value is not finite.
        UnavailableError: coremltools is missing, or built without its clustering.
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


def _stretched(values: Array, counts: Array, number: int) -> tuple[Array, Array]:
    """Return means and counts of at most ``number`` stretches of neighbouring values.

    Their density is that of the values to the power 1/3, as that of many centres (Panter, Dite 1951).
    """
    if len(values) <= number:
        return values, counts
    gaps = np.gradient(values)
    mass = np.cumsum((counts * gaps * gaps) ** (1 / 3))  # (count / gap) ** (1/3) over a gap
    starts = np.unique(np.searchsorted(mass, np.arange(number) / number * mass[-1]))
    together = np.add.reduceat(counts, starts)
    return np.add.reduceat(counts * values, starts) / together, together


def _settled(values: Array, counts: Array, centres: Array) -> Array:
    """Move every centre to the mean of the values nearest to it until the error settles (Lloyd)."""
    zero = np.zeros(1)
    mass_to, first_to = np.concatenate([zero, np.cumsum(counts)]), np.concatenate([zero, np.cumsum(counts * values)])
    second, before = float(np.sum(counts * values**2)), np.inf
    for number in range(_ROUNDS):
        edges = np.searchsorted(values, (centres[1:] + centres[:-1]) / 2)
        bounds = np.concatenate([[0], edges, [len(values)]])
        mass = np.diff(mass_to[bounds])
        means = np.diff(first_to[bounds]) / np.maximum(mass, 1)
        centres = np.where(mass > 0, means, centres)
        if number % _LOOK == 0:
            error = second - float(np.sum(mass * means**2))
            if before - error <= _SETTLED * abs(error):
                break
            before = error
    return centres


def _fitted(values: Array, counts: Array, size: int) -> Array:
    """Return centres of nearly least error: the exact ones of stretches of the values, settled on the values."""
    load_coremltools()
    from coremltools._deps import _kmeans1d

    if _kmeans1d is None:
        raise UnavailableError(
            "this build of coremltools has no one-dimensional clustering, which look-up tables need",
            hint="install coremltools from a wheel, or choose linear weights",
        )
    means, together = _stretched(values, counts, _STRETCHES * size)
    return _settled(values, counts, np.array(_kmeans1d.cluster(means, size, weights=together).centroids))


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
