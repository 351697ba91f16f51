"""Successive halving around any engine: candidates are judged cheaply, the best of them at the next level, and so on.

After Jamieson & Talwalkar 2016 (arXiv:1502.07943) in its asynchronous form (ASHA, Li et al. 2020, arXiv:1810.05934): a
level takes a candidate whenever the level below has judged enough for it, so no worker waits for the end of a round.
Two things differ. What is promoted is not the best raw score but what adds most hypervolume of latency, memory and
quality as the models of all levels see it, observation included (``nas.search.levels``). And how many are judged below
for one above is learned from how well the two agree, unless ``ratio`` fixes it: a source that tells nothing is left.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from math import sqrt
from typing import TYPE_CHECKING

import numpy as np

from nas.core.evaluation import Proposal
from nas.search import acquisition
from nas.search.exact.tables import stack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nas.core.cost import Budget
    from nas.core.evaluation import Evaluation
    from nas.core.protocols import SearchEngine, SearchSpace
    from nas.core.rng import RandomStreams
    from nas.search.exact import SearchCosts, SlotSum
    from nas.search.exact.tables import FloatArray
    from nas.search.levels import LevelModels

    Row = tuple[int, ...]

# A useless source is still asked for this share of the price, to see whether it remains so.
_SHARE_FOR_CHECKS = 0.02
_MOST_BELOW = 30.0
_MOST_AGREEMENT = 0.99
_TRIES = 1000
_DRAWS = 8
_MOST_LABELS = 1000

logger = logging.getLogger(__name__)


class SuccessiveHalving:
    """Gives every proposal of another engine a level, and promotes.

    Args:
        engine: Where new candidates come from. It is told what was judged at the highest level, and of the rest that
            it exists, as candidates that failed.
        space: What it searches.
        models: What is learned from the levels; the engine may take hints from it.
        streams: The run's random streams.
        prices: Of the levels, in evaluations of the highest, rising to 1.
        costs: Known costs by slot and option.
        budget: Limits, where gains are measured from.
        ratio: Candidates judged at a level for one at the next; learned when left out.
    """

    def __init__(
        self,
        engine: SearchEngine,
        space: SearchSpace,
        models: LevelModels,
        streams: RandomStreams,
        *,
        prices: Sequence[float],
        costs: SearchCosts,
        budget: Budget,
        ratio: float | None = None,
    ) -> None:
        self._engine = engine
        self._space = space
        self._models = models
        self._streams = streams
        self._prices = tuple(prices)
        self._costs = costs
        self._budget = budget
        self._ratio = ratio
        self._highest = len(self._prices) - 1
        self._known: dict[Row, _Known] = {}
        self._counts = [0] * len(self._prices)  # asked or told, screened ones left out
        self._batch = 0
        self._draws: dict[int, list[SlotSum]] = {}  # of this batch, by level
        self._best_new: float | None = None  # gain of this batch's best unknown candidate at the highest level

    def ask(self, count: int) -> list[Proposal]:
        """Propose up to ``count`` candidates, each with its level."""
        proposals: list[Proposal] = []
        while len(proposals) < count:
            proposal = self._next()
            if proposal is None:
                break
            proposals.append(proposal)
        return proposals

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Learn from evaluations of any level."""
        told = []
        for evaluation in evaluations:
            row = self._row(evaluation.proposal)
            level = self._highest if evaluation.at_highest_level else int(evaluation.proposal.level or 0)
            known = self._known.setdefault(row, _Known(proposal=evaluation.proposal))
            self._enter(known, level)
            if evaluation.state == "screened":
                self._counts[level] -= 1
            elif evaluation.quality is not None:
                quality = evaluation.quality
                known.judged.add(level)
                self._models.add(level, row, quality.score, quality.standard_error or 0.0)
            told.append(evaluation if level == self._highest else _only_known(evaluation))
        self._engine.tell(told)
        self._batch += 1
        self._draws, self._best_new = {}, None

    def _next(self) -> Proposal | None:
        level = self._highest
        while level > 0 and self._counts[level - 1] < self._wanted_below(level) * (self._counts[level] + 1):
            level -= 1
        if level > 0 and self._useful(level):
            return self._promoted(level) or self._new(0) or self._promoted(self._highest)
        if level < self._highest and not self._useful(level + 1):
            checked = self._checked(level)
            if checked is not None:
                return checked
        left = self._left_behind() if level == self._highest else None
        return left or self._new(level) or self._promoted(self._highest)

    def _new(self, level: int) -> Proposal | None:
        """Return the inner engine's next candidate that is not known yet."""
        for _ in range(_TRIES):
            proposals = self._engine.ask(1)
            if not proposals:
                return None
            row = self._row(proposals[0])
            if row not in self._known:
                self._known[row] = _Known(proposal=proposals[0])
                return self._proposed(row, level)
        logger.info("the engine proposed nothing new in %d tries", _TRIES)
        return None

    def _promoted(self, level: int) -> Proposal | None:
        """Return the candidate of lower levels that is expected to add most hypervolume at ``level``."""
        waiting = self._waiting(level)
        below = [row for row in waiting if level - 1 in self._known[row].judged] or waiting
        if not below:
            return None
        gains = self._gains(below, level)
        return self._proposed(below[int(np.argmax(gains))], level)

    def _left_behind(self) -> Proposal | None:
        """Return what waits below a useless level and is as good as what a new candidate can be expected to be."""
        waiting, model = self._waiting(self._highest), self._models.model(self._highest)
        if not waiting or model is None:
            return None
        if self._best_new is None:
            front = self._costs.front(model.mean(), self._budget, max_labels=_MOST_LABELS)
            rows = [tuple(row) for row in front.options.tolist() if tuple(row) not in self._known]
            self._best_new = float(self._gains(rows, self._highest).max()) if rows else 0.0
        gains = self._gains(waiting, self._highest)
        best = int(np.argmax(gains))
        return self._proposed(waiting[best], self._highest) if gains[best] > self._best_new else None

    def _waiting(self, level: int) -> list[Row]:
        """Return what was judged below ``level`` and was not proposed at it or above."""
        return [row for row, known in self._known.items() if known.judged and max(known.levels) < level]

    def _gains(self, rows: list[Row], level: int) -> FloatArray:
        """Return the hypervolume that ``rows`` are expected to add to what was asked or told at ``level``."""
        if level not in self._draws:
            model = self._models.model(level)
            generator = self._streams.numpy(f"halving/{level}", self._batch)
            self._draws[level] = [] if model is None else [model.draw(generator) for _ in range(_DRAWS)]
        others = [row for row, known in self._known.items() if level in known.levels]
        every = stack([*rows, *others], len(rows[0]))
        scored = self._costs.score(every)
        costs = np.column_stack([scored.latency_ms, scored.peak_memory_mb])
        total = np.zeros(len(rows))
        for quality in self._draws[level]:
            points = np.column_stack([costs, -quality.total(every)])
            reference = acquisition.corner(points[:, :2], points[:, 2], self._budget)
            total += acquisition.gains(points[: len(rows)], points[len(rows) :], reference)
        return total

    def _checked(self, level: int) -> Proposal | None:
        """Return the latest candidate judged above ``level`` and not at it: does it agree by now?"""
        for row, known in reversed(self._known.items()):
            if level + 1 in known.judged and level not in known.levels:
                return self._proposed(row, level)
        return None

    def _proposed(self, row: Row, level: int) -> Proposal:
        known = self._known[row]
        self._enter(known, level)
        return replace(known.proposal, level=level)

    def _enter(self, known: _Known, level: int) -> None:
        if level not in known.levels:
            known.levels.add(level)
            self._counts[level] += 1

    def _wanted_below(self, level: int) -> float:
        """Return how many candidates are to be judged below ``level`` for one at it."""
        if self._ratio is not None:
            return self._ratio
        dearer = self._prices[level] / self._prices[level - 1]
        agreement = min(self._models.agreement(level), _MOST_AGREEMENT)
        wanted = sqrt(dearer * agreement / (1.0 - agreement))
        return min(max(wanted, _SHARE_FOR_CHECKS * dearer), _MOST_BELOW)

    def _useful(self, level: int) -> bool:
        return self._wanted_below(level) >= 1.0

    def _row(self, proposal: Proposal) -> Row:
        return tuple(self._space.to_options(proposal.architecture))


@dataclass(slots=True, kw_only=True)
class _Known:
    """A candidate: the levels it was proposed at, and those that gave a quality."""

    proposal: Proposal
    levels: set[int] = field(default_factory=set)
    judged: set[int] = field(default_factory=set)


def _only_known(evaluation: Evaluation) -> Evaluation:
    """Return an evaluation of a lower level as engines are told it: its score is not of their kind."""
    if evaluation.quality is None:
        return evaluation
    return replace(evaluation, quality=None, state="failed", error="judged at a lower level only")
