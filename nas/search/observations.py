"""What a quality model sees: architectures that were judged, and how alike any two are in each respect."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np

from nas.search.exact.problem import FloatArray, IntArray, SlotSum


@dataclass(frozen=True, kw_only=True, eq=False)
class Observations:
    """Architectures that were judged.

    Attributes:
        options: Option indices (n, L).
        scores: Their qualities (n,).
        errors: Known standard errors (n,), 0 where none is known; they come on top of the learned noise.
        sizes: Number of options of each slot.
        hints: Figures that quality may be a multiple of, such as latency; they only have to be sums over slots.
            What options add to the first is the weight ``w`` above.
        traits: For each slot an array (options, traits), 1 where an option has a trait; the same traits in all slots.
    """

    options: IntArray
    scores: FloatArray
    errors: FloatArray
    sizes: tuple[int, ...]
    hints: tuple[SlotSum, ...] = ()
    traits: tuple[FloatArray, ...] = ()

    def first(self, count: int) -> Observations:
        """Return the first ``count`` of them."""
        return self._part(slice(count))

    def last(self, count: int) -> Observations:
        """Return the last ``count`` of them."""
        return self._part(slice(max(0, len(self.options) - count), None))

    def _part(self, rows: slice) -> Observations:
        return replace(self, options=self.options[rows], scores=self.scores[rows], errors=self.errors[rows])

    @cached_property
    def centre(self) -> float:
        """Mean score."""
        return float(self.scores.mean())

    @cached_property
    def unit(self) -> float:
        """Standard deviation of the scores, 1 where they are all equal."""
        return float(self.scores.std()) or 1.0

    @cached_property
    def features(self) -> Features:
        """What the model sees of them."""
        return self.features_of(self.options)

    def features_of(self, options: IntArray) -> Features:
        """Return what the model sees of architectures (N, L), these observations being the yardstick."""
        columns = list(zip(options.T, self.weights, strict=True))
        held = [(column[:, None] == np.arange(len(row))) * row for column, row in columns]
        hints = [hint.total(options) for hint in self.scaled_hints]
        traits = [table[column] for table, column in zip(self.traits, options.T, strict=False)]
        return Features(
            options=options,
            rates=np.stack([row[column] for column, row in columns], axis=1),
            rated=np.concatenate(held, axis=1),
            hints=np.array(hints).reshape(len(hints), len(options)).T,
            traits=np.stack(traits, axis=1) if traits else np.zeros((len(options), len(self.sizes), 0)),
        )

    @cached_property
    def scaled_hints(self) -> tuple[SlotSum, ...]:
        """Hints with mean 0 and standard deviation 1 over the observations."""
        scaled = []
        for hint in self.hints:
            values = hint.total(self.options)
            factor = 1.0 / (float(values.std()) or 1.0)
            table = hint.scaled(factor)
            base = table.base - factor * float(values.mean())
            scaled.append(SlotSum(slots=table.slots, pairs=table.pairs, base=base))
        return tuple(scaled)

    @cached_property
    def weights(self) -> list[FloatArray]:
        """What each option adds to the first hint, against the slot's least, 1 on average; 0 without hints."""
        if not self.hints:
            return [np.zeros(size) for size in self.sizes]
        above = [row - row.min() for row in self.hints[0].slots]
        unit = float(np.mean(np.concatenate(above))) or 1.0
        return [row / unit for row in above]

    @cached_property
    def covariances(self) -> dict[str, FloatArray]:
        """Covariances (n, n) that a unit scale of each kind of coefficient gives the scores."""
        return covariances(self.features, self.features)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Features:
    """What the model sees of N architectures.

    Attributes:
        options: Option indices (N, L).
        rates: Weights of the options held (N, L).
        rated: One column for every option of every slot: its weight where it is held, else 0.
        hints: Standardised hints (N, number of hints).
        traits: Traits of the options held (N, L, traits); none where none are known.
    """

    options: IntArray
    rates: FloatArray
    rated: FloatArray
    hints: FloatArray
    traits: FloatArray

    def part(self, index: int) -> Features:
        """Return those of one architecture."""
        rows = slice(index, index + 1)
        return Features(**{one.name: getattr(self, one.name)[rows] for one in fields(self)})


def covariances(first: Features, second: Features) -> dict[str, FloatArray]:
    """Return the prior covariances (N, M) of two lots of architectures, for a unit scale of each kind."""
    shape = len(first.options), len(second.options)
    singles, pairs = np.zeros((2, *shape), dtype=np.uint16)  # counts; small integers are fast to add
    before = np.zeros(shape, dtype=bool)
    for column, other in zip(first.options.T, second.options.T, strict=True):
        same = column[:, None] == other[None, :]
        singles += same
        pairs += same & before
        before = same
    size = first.traits.shape[1] * first.traits.shape[2]
    return {
        "trait": first.traits.reshape(len(first.options), size) @ second.traits.reshape(len(second.options), size).T,
        "shared": first.traits.sum(axis=1) @ second.traits.sum(axis=1).T,
        "single": singles.astype(float),
        "rated": first.rated @ second.rated.T,
        "slope": first.rates @ second.rates.T,
        "pair": pairs.astype(float),
        "hint": first.hints @ second.hints.T,
    }


def residual(first: Features, second: Features, decays: FloatArray) -> FloatArray:
    """Return correlations (N, M) of what no sum explains: ``exp(-decay)`` for every slot whose options differ.

    The product over slots holds interactions of every order; the smaller the decays, the lower the orders that matter.
    """
    result = np.zeros((len(first.options), len(second.options)))
    for column, other, decay in zip(first.options.T, second.options.T, decays.tolist(), strict=True):
        result -= decay * (column[:, None] != other[None, :])
    return np.asarray(np.exp(result, out=result))
