"""A warm start for any engine: the first proposals are designs that foreknowledge holds to be good."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nas.core.evaluation import Proposal
from nas.search import acquisition

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nas.core.cost import Budget
    from nas.core.evaluation import Evaluation
    from nas.core.protocols import SearchEngine, SearchSpace
    from nas.search.exact import SearchCosts, SlotSum

    Row = tuple[int, ...]

_MOST_LABELS = 1000


class WarmStarted:
    """Proposes ``designs`` in order, then what another engine proposes; that one is told everything.

    Args:
        engine: What goes on.
        space: What it searches.
        designs: Option indices of the first proposals, all different.
    """

    def __init__(self, engine: SearchEngine, space: SearchSpace, designs: Sequence[Row]) -> None:
        self._engine = engine
        self._space = space
        self._left = dict.fromkeys(designs)

    def ask(self, count: int) -> list[Proposal]:
        """Propose up to ``count`` candidates."""
        first = list(self._left)[:count]
        for row in first:
            del self._left[row]
        proposals = [Proposal(architecture=self._space.from_options(row)) for row in first]
        return proposals if len(proposals) == count else [*proposals, *self._engine.ask(count - len(proposals))]

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Learn from evaluations; a design that was told is not proposed again."""
        for evaluation in evaluations:
            self._left.pop(tuple(self._space.to_options(evaluation.architecture)), None)
        self._engine.tell(evaluations)


def good_designs(costs: SearchCosts, budget: Budget, hints: Sequence[SlotSum], *, count: int) -> list[Row]:
    """Return up to ``count`` designs along the exact fronts of ``hints``, each adding most to those before."""
    designs: dict[Row, None] = {}
    share = -(-count // max(len(hints), 1))
    for hint in hints:
        front = costs.front(hint, budget, max_labels=_MOST_LABELS)
        points, options = front.points(), front.options.tolist()
        if not options:
            continue
        reference = acquisition.corner(points[:, :2], points[:, 2], budget)
        left = [index for index, row in enumerate(options) if tuple(row) not in designs]
        taken: list[int] = []
        for _ in range(min(share, len(left), count - len(designs))):
            gains = acquisition.gains(points[left], points[taken], reference)
            taken.append(left.pop(int(np.argmax(gains))))
            designs[tuple(options[taken[-1]])] = None
    return list(designs)
