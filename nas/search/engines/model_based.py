"""Model-based search: learn quality, solve the model and draws of it exactly, judge what is expected to gain most.

Costs are known, so only quality is learned (``nas.search.quality_model``). The exact fronts, under the budget, of the
posterior mean and of several posterior draws are where the best architectures can be; in a small or listed space they
can be anywhere. Of these candidates those of highest expected hypervolume improvement are proposed, one after another
(``nas.search.candidates``). Nothing over the budget and nothing known is proposed.

The first proposals are the cheapest architecture, then feasible ones that between them hold every option that fits.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nas.core.errors import ConfigError
from nas.core.evaluation import Proposal
from nas.search.candidates import Candidates
from nas.search.exact import SlotSum, TabulatedCosts
from nas.search.exact.tables import stack, within
from nas.search.neighbours import TRIES, cheapest, new_neighbour
from nas.search.posterior import option_traits, worth_keeping
from nas.search.quality_model import Observations, QualityModel, Scales, learn_scales

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nas.core.cost import Budget
    from nas.core.evaluation import Evaluation
    from nas.core.protocols import SearchSpace
    from nas.core.rng import RandomStreams
    from nas.search.exact import SearchCosts
    from nas.search.exact.tables import FloatArray, IntArray

# A new fit of the scales at most every time the observations have grown by this factor.
_GROWTH_BEFORE_NEW_SCALES = 1.15
_REFILLS_BEFORE_CHANCE = 4
_START_LABELS = 200
_UNTRIED_FACTOR = 4.0
# Spaces up to this size are tabulated: every architecture is then a candidate.
_MOST_ENUMERATED = 20_000

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelBasedOptions:
    """Settings of the engine.

    Attributes:
        start: Proposals made before the model is used.
        pairs: Whether neighbouring slots may interact.
        residual: Whether quality may have more than slots and neighbours; what can be learned of it is.
        draws: Posterior draws whose fronts, with the mean's, hold the candidates.
        picks: Proposals before new draws are taken.
        temperature: Distance of the draws from the posterior mean; 1 is the posterior, 0 its mean.
        max_labels: Labels of the exact solver at one memory level; more are coarsened.
    """

    start: int = 24
    pairs: bool = True
    residual: bool = True
    draws: int = 3
    picks: int = 64
    temperature: float = 0.5
    max_labels: int = 2000

    def __post_init__(self) -> None:
        for name in ("start", "draws", "picks", "max_labels"):
            if getattr(self, name) < 1:
                raise ConfigError(f"search.engine.{name} must be at least 1, got {getattr(self, name)}")
        if not self.temperature >= 0:
            raise ConfigError(f"search.engine.temperature must be at least 0, got {self.temperature}")


class ModelBasedSearch:
    """Proposes what is expected to add most hypervolume of the fronts of a learned quality."""

    Options = ModelBasedOptions
    needs_costs = True
    takes_hints = True

    def __init__(
        self,
        space: SearchSpace,
        options: ModelBasedOptions,
        streams: RandomStreams,
        *,
        costs: SearchCosts,
        budget: Budget,
        hints: Callable[[], tuple[SlotSum, ...]] = tuple,
    ) -> None:
        """Start with nothing judged.

        Args:
            space: Where it searches.
            options: Settings.
            streams: The run's random streams.
            costs: Known costs.
            budget: Limits that every proposal keeps.
            hints: Asked for every new model: figures besides latency that quality may be a multiple of.
        """
        self._space = space
        self._options = options
        self._streams = streams
        small = math.prod(costs.sizes) <= _MOST_ENUMERATED and not isinstance(costs, TabulatedCosts)
        self._costs = TabulatedCosts.of(costs) if small else costs
        self._budget = budget
        self._hints = hints
        self._hint_ms = costs.hint_ms
        self._traits = option_traits(space)
        self._rows: list[tuple[int, ...]] = []
        self._scores: list[float] = []
        self._errors: list[float] = []
        self._told = 0
        self._known: set[tuple[int, ...]] = set()
        self._pending: dict[tuple[int, ...], None] = {}  # proposed and not told yet, in this order
        self._batch = 0
        self._num_scaled = 0  # observations that the scales are learned from
        # The scales learned, with the number and the hints that they are learned from: a cache.
        self._scales: tuple[tuple[int, tuple[SlotSum, ...]], Scales] | None = None
        self._current: _Batch | None = None
        self._start: list[tuple[int, ...]] | None = None

    def ask(self, count: int) -> list[Proposal]:
        """Propose up to ``count`` feasible candidates, never one that was told or proposed before."""
        if self._current is None:
            self._current = _Batch(generator=self._streams.numpy("model_based", self._batch))
        proposals: list[Proposal] = []
        while len(proposals) < count:
            options = self._next(self._current)
            if options is None:
                break
            self._pending[options] = None
            self._known.add(options)
            proposals.append(Proposal(architecture=self._space.from_options(options)))
        return proposals

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Learn the qualities; screened and failed candidates are only remembered."""
        for evaluation in evaluations:
            options = tuple(self._space.to_options(evaluation.architecture))
            self._known.add(options)
            self._pending.pop(options, None)
            if evaluation.quality is not None:
                self._rows.append(options)
                self._scores.append(evaluation.quality.score)
                self._errors.append(evaluation.quality.standard_error or 0.0)
        self._told += len(evaluations)
        self._batch += 1
        self._current = None
        if len(self._rows) >= _GROWTH_BEFORE_NEW_SCALES * self._num_scaled:
            self._num_scaled = len(self._rows)

    def predict(self, options: IntArray) -> tuple[FloatArray, FloatArray]:
        """Return mean and standard deviation (N,) of the qualities of architectures (N, L), as far as known.

        Raises:
            ValueError: Fewer than two qualities have been told.
        """
        if len(self._rows) < 2:
            raise ValueError(f"a prediction needs at least 2 judged architectures, got {len(self._rows)}")
        return QualityModel(self._observations(), self._learned_scales()).predict(options)

    def _next(self, batch: _Batch) -> tuple[int, ...] | None:
        """Return the options of the next proposal; ``None`` at the end."""
        if self._start is None:
            self._start = _start_designs(self._costs, self._budget, self._streams, self._options.start)
        position = self._told + len(self._pending)
        if position < len(self._start):
            return self._start[position]
        if len(self._rows) >= 2:
            for _ in range(_REFILLS_BEFORE_CHANCE):
                if batch.candidates is None or batch.left == 0:
                    batch.candidates, batch.left = self._candidates(batch), self._options.picks
                options = None if batch.candidates is None else batch.candidates.take()
                if options is not None:
                    batch.left -= 1
                    return options
                batch.candidates = None
        return self._by_chance(batch)

    def _candidates(self, batch: _Batch) -> Candidates | None:
        """Return what may be worth judging: all of a small space, else the fronts of the mean and of draws."""
        if batch.model is None:
            batch.model = QualityModel(self._observations(), self._learned_scales())
        model = batch.model
        if isinstance(self._costs, TabulatedCosts):
            options = self._costs.options[within(self._costs.costs, self._budget)]
        else:
            temperature = self._options.temperature
            draws = [model.draw(batch.generator, temperature=temperature) for _ in range(self._options.draws)]
            options = self._members((model.mean(), *draws))
        new = [index for index, row in enumerate(options.tolist()) if tuple(row) not in self._known]
        if not new:
            return None
        pending = tuple(self._pending)
        return Candidates(options[new], model=model, costs=self._costs, budget=self._budget, pending=pending)

    def _members(self, qualities: Sequence[SlotSum]) -> IntArray:
        """Return the members of the fronts of several qualities, each once."""
        fronts = [
            self._costs.front(quality, self._budget, max_labels=self._options.max_labels) for quality in qualities
        ]
        return np.unique(np.concatenate([front.options for front in fronts]), axis=0)

    def _by_chance(self, batch: _Batch) -> tuple[int, ...] | None:
        """Return a feasible new neighbour of something known; ``None`` after many failures."""
        parents = [*self._rows, *self._pending] or [cheapest(self._costs)]
        row = new_neighbour(parents, self._known, self._costs, self._budget, batch.generator)
        if row is None:
            logger.info("nothing new inside the budget in %d tries", TRIES)
        return row

    def _observations(self, count: int | None = None) -> Observations:
        """Return the first ``count`` observations, those that the model keeps."""
        options, scores = stack(self._rows[:count], len(self._costs.sizes)), np.array(self._scores[:count])
        kept = worth_keeping(options, scores, self._costs)
        return Observations(
            options=options[kept],
            scores=scores[kept],
            errors=np.array(self._errors)[kept],
            sizes=self._costs.sizes,
            hints=(self._hint_ms, *self._hints()),
            traits=self._traits,
        )

    def _learned_scales(self) -> Scales:
        """Return scales learned from the first part of the observations, which grows in steps."""
        of = (self._num_scaled, self._hints())  # a resumed search must come to the same scales
        if self._scales is None or self._scales[0] != of:
            known = self._observations(self._num_scaled)
            scales = learn_scales(known, pairs=self._options.pairs, residual=self._options.residual)
            self._scales = (of, scales)
            logger.debug("scales from %d observations: %s", self._num_scaled, scales)
        return self._scales[1]


