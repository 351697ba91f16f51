"""Errors of items measured in several passes: what belongs to the item, to the pass, and to a single reading."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    FloatArray = NDArray[np.float64]

_NORMAL_POINTS = 11


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorParts:
    """Standard deviations of the parts of a relative error.

    Attributes:
        model_ratio: Of what the prediction misses of an item, the same in every pass.
        repeat_ratio: Of one reading around its item's own level.
        shift_ratio: Of what one pass shifts all items by.
    """

    model_ratio: float
    repeat_ratio: float
    shift_ratio: float


def pass_shifts(errors: Sequence[ArrayLike]) -> FloatArray:
    """Return by how much each pass lies above the items' medians, over all items: a median for each pass.

    Args:
        errors: Signed errors of each item, one for each pass in the same order of passes; items may lack later passes.
    """
    table = _table(errors)
    shifts: FloatArray = np.nanmedian(table - np.nanmedian(table, axis=1, keepdims=True), axis=0)
    return shifts


def session_scores(errors: Sequence[ArrayLike], *, stated_shift: float = 0.0) -> list[FloatArray]:
    """Return groups of scores for ``group_quantile`` that cover a fresh item's median in a fresh session.

    The median over an item's passes is the figure to be covered, so its error is the score: the spread of single
    passes would count noise that a median leaves out. A fresh session may shift all items together; how far is taken
    from the shifts between the passes, each of which goes through all items. A group is the item's error under each
    of these shifts. Passes that follow each other may show less than sessions hours apart: where they spread less than
    ``stated_shift``, each is widened by a normal distribution of what is missing.

    Args:
        errors: Signed errors (logarithms of measured over predicted) of each held-out item, one for each pass.
        stated_shift: Standard deviation of the shift of later sessions, as known from elsewhere; 0 for the passes' own.
    """
    return [np.abs(row) for row in session_errors(errors, stated_shift=stated_shift)]


def session_errors(errors: Sequence[ArrayLike], *, stated_shift: float = 0.0) -> list[FloatArray]:
    """Return the groups of ``session_scores`` with their signs, for one-sided bounds."""
    medians = np.nanmedian(_table(errors), axis=1)
    shifts = pass_shifts(errors)
    shown = float(np.sum(shifts**2)) / max(len(shifts) - 1, 1)
    missing = max(0.0, stated_shift**2 - shown) ** 0.5
    if missing > 0.0:
        shifts = (shifts[:, None] + missing * _normal_points()).ravel()
    return list(medians[:, None] + shifts)


def _normal_points() -> FloatArray:
    """Return equally likely points with mean 0 and variance 1 that stand for the standard normal distribution."""
    points = np.array([NormalDist().inv_cdf((place + 0.5) / _NORMAL_POINTS) for place in range(_NORMAL_POINTS)])
    scaled: FloatArray = points / np.sqrt(np.mean(points**2))
    return scaled


def error_parts(errors: Sequence[ArrayLike]) -> ErrorParts | None:
    """Split errors by an analysis of variance over items and passes; None with fewer than two of either.

    Only passes that every item has are used. Robust it is not: one odd item is part of the figures.
    """
    least = min((len(np.asarray(row)) for row in errors), default=0)
    if least < 2 or len(errors) < 2:
        return None
    table = np.array([np.asarray(row, dtype=float)[:least] for row in errors])  # (items, passes)
    items, passes = table.shape
    left = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0, keepdims=True) + table.mean()
    repeat = float((left**2).sum() / ((items - 1) * (passes - 1)))
    model = max(0.0, float((table.mean(axis=1) ** 2).mean()) - repeat / passes)
    shift = max(0.0, float(table.mean(axis=0).var(ddof=1)) - repeat / items)
    return ErrorParts(model_ratio=model**0.5, repeat_ratio=repeat**0.5, shift_ratio=shift**0.5)


def _table(errors: Sequence[ArrayLike]) -> FloatArray:
    """Return errors as (items, passes), not-a-number where an item lacks a pass."""
    rows = [np.asarray(row, dtype=float) for row in errors]
    table = np.full((len(rows), max(map(len, rows))), np.nan)
    for place, row in enumerate(rows):
        table[place, : len(row)] = row
    return table
