"""Model-based search: learn quality, solve the model and draws of it exactly, judge what is expected to gain most.

Costs are known, so only quality is learned (``nas.search.quality_model``). The exact fronts, under the budget, of the
posterior mean and of several posterior draws are where the best architectures can be; in a small or listed space they
can be anywhere. Of these candidates are proposed, in turn: for every draw the member of its front that adds most
hypervolume if the draw is true (Thompson sampling, after Bradford et al. 2018, J. Global Optimization 71, 407-438),
then those of highest expected hypervolume improvement (``nas.search.candidates``), and every fifth time a probe of an
option that was hardly tried (``nas.search.probing``). Expected improvement alone was seen to stay at 0.80 to 0.83 of a
front's hypervolume where a slot far more important than the others held an option not tried. Nothing over the budget
and nothing known is proposed.

The first proposals are the cheapest architecture, then feasible ones that between them hold every option that fits.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from nas.core.errors import ConfigError
from nas.core.evaluation import Proposal
from nas.search import acquisition
from nas.search.candidates import Candidates, known_points
from nas.search.exact import SlotSum, TabulatedCosts
from nas.search.exact.tables import IntArray, stack, within
from nas.search.neighbours import TRIES, cheapest, new_neighbour
from nas.search.posterior import option_traits, worth_keeping
from nas.search.probing import probe
from nas.search.quality_model import Observations, QualityModel, Scales, learn_scales

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nas.core.cost import Budget
    from nas.core.evaluation import Evaluation
    from nas.core.protocols import SearchSpace
    from nas.core.rng import RandomStreams
    from nas.search.exact import SearchCosts
    from nas.search.exact.tables import FloatArray

# A new fit of the scales at most every time the observations have grown by this factor.
_GROWTH_BEFORE_NEW_SCALES = 1.15
# Scales are a dozen figures: more observations than this make them dearer to learn (cubically), hardly better.
_MOST_FOR_SCALES = 400
_REFILLS_BEFORE_CHANCE = 4
_START_LABELS = 200
_PICKS_FOR_A_PROBE = 5
_UNTRIED_FACTOR = 4.0
# Spaces up to this size are tabulated: every architecture is then a candidate.
_MOST_ENUMERATED = 20_000

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelBasedOptions:
    """Settings of the engine.

    Attributes:
        start: Proposals made before the model is used; a run whose YAML is silent takes ``start_of`` its evaluations.
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
    temperature: float = 1.0
    max_labels: int = 2000

    def __post_init__(self) -> None:
        for name in ("start", "draws", "picks", "max_labels"):
            if getattr(self, name) < 1:
                raise ConfigError(f"search.engine.{name} must be at least 1, got {getattr(self, name)}")
        if not self.temperature >= 0:
            raise ConfigError(f"search.engine.temperature must be at least 0, got {self.temperature}")


def start_of(evaluations: int) -> int:
    """Return how many of a search's ``evaluations`` are best made before the model is used: a quarter, 8 to 24 (ours).

    With all 24 a search of 24 trainings would never ask the model.
    """
    return min(ModelBasedOptions().start, max(8, evaluations // 4))


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
            if self._current.candidates is not None:
                self._current.candidates.leave_out(options)
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
        if len(self._rows) >= _GROWTH_BEFORE_NEW_SCALES * self._num_scaled and self._num_scaled < _MOST_FOR_SCALES:
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
            if position % _PICKS_FOR_A_PROBE == 0 and not isinstance(self._costs, TabulatedCosts):
                options = self._probe(batch)
                if options is not None:
                    return options
            for _ in range(_REFILLS_BEFORE_CHANCE):
                if batch.candidates is None or batch.left == 0:
                    batch.candidates, batch.left = self._candidates(batch), self._options.picks
                options = self._best_of_a_draw(batch) if batch.draws else None
                if options is None and batch.candidates is not None:
                    options = batch.candidates.take()
                if options is not None:
                    batch.left -= 1
                    return options
                batch.candidates = None
        return self._by_chance(batch)

    def _probe(self, batch: _Batch) -> tuple[int, ...] | None:
        """Return a good design with an option that was hardly tried, if there is one to be hoped for."""
        model, mean, members = self._best_known(batch)
        judged = stack([*self._rows, *self._pending], len(self._costs.sizes))
        return probe(
            members,
            judged,
            mean,
            known=self._known,
            model=model,
            costs=self._costs,
            budget=self._budget,
        )

    def _best_known(self, batch: _Batch) -> tuple[QualityModel, SlotSum, IntArray]:
        """Return the batch's model, its mean and the front of the mean; made once a batch."""
        if batch.best is None:
            model = batch.model or QualityModel(self._observations(), self._learned_scales())
            mean = model.mean()
            batch.model, batch.best = model, (model, mean, self._members(mean))
        return batch.best

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
            fronts = [self._members(draw) for draw in draws]
            batch.draws = list(zip(draws, fronts, strict=True))
            options = np.unique(np.concatenate([self._best_known(batch)[2], *fronts]), axis=0)
        new = [index for index, row in enumerate(options.tolist()) if tuple(row) not in self._known]
        if not new:
            return None
        pending = tuple(self._pending)
        return Candidates(options[new], model=model, costs=self._costs, budget=self._budget, pending=pending)

    def _best_of_a_draw(self, batch: _Batch) -> tuple[int, ...] | None:
        """Return the new member of a draw's front that would add most hypervolume if the draw were true."""
        quality, members = batch.draws.pop(0)
        new = [index for index, row in enumerate(members.tolist()) if tuple(row) not in self._known]
        members = members[new]
        if not len(members):
            return None
        judged = stack([*self._rows, *self._pending], len(self._costs.sizes))
        known = known_points(judged, -quality.total(judged), self._costs, self._budget)
        scored = self._costs.score(members)
        points = np.stack([scored.latency_ms, scored.peak_memory_mb, -quality.total(members)], axis=1)
        corner = acquisition.corner(np.concatenate([points, known])[:, :2], known[:, 2], self._budget)
        gains = acquisition.gains(points, known, corner)
        best = int(np.argmax(gains))
        return tuple(members[best].tolist()) if gains[best] > 0 else None

    def _members(self, quality: SlotSum) -> IntArray:
        """Return the members of the front of a quality."""
        return self._costs.front(quality, self._budget, max_labels=self._options.max_labels).options

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
    best: tuple[QualityModel, SlotSum, IntArray] | None = None
    candidates: Candidates | None = None
    draws: list[tuple[SlotSum, IntArray]] = field(default_factory=list)
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
