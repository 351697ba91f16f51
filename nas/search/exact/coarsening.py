"""Thinning labels out, with account of what is lost.

Of the labels of one cell of a grid over all columns but the latency the fastest is kept. Latency then never gets worse,
so a tight time limit stays exact; what is lost in the other columns is the most that a dropped label was better by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from nas.search.exact.tables import FloatArray, IntArray

# Fewer labels than this are not worth a loss, nor is a grid that leaves more than this part of them.
_FEWEST_LABELS = 256
_MOST_LEFT_RATIO = 0.8


@dataclass(slots=True, kw_only=True)
class Coarsening:
    """How labels are thinned out in one sweep, and what it has cost.

    Attributes:
        max_labels: Labels kept after a slot; no limit when ``None``.
        tolerances: Losses allowed by column over the whole sweep; columns left out lose nothing by them.
        losses: Losses by column so far, summed over the slots behind and the present one's worst group.
    """

    max_labels: int | None = None
    tolerances: Mapping[str, float] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=dict)
    _slot: dict[str, float] = field(default_factory=dict)
    _slots_left: int = 1

    def start_slot(self, slots_left: int) -> None:
        """Begin a slot; ``slots_left`` counts it and those behind it."""
        for name, loss in self._slot.items():
            self.losses[name] = self.losses.get(name, 0.0) + loss
        self._slot = {}
        self._slots_left = slots_left

    def finish(self) -> None:
        """End the last slot."""
        self.start_slot(1)

    def thinned(self, columns: Mapping[str, FloatArray], kept: IntArray, num_groups: int) -> IntArray:
        """Return which of the labels ``kept``, sorted by latency, stay in one of ``num_groups`` groups."""
        if self.tolerances and len(kept) > _FEWEST_LABELS // num_groups:
            widths = {name: self._width(name) for name in columns if name != "latency"}
            fewer = self._fastest(columns, kept, _cells_of_width(columns, kept, widths))
            kept = kept if fewer is None else fewer
        capacity = None if self.max_labels is None else max(1, self.max_labels // num_groups)
        if capacity is not None and len(kept) > capacity:
            cells = _cells_of_number(columns, kept, capacity)
            kept = self._take(columns, kept, *_first_of_each(cells))
        return kept

    def _width(self, name: str) -> float:
        return max(0.0, self.tolerances.get(name, 0.0) - self.losses.get(name, 0.0)) / self._slots_left

    def _fastest(self, columns: Mapping[str, FloatArray], kept: IntArray, cells: IntArray) -> IntArray | None:
        first, cell_of = _first_of_each(cells)
        if len(first) > _MOST_LEFT_RATIO * len(kept):
            return None
        return self._take(columns, kept, first, cell_of)

    def _take(self, columns: Mapping[str, FloatArray], kept: IntArray, first: IntArray, cell_of: IntArray) -> IntArray:
        for name, row in columns.items():
            if name != "latency":
                values = row[kept]
                loss = float((values[first][cell_of] - values).max())
                self._slot[name] = max(self._slot.get(name, 0.0), loss)
        return kept[np.sort(first)]


def _first_of_each(cells: IntArray) -> tuple[IntArray, IntArray]:
    """Return the position of the first label of each cell, and the cell of each label."""
    _, first, cell_of = np.unique(cells, return_index=True, return_inverse=True)
    return first, cell_of


def _cells_of_width(columns: Mapping[str, FloatArray], kept: IntArray, widths: Mapping[str, float]) -> IntArray:
    """Return the cell of each label in a grid of given widths; columns of width 0 keep all their values apart."""
    cells = np.zeros(len(kept), dtype=np.int64)
    for name, width in widths.items():
        row = columns[name][kept]
        if width > 0:
            own = np.floor((row - row.min()) / width).astype(np.int64)
        else:
            own = np.unique(row, return_inverse=True)[1]
        cells = np.unique(cells * (int(own.max()) + 1) + own, return_inverse=True)[1]
    return cells


def _cells_of_number(columns: Mapping[str, FloatArray], kept: IntArray, capacity: int) -> IntArray:
    """Return the cell of each label in a grid of at most ``capacity`` cells; quality gets most of them."""
    others = [name for name in columns if name not in ("latency", "quality")]
    num_bins = dict.fromkeys(others, max(1, round((capacity / 4) ** (1 / (1 + len(others))))))
    num_bins["quality"] = max(1, capacity // int(np.prod([num_bins[name] for name in others])))
    cells = np.zeros(len(kept), dtype=np.int64)
    for name, bins in num_bins.items():
        row = columns[name][kept]
        span = float(np.ptp(row)) or 1.0
        cells = cells * bins + np.minimum(((row - row.min()) / span * bins).astype(np.int64), bins - 1)
    return cells
