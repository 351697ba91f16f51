"""Greedy evolving as published: change one slot at a time, by what a change gains over what it costs.

After EfficientFormerV2 (Li et al. 2022, arXiv:2212.08059) and SnapFusion (Li et al. 2023, arXiv:2306.00980): the value
of an action is the change of quality that judging it has shown; actions of most value per added latency are applied.
First a part of the one-slot changes of the cheapest architecture is judged. Then paths lead from the cheapest
architecture to the budget, each step applying the action of best ratio; every new architecture on a path is judged and
renews the value of its action. The published method walks one path to one target. So that there is a front, paths take
turns at the levels of peak memory, and all but the first at each level see values with a random factor.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np

from nas.core.errors import ConfigError
from nas.core.evaluation import Proposal
from nas.search.exact import JointCosts
from nas.search.exact.problem import stack
from nas.search.neighbours import cheapest, new_neighbour

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nas.core.cost import Budget
    from nas.core.evaluation import Evaluation
    from nas.core.protocols import SearchSpace
    from nas.core.rng import RandomStreams
    from nas.search.exact import AdditiveCosts, SearchCosts
    from nas.search.exact.problem import FloatArray
    from nas.search.neighbours import Row

_PATHS_WITHOUT_NEWS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class EvolvingOptions:
    """Settings of the engine.

    Attributes:
        probe_ratio: Part of the one-slot changes of the cheapest architecture that is judged first.
        spread: Standard deviation of the logarithm of the random factor on values, from a level's second path on.
    """

    probe_ratio: float = 0.5
    spread: float = 0.3

    def __post_init__(self) -> None:
        if not 0 < self.probe_ratio <= 1:
            raise ConfigError(f"search.engine.probe_ratio must lie above 0 and up to 1, got {self.probe_ratio}")
        if not self.spread >= 0:
            raise ConfigError(f"search.engine.spread must be at least 0, got {self.spread}")


class GreedyEvolving:
    """Walks paths of one-slot changes, best ratio of quality to latency first."""

    Options = EvolvingOptions
    needs_costs = True

    def __init__(
        self,
        space: SearchSpace,
        options: EvolvingOptions,
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
        self._origin = cheapest(costs)
        self._probes = self._choose_probes()
        self._levels = _memory_levels(costs, budget)
        self._values = [np.full(size, np.nan) for size in costs.sizes]  # against the cheapest option of the slot
        for row, option in zip(self._values, self._origin, strict=True):
            row[option] = 0.0
        self._scores: dict[Row, float] = {}
        self._seen: set[Row] = set()
        self._position, self._path = self._origin, 0
        self._batch = 0
        self._generator: np.random.Generator | None = None

    def ask(self, count: int) -> list[Proposal]:
        """Propose up to ``count`` new candidates inside the budget; the first is the cheapest, whatever it costs."""
        if self._generator is None:
            self._generator = self._streams.numpy("evolving", self._batch)
        proposals: list[Proposal] = []
        while len(proposals) < count:
            found = self._next(self._generator)
            if found is None:
                break
            row, before = found
            self._seen.add(row)
            note = {"path": self._path, "before": list(before)}
            proposals.append(Proposal(architecture=self._space.from_options(row), note=note))
        return proposals

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Renew the values of the judged actions, and go on behind the last."""
        for evaluation in evaluations:
            row = tuple(self._space.to_options(evaluation.architecture))
            before = tuple(evaluation.proposal.note["before"])
            self._seen.add(row)
            self._position, self._path = row, evaluation.proposal.note["path"]
            if evaluation.quality is not None:
                self._scores[row] = evaluation.quality.score
                self._renew(row, before)
        self._batch += 1
        self._generator = None

    def _renew(self, row: Row, before: Row) -> None:
        changed = [slot for slot, (one, other) in enumerate(zip(row, before, strict=True)) if one != other]
        if len(changed) != 1 or before not in self._scores:
            return
        slot = changed[0]
        start = self._values[slot][before[slot]]
        if np.isfinite(start):
            self._values[slot][row[slot]] = start + self._scores[row] - self._scores[before]

    def _next(self, generator: np.random.Generator) -> tuple[Row, Row] | None:
        """Return the next architecture and the one it was changed from."""
        if self._origin not in self._seen:
            return self._origin, self._origin
        for probe in self._probes:
            if probe not in self._seen:
                return probe, self._origin
        last = self._path + _PATHS_WITHOUT_NEWS
        while self._path < last:
            if self._path == 0:  # the probes end here
                self._path, self._position = 1, self._origin
            before = self._position
            row = self._step()
            if row is None:
                self._path, self._position = self._path + 1, self._origin
                continue
            self._position = row
            if row not in self._seen:
                return row, before
        row = new_neighbour(sorted(self._seen), self._seen, self._costs, self._budget, generator, most_changes=1)
        return None if row is None else (row, row)

    def _step(self) -> Row | None:
        """Return the position after the action of best ratio; ``None`` at the end of the path."""
        values = self._path_values()
        actions = [
            (slot, option)
            for slot, own in enumerate(self._position)
            for option in np.flatnonzero(values[slot] > values[slot][own]).tolist()
        ]
        if not actions:
            return None
        present = stack([self._position], len(self._position))
        rows = np.repeat(present, len(actions), axis=0)
        for index, (slot, option) in enumerate(actions):
            rows[index, slot] = option
        gain = np.array([values[slot][option] - values[slot][self._position[slot]] for slot, option in actions])
        added = self._costs.score(rows).latency_ms - self._costs.score(present).latency_ms
        level = self._levels[self._path % len(self._levels)]
        inside = self._costs.feasible(rows, replace(self._budget, peak_memory_mb=level))
        ratio = np.where(inside, gain / np.maximum(added, 1e-9), -np.inf)
        best = int(np.argmax(ratio))
        return tuple(rows[best].tolist()) if np.isfinite(ratio[best]) else None

    def _path_values(self) -> list[FloatArray]:
        """Return the values that this path goes by; NaN where nothing was judged."""
        if self._path <= len(self._levels):
            return self._values
        generator = self._streams.numpy("evolving_path", self._path)
        return [row * np.exp(self._options.spread * generator.normal(size=len(row))) for row in self._values]

    def _choose_probes(self) -> list[Row]:
        changes = [
            (*self._origin[:slot], option, *self._origin[slot + 1 :])
            for slot, size in enumerate(self._costs.sizes)
            for option in range(size)
            if option != self._origin[slot]
        ]
        if not changes:
            return []
        order = self._streams.numpy("evolving_probes").permutation(len(changes))
        inside = self._costs.feasible(stack(changes, len(self._origin)), self._budget)
        count = max(1, round(self._options.probe_ratio * len(changes)))
        return [changes[index] for index in order.tolist() if inside[index]][:count]


def _memory_levels(costs: SearchCosts, budget: Budget) -> list[float | None]:
    """Return the upper ends of peak memory that paths keep to in turn, the budget's limit first."""
    parts = costs.parts if isinstance(costs, JointCosts) else (cast("AdditiveCosts", costs),)
    ends = np.unique(np.concatenate([_memory_ends(part) for part in parts]))
    if budget.peak_memory_mb is not None:
        ends = ends[ends < budget.peak_memory_mb]
    return [budget.peak_memory_mb, *ends[::-1].tolist()]


def _memory_ends(costs: AdditiveCosts) -> FloatArray:
    weights = 0.0 if costs.weights_mb is None else costs.weights_mb.base
    activations = np.unique(np.concatenate([*costs.activation_mb, [costs.base_activation_mb]]))
    highest = costs.highest_mb(activations[activations >= costs.base_activation_mb])
    return np.maximum(weights + highest, costs.floor_high_mb)
