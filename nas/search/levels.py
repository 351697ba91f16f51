"""Several levels of quality as one model: what a cheap estimator says is a hint to the model of the next dearer one.

Recursive co-kriging (Le Gratiet & Garnier 2014, Int. J. Uncertainty Quantification 4, 365-386) with the quality model
of this package at every level: the posterior mean of the level below enters the model of a level as one coefficient
(``Observations.hints``), so that a factor and whatever the levels differ by are learned at the same time. An estimator
that says nothing of the next gets a factor near 0 and does no harm but for its price.
Unlike theirs, a level's variance leaves out how unsure the level below is of its own mean.

How many cheap evaluations go with a dear one follows from how well they agree: with correlation r and price ratio w,
sqrt(w r^2 / (1 - r^2)) of them (Peherstorfer, Willcox & Gunzburger 2016, SIAM J. Sci. Comput. 38, A3163-A3194). Their
rule is for estimating a mean; here it is a rule of thumb that is right at both ends: nothing for a useless source.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from nas.search.exact.tables import FloatArray, SlotSum, stack
from nas.search.quality_model import Observations, QualityModel, Scales, learn_scales

# Agreement is believed as if this many candidates had shown a squared correlation of one half.
_PRIOR_CANDIDATES = 3.0
_PRIOR_AGREEMENT = 0.5
# Without this much evidence a level's model is left out of the next one's hints.
_FEWEST_FOR_MODEL = 4
_GROWTH_BEFORE_SETTLED = 1.15
_MOST_FOR_MODEL = 600


@dataclass(slots=True, kw_only=True, eq=False)
class LevelModels:
    """Evaluations of every level and the models learned from them.

    Args:
        sizes: Number of options of each slot.
        num_levels: How many levels there are.
        latency: Latency by slot and option, the first hint of every level.
        outside: What is known from elsewhere, hints of every level: sensitivities, an earlier search.
        traits: As in ``Observations``.
    """

    sizes: tuple[int, ...]
    num_levels: int
    latency: SlotSum
    outside: tuple[SlotSum, ...] = ()
    traits: tuple[FloatArray, ...] = ()
    _levels: list[_Level] = field(init=False)

    def __post_init__(self) -> None:
        self._levels = [_Level() for _ in range(self.num_levels)]

    def add(self, level: int, row: tuple[int, ...], score: float, error: float) -> None:
        """Take in one evaluation."""
        known = self._levels[level]
        known.rows.append(row)
        known.scores.append(score)
        known.errors.append(error)
        if len(known.rows) >= _GROWTH_BEFORE_SETTLED * known.num_settled:
            known.num_settled = len(known.rows)

    def count(self, level: int) -> int:
        """Return how many evaluations a level has."""
        return len(self._levels[level].rows)

    def hints(self, level: int) -> tuple[SlotSum, ...]:
        """Return what a level may learn from beside its own evaluations and latency.

        What the level below says changes only when its evaluations have grown by a seventh, so that scales need not be
        learned anew all the time and yet are a function of the evaluations told.
        """
        below = self._settled(level - 1)
        return self.outside if below is None else (below, *self.outside)

    def model(self, level: int) -> QualityModel | None:
        """Return the posterior of a level, else of the one below; ``None`` before there is evidence."""
        if level < 0:
            return None
        known = self._levels[level]
        key = tuple(len(one.rows) for one in self._levels[: level + 1])
        if known.model is None or known.model[0] != key:
            below = self.model(level - 1)
            if key[-1] >= _FEWEST_FOR_MODEL:
                below = self._posterior(level, key[-1], None if below is None else below.mean())
            known.model = (key, below)
        return known.model[1]

    def agreement(self, level: int) -> float:
        """Return the squared correlation of a level's scores with what the level below says of the same candidates.

        What latency explains of both is taken out first, because it is known without judging anything; then the value
        is drawn towards one half, as far as there are few candidates.
        """
        above = self._levels[level]
        num, below = len(above.rows), self._settled(level - 1)
        if below is None or num < _FEWEST_FOR_MODEL:
            return _PRIOR_AGREEMENT
        if above.agreement is None or above.agreement[0] != (num, below):
            rows = stack(above.rows, len(self.sizes))
            shown = _partial(below.total(rows), np.array(above.scores), self.latency.total(rows))
            shown = max(0.0, 1.0 - (1.0 - shown) * (num - 2) / (num - 3))  # unbiased under no correlation
            drawn = (num * shown + _PRIOR_CANDIDATES * _PRIOR_AGREEMENT) / (num + _PRIOR_CANDIDATES)
            above.agreement = ((num, below), drawn)
        return above.agreement[1]

    def _settled(self, level: int) -> SlotSum | None:
        """Return the posterior mean of the first part of a level's evaluations, which grows in steps."""
        if level < 0:
            return None
        known = self._levels[level]
        key = tuple(one.num_settled for one in self._levels[: level + 1])
        if known.settled is None or known.settled[0] != key:
            below = self._settled(level - 1)
            if key[-1] >= _FEWEST_FOR_MODEL:
                below = self._posterior(level, key[-1], below).mean()
            known.settled = (key, below)
        return known.settled[1]

    def _posterior(self, level: int, count: int, below: SlotSum | None) -> QualityModel:
        """Return the posterior of a level given its first ``count`` evaluations."""
        data = self._observations(level, below).first(count)
        return QualityModel(data.last(_MOST_FOR_MODEL), self._scales(level))

    def _scales(self, level: int) -> Scales:
        known = self._levels[level]
        key = tuple(one.num_settled for one in self._levels[: level + 1])
        if known.scales is None or known.scales[0] != key:
            data = self._observations(level, self._settled(level - 1)).first(known.num_settled)
            known.scales = (key, learn_scales(data))
        return known.scales[1]

    def _observations(self, level: int, below: SlotSum | None) -> Observations:
        known = self._levels[level]
        return Observations(
            options=stack(known.rows, len(self.sizes)),
            scores=np.array(known.scores),
            errors=np.array(known.errors),
            sizes=self.sizes,
            hints=(self.latency, *(() if below is None else (below,)), *self.outside),
            traits=self.traits,
        )


@dataclass(slots=True, kw_only=True, eq=False)
class _Level:
    """Evaluations of one level, and what was worked out from them with the counts it was worked out from."""

    rows: list[tuple[int, ...]] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    num_settled: int = 0
    scales: tuple[tuple[int, ...], Scales] | None = None
    settled: tuple[tuple[int, ...], SlotSum | None] | None = None
    model: tuple[tuple[int, ...], QualityModel | None] | None = None
    agreement: tuple[tuple[int, SlotSum], float] | None = None


def _partial(first: FloatArray, second: FloatArray, given: FloatArray) -> float:
    """Return the squared correlation of what a straight line over ``given`` leaves of two columns; 0 for none left."""
    line = np.stack([np.ones_like(given), given], axis=1)
    left = [column - line @ np.linalg.lstsq(line, column, rcond=None)[0] for column in (first, second)]
    powers = [float(column @ column) for column in left]
    smallest = [
        1e-12 * max(float(column @ column), 1e-300) for column in (first - first.mean(), second - second.mean())
    ]
    if powers[0] <= smallest[0] or powers[1] <= smallest[1]:
        return 0.0
    return float(left[0] @ left[1]) ** 2 / (powers[0] * powers[1])
