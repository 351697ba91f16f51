"""One sweep over the slots, extending partial architectures (labels) by all options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nas.search.exact import dominance
from nas.search.exact.coarsening import Across, Labels
from nas.search.exact.columns import Case, Rest, slack
from nas.search.exact.tables import BoolArray, FloatArray, IntArray

if TYPE_CHECKING:
    from nas.search.exact.coarsening import Coarsening


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Labels:
    """Partial architectures: figures (columns, N), the option taken last, and the label each was extended from."""

    values: FloatArray
    last: IntArray
    parent: IntArray

    def take(self, kept: IntArray) -> _Labels:
        return _Labels(values=self.values[:, kept], last=self.last[kept], parent=self.parent[kept])


class Sweep:
    """The sweep of one case."""

    def __init__(self, case: Case, coarsening: Coarsening) -> None:
        self._allowed = case.allowed
        self._columns = case.columns
        self._rests = [Rest.of(column.table, case.allowed) for column in case.columns]
        latencies = [index for index, column in enumerate(case.columns) if column.is_latency]
        self._beyond = {
            (one, other): self._rests[one].least_beyond(self._rests[other])
            for one in latencies
            for other in latencies
            if one != other
        }
        self._grouped = any(column.table.has_pairs for column in case.columns)
        self._coarsening = coarsening
        self.most_labels = 0

    def run(self) -> IntArray:
        """Return the options (N, L) of the case's front; parts of it may be dominated in other cases."""
        labels = _Labels(
            values=np.array([[column.table.base] for column in self._columns]),
            last=np.zeros(1, dtype=np.int64),
            parent=np.zeros(1, dtype=np.int64),
        )
        num_slots = len(self._allowed)
        history = []
        for slot in range(num_slots):
            self._coarsening.slots_left = num_slots - slot
            labels = self._extend(labels, slot)
            self.most_labels = max(self.most_labels, len(labels.last))
            history.append((labels.last, labels.parent))
        options = np.zeros((len(labels.last), num_slots), dtype=np.int64)
        index = np.arange(len(labels.last))
        for slot in reversed(range(num_slots)):
            last, parent = history[slot]
            options[:, slot] = self._allowed[slot][last[index]]
            index = parent[index]
        return options

    def _extend(self, labels: _Labels, slot: int) -> _Labels:
        """Return the labels after ``slot``: every label with every option, but for what cannot reach the front."""
        extended = self._with_every_option(labels, slot)
        columns, safe = self._compared(extended, slot)
        apart = self._grouped and slot < len(self._allowed) - 1
        groups = extended.last if apart else np.zeros(len(extended.last), dtype=np.int64)
        num_groups = len(self._allowed[slot]) if apart else 1
        across = self._across(slot) if apart else None
        known = Labels(columns=columns, safe=safe, groups=groups, num_groups=num_groups, across=across)
        kept = self._coarsening.thinned_early(known)
        fewer = _without_repeats([row[kept] for row in columns.values()])
        kept = kept[dominance.keep(fewer, groups[kept] if apart else None)]
        return extended.take(self._coarsening.thinned(known, kept))

    def _across(self, slot: int) -> Across | None:
        """Return what the options of ``slot`` differ in by what follows, if that is quality alone."""
        names = [column.name for column in self._columns if column.table.has_pairs]
        if self._coarsening.max_labels is None or names != ["quality"]:
            return None
        rest = self._rests[[column.name for column in self._columns].index("quality")]
        following = rest.steps[slot + 1]
        transfer = np.stack([(following - own).max(axis=1) for own in following])
        return Across(potential=rest.low[slot], transfer=transfer)

    def _with_every_option(self, labels: _Labels, slot: int) -> _Labels:
        """Return ``labels`` extended, option by option, without those that break a limit whatever follows."""
        added = np.stack([rest.steps[slot].T[:, labels.last] for rest in self._rests])
        values = labels.values[:, None, :] + added  # (columns, options, labels)
        inside = np.ones(values.shape[1:], dtype=bool)
        for column, rest, rows in zip(self._columns, self._rests, values, strict=True):
            if column.limit is not None:
                inside &= rows + rest.low[slot][:, None] <= column.limit + slack(column.limit)
        option, parent = np.nonzero(inside)
        return _Labels(values=values[:, option, parent], last=option, parent=parent)

    def _compared(self, labels: _Labels, slot: int) -> tuple[dict[str, FloatArray], dict[str, BoolArray]]:
        """Return the columns that dominance looks at; latency and quality first. Then who cannot break which limit.

        A figure that only has a limit counts from where it can still break it, and one of several latencies from where
        it can still be the largest: below that, labels are equal in it.
        """
        result: dict[str, FloatArray] = {}
        safe: dict[str, BoolArray] = {}
        for index, (column, rest) in enumerate(zip(self._columns, self._rests, strict=True)):
            if not column.compared:
                continue
            row = labels.values[index]
            if column.is_latency:
                for (one, other), least in self._beyond.items():
                    if other == index:
                        row = np.maximum(row, labels.values[one] + least[slot][labels.last])
            elif not column.objective and column.limit is not None:
                highest = column.limit - rest.high[slot][labels.last]
                row = np.maximum(row, highest)
                safe[column.name] = row <= highest + slack(column.limit)
            if column.name in ("latency", "quality") or bool((row != row[:1]).any()):
                result[column.name] = row
        return result, safe


def _without_repeats(rows: list[FloatArray]) -> list[FloatArray]:
    """Return each of ``rows`` once, latency and quality in any case."""
    kept = rows[:2]
    for row in rows[2:]:
        if not any(np.array_equal(row, other) for other in kept):
            kept.append(row)
    return kept
