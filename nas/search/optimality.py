"""How far from optimal a search can be, by its quality model.

Each posterior draw is a quality that the evaluations allow. Its front under the budget is solved, and the hypervolume
that the judged candidates have under that same draw is taken as a share of it; quantiles over draws are the bound. What
the model cannot express (interactions of slots that are not neighbours) is not in it, and coarsened fronts are a little
too low, the share a little too high: draws are taken further from the mean than the posterior has it, by a factor under
which the bound held as often as stated on synthetic problems (tests/search/test_explain.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nas.core.explanation import OptimalityBound
from nas.search.exact.tables import FloatArray, SlotSum, within
from nas.search.exact.volume import hypervolume

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nas.core.cost import Budget
    from nas.search.exact.problem import SearchCosts
    from nas.search.posterior import Posterior

COVERAGE = 0.9
# Lower bounds held in 65 to 90 % of synthetic problems with draws as they are, in 90 to 100 % with 1.5.
INFLATION = 1.5
ASSUMPTION = (
    "quality is a sum over slots and neighbouring slots with Gaussian coefficients and noise, and costs are as "
    "tabulated (checked on synthetic problems)"
)
_NOT_QUITE = "; the evaluations show more than such a sum, so the bound is too sure by an unknown amount"
_MOST_LABELS = 500
# With 2 a bound was seen to claim more than there was, from 20 on none was.
_LEAST_JUDGED = 10


def optimality_bound(
    posterior: Posterior, costs: SearchCosts, budget: Budget, reference: tuple[float, float, float]
) -> OptimalityBound | None:
    """Return the bound; ``None`` without a network inside budget and reference, or with fewer than 10 judged.

    Args:
        posterior: Fitted to the judged candidates.
        costs: Costs of the space.
        budget: Limits.
        reference: Corner of the hypervolume: latency ms, peak memory MB, negated quality.
    """
    if len(np.unique(posterior.judged, axis=0)) < _LEAST_JUDGED:
        return None
    shares = draw_shares(posterior, costs, budget, np.array(reference))
    if not len(shares):
        return None
    return OptimalityBound(
        median=float(np.median(shares)),
        lower=float(np.quantile(shares, 1 - COVERAGE)),
        coverage=COVERAGE,
        draws=len(shares),
        inflation=INFLATION,
        assumption=ASSUMPTION + (_NOT_QUITE if posterior.residual else ""),
    )


def draw_shares(
    posterior: Posterior, costs: SearchCosts, budget: Budget, corner: FloatArray, *, inflation: float = INFLATION
) -> FloatArray:
    """Return for each draw with a front the share of its hypervolume that the judged candidates hold, (draws,)."""
    judged = np.unique(posterior.judged, axis=0)
    scored = costs.score(judged)
    inside = within(scored, budget)
    latency, memory = scored.latency_ms[inside], scored.peak_memory_mb[inside]
    shares = []
    for drawn in posterior.draws:
        draw = further(drawn, posterior.mean, inflation)
        own = np.stack([latency, memory, -draw.total(judged[inside])], axis=1)
        front = costs.front(draw, budget, max_labels=_MOST_LABELS).points()
        whole = hypervolume(np.concatenate([front, own]), corner)
        if whole > 0:
            shares.append(hypervolume(own, corner) / whole)
    return np.array(shares)


def further(draw: SlotSum, mean: SlotSum, factor: float) -> SlotSum:
    """Return ``draw`` at ``factor`` times its distance from ``mean``."""

    def moved(own: Sequence[FloatArray], middle: Sequence[FloatArray]) -> tuple[FloatArray, ...]:
        return tuple(two + factor * (one - two) for one, two in zip(own, middle, strict=True))

    pairs = None if draw.pairs is None or mean.pairs is None else moved(draw.pairs, mean.pairs)
    return SlotSum(slots=moved(draw.slots, mean.slots), pairs=pairs, base=mean.base + factor * (draw.base - mean.base))
