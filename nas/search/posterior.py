"""What the evaluations of a search say of quality: the posterior's mean and draws, as sums over slots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nas.search.exact import dominance
from nas.search.exact.tables import FloatArray, IntArray, SlotSum, stack
from nas.search.quality_model import Observations, QualityModel, learn_scales

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nas.core.evaluation import Evaluation
    from nas.core.protocols import SearchSpace
    from nas.search.exact.problem import SearchCosts

# A model of more takes too long, and its covariances too much memory.
_MOST_OBSERVATIONS = 2000


@dataclass(frozen=True, kw_only=True, eq=False)
class Posterior:
    """A fitted quality model.

    Attributes:
        judged: Option indices (n, L) of what was judged; of many the model has seen a part, see ``worth_keeping``.
        mean: Posterior mean of quality.
        draws: Draws from the posterior, without the noise of an evaluation.
        residual: Whether the evaluations show more than sums over slots and neighbours, which draws leave out.
    """

    judged: IntArray
    mean: SlotSum
    draws: tuple[SlotSum, ...]
    residual: bool = False

    def totals(self, options: IntArray) -> FloatArray:
        """Return the draws' qualities of architectures (N, L), as (draws, N)."""
        return np.stack([draw.total(options) for draw in self.draws])


def fit_posterior(
    space: SearchSpace,
    evaluations: Sequence[Evaluation],
    costs: SearchCosts,
    generator: np.random.Generator,
    *,
    draws: int,
) -> Posterior | None:
    """Return the posterior given the qualities of the highest level; ``None`` with fewer than two.

    Args:
        space: The search's space.
        evaluations: Any engine's journal.
        costs: The costs that go with it.
        generator: Where the draws come from.
        draws: Number of draws.
    """
    judged = [item for item in evaluations if item.quality is not None and item.at_highest_level]
    if len(judged) < 2:
        return None
    qualities = [item.quality for item in judged if item.quality is not None]
    options = stack([tuple(space.to_options(item.architecture)) for item in judged], len(costs.sizes))
    scores = np.array([quality.score for quality in qualities])
    kept = worth_keeping(options, scores, costs)
    observations = Observations(
        options=options[kept],
        scores=scores[kept],
        errors=np.array([quality.standard_error or 0.0 for quality in qualities])[kept],
        sizes=costs.sizes,
        hints=(costs.hint_ms,),
        traits=option_traits(space),
    )
    scales = learn_scales(observations)
    model = QualityModel(observations, scales)
    drawn = tuple(model.draw(generator) for _ in range(draws))
    return Posterior(judged=options, mean=model.mean(), draws=drawn, residual=scales.residual > 0)


def worth_keeping(options: IntArray, scores: FloatArray, costs: SearchCosts) -> IntArray:
    """Return which judged architectures (n, L) a model is given: all, or the latest 2000 and those on the front."""
    if len(options) <= _MOST_OBSERVATIONS:
        return np.arange(len(options))
    scored = costs.score(options)
    best = dominance.keep([scored.latency_ms, scored.peak_memory_mb, -scores])
    return np.union1d(best, np.arange(len(options) - _MOST_OBSERVATIONS, len(options)))


def option_traits(space: SearchSpace) -> tuple[FloatArray, ...]:
    """Return which values of choices the options of each slot have.

    Choices are named ``slot.choice``; the same choice in another slot is the same trait.
    """
    options = [
        [{(name.rpartition(".")[2], value) for name, value in option.items()} for option in space.options(slot)]
        for slot in space.slots()
    ]
    every = sorted({trait for slot in options for traits in slot for trait in traits}, key=repr)
    return tuple(np.array([[float(trait in traits) for trait in every] for traits in slot]) for slot in options)