@dataclass(slots=True, kw_only=True)
class _Batch:
    """What one batch has come to so far."""

    generator: np.random.Generator
    model: QualityModel | None = None
    candidates: Candidates | None = None
    left: int = 0


def _start_designs(costs: SearchCosts, budget: Budget, streams: RandomStreams, count: int) -> list[tuple[int, ...]]:
    """Return up to ``count`` different designs: the cheapest, then those that hold most options not tried before.

    An option that no design holds may be the best of its slot and never be noticed. Each design is a member of the
    exact front of a made-up quality: the square root of what an option costs, times a lognormal factor, and more for
    what is untried.
    """
    generator = streams.numpy("model_based_start")
    designs = [cheapest(costs)]
    tried = [np.arange(size) == option for size, option in zip(costs.sizes, designs[0], strict=True)]
    for _ in range(4 * count):
        if len(designs) >= count:
            break
        rows = [
            np.sqrt(row - row.min()) * np.exp(generator.normal(size=len(row))) * np.where(known, 1.0, _UNTRIED_FACTOR)
            for row, known in zip(costs.hint_ms.slots, tried, strict=True)
        ]
        front = costs.front(SlotSum(slots=tuple(rows)), budget, max_labels=_START_LABELS)
        if len(front) == 0:
            break
        untried = SlotSum(slots=tuple((~known).astype(float) for known in tried)).total(front.options)
        best = np.flatnonzero(untried == untried.max())
        design = tuple(front.options[int(generator.choice(best))].tolist())
        if design not in designs:
            designs.append(design)
        for known, option in zip(tried, design, strict=True):
            known[option] = True
    return designs
