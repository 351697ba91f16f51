"""Candidates in the order of the hypervolume that each is expected to add, given those taken before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nas.search import acquisition
from nas.search.exact.tables import stack, within
from nas.search.quality_model import Posterior

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nas.core.cost import Budget
    from nas.search.exact import SearchCosts
    from nas.search.exact.tables import FloatArray, IntArray
    from nas.search.neighbours import Row
    from nas.search.quality_model import QualityModel

_MOST_KEPT = 300
_BLOCK = 4096


class Candidates:
    """Architectures to choose from, one after another.

    A choice, and whatever else is pending, is taken to turn out as expected: a batch then looks for different things.
    Of many architectures only the most promising ones are kept at hand.
    """

    def __init__(
        self,
        options: IntArray,
        *,
        model: QualityModel,
        costs: SearchCosts,
        budget: Budget,
        pending: Sequence[Row],
    ) -> None:
        """Rank architectures.

        Args:
            options: Feasible architectures (N, L), none judged or pending.
            model: What is known of quality.
            costs: What is known of costs.
            budget: Limits, from which volumes are measured.
            pending: Proposed and not judged yet.
        """
        judged = model.observations.options
        self._known = known_points(judged, -model.smoothed(), costs, budget)
        scored = costs.score(options)
        figures = np.stack([scored.latency_ms, scored.peak_memory_mb], axis=1)
        every = np.concatenate([figures, self._known[:, :2]])
        self._reference = acquisition.corner(every, self._known[:, 2], budget)
        if len(options) > _MOST_KEPT:
            kept = self._most_promising(options, figures, model)
            options, figures = options[kept], figures[kept]
        self.options, self._figures = options, figures
        waiting = stack(pending, options.shape[1])
        self._num_waiting = len(waiting)
        self._posterior = Posterior(model, np.concatenate([waiting, options]))
        for index in range(len(waiting)):
            self._posterior.believe(index)
        expected = -self._posterior.mean[: len(waiting)]
        self._known = np.concatenate([self._known, known_points(waiting, expected, costs, budget)])
        self._left = np.ones(len(options), dtype=bool)

    def take(self) -> Row | None:
        """Return the best of what is left, if any is expected to add something, and take it to be judged."""
        left = np.flatnonzero(self._left)
        if not len(left):
            return None
        rows = self._num_waiting + left
        mean, deviation = -self._posterior.mean[rows], self._posterior.deviation[rows]
        gains = acquisition.expected_gains(self._figures[left], mean, deviation, self._known, self._reference)
        best = int(np.argmax(gains))
        if not gains[best] > 0:
            return None
        index = int(left[best])
        self._believe(index)
        return tuple(self.options[index].tolist())

    def leave_out(self, row: Row) -> None:
        """Take ``row``, which was proposed for another reason, to be judged; nothing where it is none of these."""
        for index in np.flatnonzero(self._left & (self.options == np.array(row)).all(axis=1)).tolist():
            self._believe(index)

    def _believe(self, index: int) -> None:
        """Take an architecture to turn out as expected."""
        position = self._num_waiting + index
        self._left[index] = False
        point = np.array([[*self._figures[index], -self._posterior.mean[position]]])
        self._posterior.believe(position)
        self._known = np.concatenate([self._known, point])

    def _most_promising(self, options: IntArray, figures: FloatArray, model: QualityModel) -> IntArray:
        gains = []
        for first in range(0, len(options), _BLOCK):
            part = slice(first, first + _BLOCK)
            mean, deviation = model.predict(options[part])
            gains.append(acquisition.expected_gains(figures[part], -mean, deviation, self._known, self._reference))
        return np.argsort(-np.concatenate(gains), kind="stable")[:_MOST_KEPT]


def known_points(options: IntArray, quality: FloatArray, costs: SearchCosts, budget: Budget) -> FloatArray:
    """Return latency, memory and negated quality of architectures, those inside the budget."""
    scored = costs.score(options)
    points = np.stack([scored.latency_ms, scored.peak_memory_mb, quality], axis=1)
    return np.asarray(points[within(scored, budget)])
