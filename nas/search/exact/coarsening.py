"""Thinning labels out, with account of what is lost.

Of the labels of one cell of a grid over all columns but the latency the fastest is kept. Latency then never gets worse,
so a tight time limit stays exact; what is lost in the other columns is the most that a dropped label was better by.
Groups of labels, which are not compared with each other, have grids of their own, unless they differ in quality alone
in what can follow: then one grid over the best quality that each label can still reach serves all, and a label that
stands for one of another group is charged the most that what follows can make of the difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from nas.search.exact.tables import FloatArray

if TYPE_CHECKING:
    from nas.search.exact.tables import IntArray

Columns = Mapping[str, FloatArray]

# Fewer labels than this are not worth a loss, nor is a grid that leaves more than this part of them.
_FEWEST_LABELS = 256
_MOST_LEFT_RATIO = 0.8
# Labels are thinned out before dominance when there are this many times too many, to this many times the number wanted.
_FAR_TOO_MANY = 16
_EARLY = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Across:
    """What groups differ in by what can follow, for negated quality.

    Attributes:
        potential: By group, the least that the rest can add.
        transfer: For (group of a label, group of what stands for it) the most that the rest can add more to the latter.
    """

    potential: FloatArray
    transfer: FloatArray


@dataclass(slots=True, kw_only=True)
class Coarsening:
    """How labels are thinned out in one sweep, and what it has cost.

    Attributes:
        max_labels: Labels kept after a slot; no limit when ``None``.
        tolerances: Losses allowed by column over the whole sweep; columns left out lose nothing by them.
        losses: Losses by column so far: every thinning adds the most that it lost.
        slots_left: Slots that the rest of the tolerances is to last for.
    """

    max_labels: int | None = None
    tolerances: Mapping[str, float] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=dict)
    slots_left: int = 1

    def thinned_early(self, columns: Columns, groups: IntArray, num_groups: int, across: Across | None) -> IntArray:
        """Return which labels are worth a test of dominance, when there are far more than may stay."""
        everyone = np.arange(len(groups))
        if self.max_labels is None or len(groups) <= _FAR_TOO_MANY * self.max_labels:
            return everyone
        return self._to_number(columns, groups, everyone, _EARLY * max(1, self.max_labels // num_groups), across)

    def thinned(
        self, columns: Columns, groups: IntArray, kept: IntArray, num_groups: int, across: Across | None
    ) -> IntArray:
        """Return which of the labels ``kept``, in order of group and latency, stay; ``groups`` are those of all."""
        if self.tolerances and len(kept) > _FEWEST_LABELS:
            widths = {name: self._width(name) for name in columns if name != "latency"}
            cells = _of_width(columns, groups, kept, widths)
            if len(np.unique(cells)) <= _MOST_LEFT_RATIO * len(kept):
                kept = self._fastest(columns, groups, kept, cells, None)
        if self.max_labels is None or len(kept) <= self.max_labels // num_groups:
            return kept
        return self._to_number(columns, groups, kept, max(1, self.max_labels // num_groups), across)

    def _to_number(
        self, columns: Columns, groups: IntArray, kept: IntArray, capacity: int, across: Across | None
    ) -> IntArray:
        """Return at most ``capacity`` labels of each group, or so many in all where one grid serves all groups."""
        if across is not None:
            whole = capacity * len(across.potential)
            if len(kept) <= whole:
                return kept
            reach = {**columns, "quality": columns["quality"] + across.potential[groups]}
            cells = _numbered(reach, np.zeros_like(groups), kept, whole)
            return self._fastest(columns, groups, kept, cells, across)
        sizes = np.bincount(groups[kept])
        many = sizes[groups[kept]] > capacity
        cells = _numbered(columns, groups, kept[many], capacity)
        thinned = self._fastest(columns, groups, kept[many], cells, None)
        many[many] = np.isin(kept[many], thinned, assume_unique=True, invert=True)
        return np.asarray(kept[~many])

    def _width(self, name: str) -> float:
        return max(0.0, self.tolerances.get(name, 0.0) - self.losses.get(name, 0.0)) / self.slots_left

    def _fastest(
        self, columns: Columns, groups: IntArray, kept: IntArray, cells: IntArray, across: Across | None
    ) -> IntArray:
        """Return the fastest label of each cell, in the order of ``kept``, and count what the others were better by."""
        if not len(kept):
            return kept
        num_cells = int(cells.max()) + 1
        latency = columns["latency"][kept]
        lowest = np.full(num_cells, np.inf)
        np.minimum.at(lowest, cells, latency)
        position = np.full(num_cells, -1)
        fastest = np.flatnonzero(latency == lowest[cells])[::-1]
        position[cells[fastest]] = fastest  # of equals the first
        stands_for = position[cells]
        for name, row in columns.items():
            if name != "latency":
                values = row[kept]
                losses = values[stands_for] - values
                if across is not None and name == "quality":
                    own = groups[kept]
                    losses = losses + np.where(own == own[stands_for], 0.0, across.transfer[own, own[stands_for]])
                self.losses[name] = self.losses.get(name, 0.0) + max(0.0, float(losses.max()))
        return np.asarray(kept[np.sort(position[position >= 0])])


def _of_width(columns: Columns, groups: IntArray, kept: IntArray, widths: Mapping[str, float]) -> IntArray:
    """Return the cell of each label in grids of given widths; columns of width 0 keep all their values apart."""
    cells = groups[kept]
    for name, width in widths.items():
        row = columns[name][kept]
        if width > 0:
            own = np.floor((row - row.min()) / width).astype(np.int64)
        else:
            own = np.unique(row, return_inverse=True)[1]
        cells = np.unique(cells * (int(own.max()) + 1) + own, return_inverse=True)[1]
    return cells


def _numbered(columns: Columns, groups: IntArray, kept: IntArray, capacity: int) -> IntArray:
    """Return the cell of each label in grids of at most ``capacity`` cells a group; quality gets most of them."""
    if not len(kept):
        return kept
    own_groups = groups[kept]
    num_groups = int(own_groups.max()) + 1
    others = [name for name in columns if name not in ("latency", "quality")]
    num_bins = dict.fromkeys(others, max(1, round((capacity / 4) ** (1 / (1 + len(others))))))
    num_bins["quality"] = max(1, capacity // int(np.prod([num_bins[name] for name in others])))
    cells = own_groups
    for name, bins in num_bins.items():
        row = columns[name][kept]
        low, high = np.full(num_groups, np.inf), np.full(num_groups, -np.inf)
        np.minimum.at(low, own_groups, row)
        np.maximum.at(high, own_groups, row)
        span = np.where(high > low, high - low, 1.0)
        own = ((row - low[own_groups]) / span[own_groups] * bins).astype(np.int64)
        cells = cells * bins + np.minimum(own, bins - 1)
    return cells
