"""Thinning labels out, with account of what is lost.

Of the labels of one cell of a grid over all columns but the latency the fastest is kept. Latency then never gets worse,
so a tight time limit stays exact; what is lost in the other columns is the most that a dropped label was better by.
Groups of labels, which are not compared with each other, have grids of their own, unless they differ in quality alone
in what can follow: then one grid over the best quality that each label can still reach serves all, and a label that
stands for one of another group is charged the most that what follows can make of the difference.

A label that can no longer break a limit is only stood for by others that cannot: what it has to spare is not in the
columns. The largest of several latencies can lose in one of them after it has lost in another, so each loss counts for
all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from nas.search.exact.columns import LATENCY_OF
from nas.search.exact.tables import BoolArray, FloatArray, IntArray

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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Labels:
    """What is known of N labels that may be thinned out.

    Attributes:
        columns: What they are compared in, each (N,); latency and quality are among them.
        safe: By column with nothing but a limit, which labels cannot break it any more, (N,).
        groups: Labels of different groups are not compared, (N,).
        num_groups: How many groups there are.
        across: What groups differ in, if one grid can serve all.
    """

    columns: Columns
    safe: Mapping[str, BoolArray]
    groups: IntArray
    num_groups: int
    across: Across | None


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

    def thinned_early(self, labels: Labels) -> IntArray:
        """Return which labels are worth a test of dominance, when there are far more than may stay."""
        everyone = np.arange(len(labels.groups))
        if self.max_labels is None or len(everyone) <= _FAR_TOO_MANY * self.max_labels:
            return everyone
        return self._to_number(labels, everyone, _EARLY * max(1, self.max_labels // labels.num_groups))

    def thinned(self, labels: Labels, kept: IntArray) -> IntArray:
        """Return which of the labels ``kept``, in order of group and latency, stay."""
        if self.tolerances and len(kept) > _FEWEST_LABELS:
            widths = {name: self._width(name) for name in labels.columns if name != "latency"}
            cells = _of_width(labels, kept, widths)
            if len(np.unique(cells)) <= _MOST_LEFT_RATIO * len(kept):
                kept = self._fastest(replace(labels, across=None), kept, cells)
        if self.max_labels is None or len(kept) <= self.max_labels // labels.num_groups:
            return kept
        return self._to_number(labels, kept, max(1, self.max_labels // labels.num_groups))

    def _to_number(self, labels: Labels, kept: IntArray, capacity: int) -> IntArray:
        """Return at most ``capacity`` labels of each group, or so many in all where one grid serves all groups.

        There are more only where ``capacity`` is less than two for each limit.
        """
        across, groups = labels.across, labels.groups
        if across is not None:
            whole = capacity * len(across.potential)
            if len(kept) <= whole:
                return kept
            reach = {**labels.columns, "quality": labels.columns["quality"] + across.potential[groups]}
            cells = _numbered(replace(labels, columns=reach, groups=np.zeros_like(groups)), kept, whole)
            return self._fastest(labels, kept, cells)
        sizes = np.bincount(groups[kept])
        many = sizes[groups[kept]] > capacity
        cells = _numbered(labels, kept[many], capacity)
        thinned = self._fastest(labels, kept[many], cells)
        many[many] = np.isin(kept[many], thinned, assume_unique=True, invert=True)
        return np.asarray(kept[~many])

    def _width(self, name: str) -> float:
        return max(0.0, self.tolerances.get(name, 0.0) - self.losses.get(name, 0.0)) / self.slots_left

    def _fastest(self, labels: Labels, kept: IntArray, cells: IntArray) -> IntArray:
        """Return the fastest label of each cell, in the order of ``kept``, and count what the others were better by."""
        if not len(kept):
            return kept
        num_cells = int(cells.max()) + 1
        latency = labels.columns["latency"][kept]
        lowest = np.full(num_cells, np.inf)
        np.minimum.at(lowest, cells, latency)
        position = np.full(num_cells, -1)
        fastest = np.flatnonzero(latency == lowest[cells])[::-1]
        position[cells[fastest]] = fastest  # of equals the first
        self._count(labels, kept, position[cells])
        return np.asarray(kept[np.sort(position[position >= 0])])

    def _count(self, labels: Labels, kept: IntArray, stands_for: IntArray) -> None:
        """Add to the losses what ``kept`` labels lose when those at ``stands_for`` take their places."""
        lost = {}
        for name, row in labels.columns.items():
            if name == "latency":
                continue
            values = row[kept]
            differences = values[stands_for] - values
            if labels.across is not None and name == "quality":
                own = labels.groups[kept]
                transfers = labels.across.transfer[own, own[stands_for]]
                differences = differences + np.where(own == own[stands_for], 0.0, transfers)
            lost[name] = max(0.0, float(differences.max()))
        latencies = [name for name in lost if name.startswith(LATENCY_OF)]
        lost |= dict.fromkeys(latencies, max((lost[name] for name in latencies), default=0.0))
        for name, loss in lost.items():
            self.losses[name] = self.losses.get(name, 0.0) + loss


def _of_width(labels: Labels, kept: IntArray, widths: Mapping[str, float]) -> IntArray:
    """Return the cell of each label in grids of given widths; columns of width 0 keep all their values apart."""
    cells = labels.groups[kept]
    for name, width in widths.items():
        row = labels.columns[name][kept]
        if width > 0:
            own = np.floor((row - row.min()) / width).astype(np.int64)
        else:
            own = np.unique(row, return_inverse=True)[1]
        if name in labels.safe:
            own = np.where(labels.safe[name][kept], 0, own + 1)
        cells = np.unique(cells * (int(own.max()) + 1) + own, return_inverse=True)[1]
    return cells


def _numbered(labels: Labels, kept: IntArray, capacity: int) -> IntArray:
    """Return the cell of each label in grids of about ``capacity`` cells a group; quality gets most of them."""
    if not len(kept):
        return kept
    own_groups = labels.groups[kept]
    num_groups = int(own_groups.max()) + 1
    others = [name for name in labels.columns if name not in ("latency", "quality")]
    equal = max(1, round((capacity / 4) ** (1 / (1 + len(others)))))
    num_bins = {name: max(2, equal) if name in labels.safe else equal for name in others}
    num_bins["quality"] = max(1, capacity // int(np.prod([num_bins[name] for name in others])))
    cells = own_groups
    for name, bins in num_bins.items():
        row = labels.columns[name][kept]
        safe = labels.safe[name][kept] if name in labels.safe else None
        free = bins if safe is None else bins - 1
        low, high = np.full(num_groups, np.inf), np.full(num_groups, -np.inf)
        np.minimum.at(low, own_groups, row)
        np.maximum.at(high, own_groups, row)
        span = np.where(high > low, high - low, 1.0)
        own = np.minimum(((row - low[own_groups]) / span[own_groups] * free).astype(np.int64), free - 1)
        cells = cells * bins + (own if safe is None else np.where(safe, 0, own + 1))
    return cells
