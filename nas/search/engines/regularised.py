"""Regularised evolution: tournament, one mutation, and the oldest dies (Real et al. 2019, arXiv:1802.01548).

The published algorithm has one objective. Here every tournament draws weights for latency, memory and quality, scaled
over the population, and is won by the smallest weighted maximum (Chebyshev). Nothing over the budget is proposed.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nas.core.errors import ConfigError
from nas.core.evaluation import Proposal
from nas.core.pareto import objectives
from nas.search.neighbours import cheapest, new_neighbour

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nas.core.cost import Budget
    from nas.core.evaluation import Evaluation
    from nas.core.protocols import SearchSpace
    from nas.core.rng import RandomStreams
    from nas.search.exact import SearchCosts
    from nas.search.neighbours import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class RegularisedOptions:
    """``population`` candidates live, ``tournament`` of them compete to be the next parent."""

    population: int = 50
    tournament: int = 10

    def __post_init__(self) -> None:
        if not 1 <= self.tournament <= self.population:
            raise ConfigError(
                f"search.engine.tournament must lie in 1 to population ({self.population}), got {self.tournament}"
            )


class RegularisedEvolution:
    """Mutates the winner of a tournament among the latest candidates."""

    Options = RegularisedOptions
    needs_costs = True

    def __init__(
        self,
        space: SearchSpace,
        options: RegularisedOptions,
        streams: RandomStreams,
        *,
        costs: SearchCosts,
        budget: Budget,
    ) -> None:
        self._space = space
        self._options = options
        self._streams = streams
        self._costs = costs
        self._budget = budget
        self._population: deque[tuple[Row, tuple[float, ...]]] = deque(maxlen=options.population)
        self._seen: set[Row] = set()
        self._batch = 0
        self._generator: np.random.Generator | None = None

    def ask(self, count: int) -> list[Proposal]:
        """Propose up to ``count`` new candidates; at first random walks from the cheapest, which is the very first."""
        if self._generator is None:
            self._generator = self._streams.numpy("regularised", self._batch)
        proposals: list[Proposal] = []
        while len(proposals) < count:
            row = self._next(self._generator)
            if row is None:
                break
            self._seen.add(row)
            proposals.append(Proposal(architecture=self._space.from_options(row)))
        return proposals

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Let judged candidates live and the oldest die."""
        for evaluation in evaluations:
            row = tuple(self._space.to_options(evaluation.architecture))
            self._seen.add(row)
            if evaluation.quality is not None:
                self._population.append((row, objectives(evaluation)))
        self._batch += 1
        self._generator = None

    def _next(self, generator: np.random.Generator) -> Row | None:
        if not self._seen:
            return cheapest(self._costs)
        if len(self._population) < self._options.population:
            return self._mutated(sorted(self._seen), generator)
        parent = self._winner(generator)
        child = self._mutated([parent], generator, most_changes=1)
        return child or self._mutated([row for row, _ in self._population], generator)

    def _mutated(self, parents: list[Row], generator: np.random.Generator, most_changes: int = 3) -> Row | None:
        return new_neighbour(parents, self._seen, self._costs, self._budget, generator, most_changes=most_changes)

    def _winner(self, generator: np.random.Generator) -> Row:
        points = np.array([point for _, point in self._population])
        low, high = points.min(axis=0), points.max(axis=0)
        scaled = (points - low) / np.where(high > low, high - low, 1.0)
        chosen = generator.choice(len(points), size=self._options.tournament, replace=False)
        worst = (scaled[chosen] * generator.dirichlet(np.ones(3))).max(axis=1)
        return self._population[int(chosen[int(np.argmin(worst))])][0]
