"""What a relaxed or tightened limit would buy, by fronts of the quality model solved at the upper ends.

Labels are thinned out, so that a gain may be off by what the fronts lose; the losses are not in the intervals.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from nas.core.cost import Budget
from nas.core.explanation import BudgetStep, OptionChange
from nas.search.explain import estimate

if TYPE_CHECKING:
    from nas.search.exact.front import ExactFront
    from nas.search.exact.problem import PessimisticCosts
    from nas.search.explain import Subject
    from nas.search.neighbours import Row

CHANGES = (-0.2, -0.1, -0.05, 0.05, 0.1, 0.2)
_LIMITS: tuple[Literal["latency_ms", "peak_memory_mb"], ...] = ("latency_ms", "peak_memory_mb")
_MOST_LABELS = 500
_MOST_LABELS_OF_MEAN = 4000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Moved:
    """A budget with one limit moved by a part of it."""

    limit: Literal["latency_ms", "peak_memory_mb"]
    change_ratio: float
    budget: Budget

    @property
    def allowed(self) -> float:
        return float(getattr(self.budget, self.limit))


def budget_steps(subject: Subject, costs: PessimisticCosts) -> tuple[BudgetStep, ...]:
    """Return what moving each limit by each of ``CHANGES`` buys; nothing for limits that are not set.

    The front whose objectives are the upper ends, under the loosest limits, holds the best network under every tighter
    pair of limits: one front for each draw serves all steps.
    """
    budget = subject.budget
    moved = [
        _Moved(
            limit=limit, change_ratio=change, budget=replace(budget, **{limit: (1 + change) * getattr(budget, limit)})
        )
        for limit in _LIMITS
        if getattr(budget, limit) is not None
        for change in CHANGES
    ]
    if not moved:
        return ()
    loosest = budget
    for step in moved:
        loosest = replace(loosest, **{step.limit: max(getattr(loosest, step.limit), step.allowed)})
    ends = costs.at_upper_ends()
    fronts = [ends.front(draw, loosest, max_labels=_MOST_LABELS) for draw in subject.posterior.draws]
    mean = ends.front(subject.posterior.mean, loosest, max_labels=_MOST_LABELS_OF_MEAN)
    return tuple(_step(subject, step, mean, fronts) for step in moved)


def _step(subject: Subject, step: _Moved, mean: ExactFront, fronts: list[ExactFront]) -> BudgetStep:
    before, after = _best(mean, subject.budget), _best(mean, step.budget)
    difference = step.allowed - float(getattr(subject.budget, step.limit))
    gains = [_gain(front, subject.budget, step.budget) for front in fronts]
    known = np.array([gain for gain in gains if gain is not None])
    if before is None or after is None or not len(known):
        return BudgetStep(
            limit=step.limit,
            change_ratio=step.change_ratio,
            allowed=step.allowed,
            difference=difference,
            quality=None,
            changes=(),
            possible=after is not None,
        )
    return BudgetStep(
        limit=step.limit,
        change_ratio=step.change_ratio,
        allowed=step.allowed,
        difference=difference,
        quality=estimate(known),
        changes=_changes(subject, tuple(mean.options[before].tolist()), tuple(mean.options[after].tolist())),
    )


def _gain(front: ExactFront, budget: Budget, moved: Budget) -> float | None:
    before, after = _best(front, budget), _best(front, moved)
    return None if before is None or after is None else float(front.quality[after] - front.quality[before])


def _best(front: ExactFront, budget: Budget) -> int | None:
    """Return the position of the best member inside the limits; ``None`` where there is none."""
    inside = np.ones(len(front), dtype=bool)
    for values, limit in (
        (front.costs.latency_ms, budget.latency_ms),
        (front.costs.peak_memory_mb, budget.peak_memory_mb),
    ):
        if limit is not None:
            inside &= values <= limit
    if not inside.any():
        return None
    return int(np.argmax(np.where(inside, front.quality, -np.inf)))


def _changes(subject: Subject, before: Row, after: Row) -> tuple[OptionChange, ...]:
    return tuple(
        OptionChange(slot=name, before=subject.label(slot, before[slot]), after=subject.label(slot, after[slot]))
        for slot, name in enumerate(subject.space.slots())
        if before[slot] != after[slot]
    )
